"""Whether a space and a family's config class fit together: checked completely before the first trial (SEARCH-11)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from search.objective import Constraint
from search.parameters import Fixed, Float, Int, Kind, shown
from search.seeding import generator
from search.space import Problem, Space, nearest
from search.space_file import Document

N_PROBES = 200
"""Configs drawn to see whether the family's rules leave anything of the space (A23)."""


KNOWN_BEFORE = ("n_parameters", "memory_bytes")
"""Metrics that a family's config computes without training, by methods of these names."""


def check_space(
    space: Space,
    config_class: type[BaseModel],
    enqueue: Sequence[Mapping[str, Any]],
    document: Document,
    *,
    optimizer: str = "tpe",
    trials: int | None = None,
    allow_partial: bool = False,
    machine: Mapping[str, Any] | None = None,
    constraints: Sequence[Constraint] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (problems, warnings), one line each with its place in the file. With problems no trial may start.

    Args:
        space: What may vary.
        config_class: The family's config; its fields and validators decide what is possible.
        enqueue: Partial configs that shall be tried first.
        document: Where everything was written.
        optimizer: Name of the optimizer; `grid` needs a finite space within the budget.
        trials: Number of trials asked for.
        allow_partial: A grid may be larger than the budget.
        machine: What trials run on, see `infeasible_reason`.
        constraints: What trials must keep to; those that are known before training count here.
    """
    problems = [*_field_problems(space, config_class)]
    warnings = [*_constant_warnings(space)]
    unknown_or_refused = bool(problems)
    problems += _enqueue_problems(space, config_class, enqueue, machine, skip_rules=unknown_or_refused)
    problems += _grid_problems(space, optimizer, trials, allow_partial)
    if not unknown_or_refused:
        found, warned = _probe(space, config_class, machine, constraints)
        problems += found
        warnings += warned
    if not space.free and trials is not None and trials > 1:
        text = f"expected something that varies, found 0 free parameters for {trials} trials; 1 trial says it all"
        warnings.append(Problem(("parameters",), text))
    return document.lines(problems), document.lines(warnings)


def infeasible_reason(
    config: Mapping[str, Any],
    config_class: type[BaseModel],
    machine: Mapping[str, Any] | None = None,
    constraints: Sequence[Constraint] = (),
) -> str | None:
    """Say in one line what keeps a config from being trained, or None: a rule of the family, or a bound on its size.

    Fields that are not given take the class's defaults. Number of parameters and memory follow from formulas of the
    config (`n_parameters()`, `memory_bytes()`), so that a config which breaks a bound on them never starts. With
    `machine`, the arguments of the config's `cannot_run`, a config that could not begin there is infeasible too.
    """
    errors = _errors(config, config_class)
    if errors:
        return "; ".join(f"{place}: {text}" if place else text for place, text in errors)
    bounds = [c for c in constraints if c.metric in KNOWN_BEFORE]
    if not bounds and machine is None:
        return None
    whole = _parsed(config, config_class)
    found = [bound.objection(float(getattr(whole, bound.metric)())) for bound in bounds]
    found += [whole.cannot_run(**machine)] if machine is not None else []
    return "; ".join(text for text in found if text is not None) or None


def resolved(config: Mapping[str, Any], config_class: type[BaseModel]) -> dict[str, Any] | None:
    """Return all fields of a config as JSON values, defaults included; None where the class refuses it."""
    try:
        return config_class.model_validate_json(json.dumps(dict(config))).model_dump(mode="json")
    except ValidationError:
        return None


def _field_problems(space: Space, config_class: type[BaseModel]) -> Iterator[Problem]:
    """Every name is a field, and every value the space may give it is accepted by that field alone."""
    fields = config_class.model_fields
    for name, kind in space.parameters.items():
        if name not in fields:
            hint = nearest(name, list(fields)) or f"; known: {', '.join(fields)}"
            yield Problem(("parameters", name), f"expected a field of {config_class.__name__}, found {name!r}{hint}")
            continue
        for path, value in _written_values(name, kind):
            yield from _refused(path, name, value, config_class)
        for parent, allowed in kind.conditions.items():
            for value in allowed if parent in fields else ():
                yield from _refused(("parameters", name, "when", parent), parent, value, config_class)


def _written_values(name: str, kind: Kind) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the values that a field must accept, each with its place: both ends, every choice, the default."""
    path = ("parameters", name)
    default = getattr(kind, "default", None)
    if isinstance(kind, Fixed):
        yield path, kind.value
    elif isinstance(kind, Float | Int):
        yield (*path, "low"), kind.low
        yield (*path, "high"), kind.high
    else:
        for position in range(kind.size or 0):
            yield (*path, "choices", position), kind.value_at(position)
    if default is not None:
        yield (*path, "default"), default


def _refused(path: tuple[str | int, ...], name: str, value: Any, config_class: type[BaseModel]) -> Iterator[Problem]:
    for place, text in _errors({name: value}, config_class):
        if place.split(".")[0] == name:
            yield Problem(path, f"expected a value that {config_class.__name__} takes ({text}), found {shown(value)}")
            return


def _enqueue_problems(
    space: Space,
    config_class: type[BaseModel],
    enqueue: Sequence[Mapping[str, Any]],
    machine: Mapping[str, Any] | None,
    *,
    skip_rules: bool,
) -> Iterator[Problem]:
    for position, partial in enumerate(enqueue):
        place = ("search", "enqueue", position)
        objections = space.objections(partial, partial=True)
        for name, text in objections:
            yield Problem((*place, name), f"point {position + 1} lies outside the space: {text}")
        if not objections and not skip_rules:
            reason = infeasible_reason(space.complete(partial), config_class, machine)
            if reason is not None:
                yield Problem(
                    place, f"expected a point that the family can train, found point {position + 1}: {reason}"
                )


def _grid_problems(space: Space, optimizer: str, trials: int | None, allow_partial: bool) -> Iterator[Problem]:
    if optimizer != "grid":
        return
    n_points = space.n_points()
    if n_points is None:
        endless = [n for n in space.free if space.parameters[n].size is None]
        text = f"expected discrete parameters for a grid, found continuous {', '.join(endless)}; give them a step"
        yield Problem(("search", "optimizer"), text)
    elif trials is not None and n_points > trials and not allow_partial:
        text = (
            f"expected a grid within budget.trials ({trials}), found {n_points} points; set search.allow_partial: true"
        )
        yield Problem(("search", "optimizer"), text)


def _constant_warnings(space: Space) -> Iterator[Problem]:
    for name, kind in space.parameters.items():
        path = ("parameters", name)
        if not isinstance(kind, Fixed) and kind.size == 1 and name in space.free:
            yield Problem(path, f"constant: its only value is {shown(kind.value_at(0))}; write the bare value")
        elif isinstance(kind, Float | Int) and kind.step is not None and kind.size is not None:
            last = kind.value_at(kind.size - 1)
            if last != kind.high:
                text = (
                    f"step {kind.step} does not divide the range: the effective high is {shown(last)}, not {kind.high}"
                )
                yield Problem((*path, "step"), text)


def _probe(
    space: Space,
    config_class: type[BaseModel],
    machine: Mapping[str, Any] | None,
    constraints: Sequence[Constraint],
) -> tuple[list[Problem], list[Problem]]:
    """Draw configs and ask the family's rules about them."""
    rng = generator(0, "validity")
    reasons = Counter(infeasible_reason(space.sample(rng), config_class, machine, constraints) for _ in range(N_PROBES))
    n_feasible = reasons.pop(None, 0)
    if not reasons:
        return [], []
    reason, _ = reasons.most_common(1)[0]
    if n_feasible == 0:
        text = f"expected some feasible configs, found none in {N_PROBES} drawn; most often: {reason}"
        return [Problem(("parameters",), text)], []
    if n_feasible < N_PROBES // 2:
        share = 1 - n_feasible / N_PROBES
        return [], [Problem(("parameters",), f"{share:.0%} of drawn configs are infeasible; most often: {reason}")]
    return [], []


def _parsed(config: Mapping[str, Any], config_class: type[BaseModel]) -> Any:
    """Return the config's model. Through JSON text, so that lists may stand for tuples under strict rules."""
    return config_class.model_validate_json(json.dumps(dict(config)))


def _errors(config: Mapping[str, Any], config_class: type[BaseModel]) -> list[tuple[str, str]]:
    """Return (field, message) pairs."""
    try:
        _parsed(config, config_class)
    except ValidationError as error:
        return [
            (".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False)
        ]
    return []
