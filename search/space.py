"""A space: named parameters, conditions between them, and what follows from them. Pure: no YAML, disk or clock.

A config holds exactly the parameters that are active in it, as JSON values.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.errors import SpaceError
from search.parameters import Choice, Fixed, Float, Int, Kind, Ordered, Parameter, Scalar, Value, identity, shown

__all__ = ["Choice", "Fixed", "Float", "Int", "Kind", "Ordered", "Parameter", "Problem", "Row", "Space"]

MOST_LISTED = 1000
"""A whole-number range with more values than this is given by its two ends in `reach`."""


class Problem(NamedTuple):
    """Something wrong: where in the file, as keys from the top, and what."""

    path: tuple[str | int, ...]
    text: str


class Row(NamedTuple):
    """One parameter in the plan table."""

    name: str
    kind: str
    span: str
    default: str
    when: str


class Space:
    """What may vary.

    Args:
        parameters: Name -> kind; a bare value stands for `Fixed`. Order is free: parents are put before children.

    Raises:
        SpaceError: A condition names an unknown parameter, a value its parent cannot have, or is part of a cycle.
    """

    def __init__(self, parameters: Mapping[str, Kind | Value]) -> None:
        kinds = {n: k if isinstance(k, Kind) else Fixed(value=k) for n, k in parameters.items()}
        found = condition_problems(kinds)
        if found:
            raise SpaceError(tuple(f"{'.'.join(map(str, p.path))}: {p.text}" for p in found))
        self.parameters: Mapping[str, Kind] = {n: kinds[n] for n in _parents_first(kinds)[0]}
        self._conditions = {name: _told(kind) for name, kind in self.parameters.items()}
        self._possible = self._possible_names()
        self.free = tuple(n for n, k in self.parameters.items() if not isinstance(k, Fixed) and n in self._possible)
        """Names of the parameters that are searched: neither fixed nor switched off by something fixed."""

    def is_active(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a parameter exists in a config that holds its active parents."""
        for parent, allowed in self._conditions[name]:
            if parent not in config or identity(config[parent]) not in allowed:
                return False
        return True

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a config, uniform (log-uniform) in each active parameter.

        Draws one number per free parameter, active or not, so that equal draws mean equal places.
        """
        return self.decode(rng.random(len(self.free)))

    def complete(self, partial: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config that has the given values, and the defaults of every other active parameter.

        Raises:
            SpaceError: A given value is not allowed, or is of a parameter that is unknown or not active.
        """
        config = self._filled(partial)
        found = self.objections({**config, **partial})
        if found:
            raise SpaceError(tuple(f"{name}: {text}" for name, text in found))
        return {name: _json(self.parameters[name].normal(value)) for name, value in config.items()}

    def problems(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Return one line for everything that keeps a config out of the space; empty: it is a point of it."""
        return tuple(f"{name}: {text}" for name, text in self.objections(config))

    def objections(self, config: Mapping[str, Any], *, partial: bool = False) -> tuple[tuple[str, str], ...]:
        """Return (parameter, what is wrong) pairs; with `partial`, what is not given is taken at its default."""
        if partial:
            config = {**self._filled(config), **config}
        found = []
        for name in config:
            if name not in self.parameters:
                text = f"expected a parameter of the space, found an unknown name{nearest(name, self.parameters)}"
                found.append((name, text))
        for name, kind in self.parameters.items():
            active = self.is_active(name, config)
            if active and name not in config:
                found.append((name, "expected a value, found none"))
            elif not active and name in config:
                only = f"it exists only when {condition(kind)}"
                found.append((name, f"expected no value, found {shown(config[name])}; {only}"))
            elif active and (wanted := kind.objection(config[name])) is not None:
                found.append((name, f"expected {wanted}, found {shown(config[name])}"))
        return tuple(found)

    def encode(self, config: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the (d,) place of a config in the unit cube of the free parameters; NaN where one is not active."""
        return np.array([self.parameters[n].to_unit(config[n]) if n in config else np.nan for n in self.free])

    def decode(self, vector: NDArray[np.float64]) -> dict[str, Any]:
        """Return the config at a (d,) place of the unit cube; inverse of `encode`. Ignores places that are not active.

        Raises:
            ValueError: Wrong length, or NaN for a parameter that is active.
        """
        free = self.free
        if len(vector) != len(free):
            raise ValueError(f"decode: expected a vector of shape ({len(free)},), found ({len(vector)},)")
        places = dict(zip(free, map(float, vector), strict=True))
        config: dict[str, Any] = {}
        for name, kind in self.parameters.items():
            if not self.is_active(name, config):
                continue
            place = places.get(name, 0.5)
            if math.isnan(place):
                raise ValueError(f"decode: expected a number for {name}, which is active, found NaN")
            config[name] = _json(kind.from_unit(place))
        return config

    def reach(self) -> dict[str, tuple[Any, ...]]:
        """Return what each parameter that can be active may be.

        All values of a discrete parameter, both ends of a continuous one or of a range above `MOST_LISTED`, the value
        of a fixed one.
        """
        return {
            n: tuple(_json(v) for v in _reachable(self.parameters[n])) for n in self.parameters if n in self._possible
        }

    def n_points(self) -> int | None:
        """Return the number of distinct configs; None where an active parameter is continuous."""
        return _count(self, {}, tuple(self.parameters))

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield every config of a finite space once; the last parameter varies fastest.

        Raises:
            ValueError: A parameter is continuous.
        """
        endless = [n for n in self.free if self.parameters[n].size is None]
        if endless:
            raise ValueError(
                f"points: expected discrete parameters, found continuous {', '.join(endless)}; give a step"
            )
        return self._points({}, tuple(self.parameters))

    def fingerprint(self) -> str:
        """Return the sha256 of the space. Order counts: it decides which random number goes to which parameter."""
        content = [[name, type(kind).__name__, kind.model_dump(mode="json")] for name, kind in self.parameters.items()]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def describe(self) -> tuple[Row, ...]:
        """Return one row per parameter for the plan table, parents before children."""
        rows = []
        for name, kind in self.parameters.items():
            text = condition(kind) if name in self._possible else f"never: {condition(kind)}"
            default = "" if isinstance(kind, Fixed) else shown(kind.initial)
            rows.append(Row(name, type(kind).__name__.lower(), kind.span(), default, text))
        return tuple(rows)

    def _filled(self, partial: Mapping[str, Any]) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for name, kind in self.parameters.items():
            if self.is_active(name, config):
                config[name] = _json(partial[name] if name in partial else kind.initial)
        return config

    def _possible_names(self) -> frozenset[str]:
        """Return the names whose every condition can be met by a parent that can itself be active."""
        possible: set[str] = set()
        for name, kind in self.parameters.items():
            if all(
                parent in possible and any(self.parameters[parent].objection(v) is None for v in allowed)
                for parent, allowed in kind.conditions.items()
            ):
                possible.add(name)
        return frozenset(possible)

    def _points(self, config: dict[str, Any], names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        while names and not self.is_active(names[0], config):
            names = names[1:]
        if not names:
            yield dict(config)
            return
        kind = self.parameters[names[0]]
        for rank in range(kind.size or 0):
            yield from self._points({**config, names[0]: _json(kind.value_at(rank))}, names[1:])


def condition_problems(kinds: Mapping[str, Kind]) -> tuple[Problem, ...]:
    """Return everything wrong with the conditions between parameters, with its place below `parameters`."""
    found = []
    for name, kind in kinds.items():
        for parent, allowed in kind.conditions.items():
            path = ("parameters", name, "when", parent)
            text = _parent_problem(name, parent, kinds, allowed)
            if text is not None:
                found.append(Problem(path, text))
    cycle = _parents_first(kinds)[1]
    if cycle:
        ring = " -> ".join((*cycle, cycle[0]))
        found.append(
            Problem(("parameters", cycle[0], "when"), f"expected conditions without a cycle, found {ring}; drop one")
        )
    return tuple(found)


def condition(kind: Kind) -> str:
    """Write the condition of a parameter in words; empty where it is always active."""
    terms = []
    for parent, allowed in kind.conditions.items():
        terms.append(f"{parent} = " + " or ".join(str(v) if isinstance(v, str) else shown(v) for v in allowed))
    return " and ".join(terms)


def nearest(name: str, known: Mapping[str, Any] | tuple[str, ...] | list[str]) -> str:
    """Return a hint with the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _parent_problem(name: str, parent: str, kinds: Mapping[str, Kind], allowed: tuple[Scalar, ...]) -> str | None:
    if parent not in kinds:
        others = {n: None for n in kinds if n != name}
        return f"expected a parameter of the space, found unknown {parent!r}{nearest(parent, others)}"
    kind = kinds[parent]
    if isinstance(kind, Float):
        return f"expected a parent of type int, ordered, choice or fixed, found {parent!r} of type float"
    if not allowed:
        return "expected at least one value, found an empty list"
    # something fixed may well exclude a child: that is how a profile switches a module off
    if not isinstance(kind, Fixed) and all(kind.objection(v) is not None for v in allowed):
        found = shown(allowed[0]) if len(allowed) == 1 else shown(allowed)
        return f"expected a value of {parent} ({kind.span()}), found {found}; {name} would never exist"
    return None


def _parents_first(kinds: Mapping[str, Kind]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names with parents before children, otherwise in file order, and the first cycle, if any."""
    placed: dict[str, None] = {}
    waiting = dict.fromkeys(kinds)
    while waiting:
        ready = next((n for n in waiting if not any(p in waiting for p in kinds[n].conditions)), None)
        if ready is None:
            return tuple(placed), _cycle(kinds, next(iter(waiting)), waiting)
        placed[ready] = waiting.pop(ready)
    return tuple(placed), ()


def _cycle(kinds: Mapping[str, Kind], start: str, waiting: Mapping[str, Any]) -> tuple[str, ...]:
    walk = [start]
    while True:
        parent = next(p for p in kinds[walk[-1]].conditions if p in waiting)
        if parent in walk:
            return tuple(walk[walk.index(parent) :])
        walk.append(parent)


def _told(kind: Kind) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Return what each parent of a parameter must be, as `identity` tells values apart."""
    return tuple((parent, tuple(map(identity, allowed))) for parent, allowed in kind.conditions.items())


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _reachable(kind: Kind) -> tuple[Value, ...]:
    if isinstance(kind, Float) and kind.size is None:
        return kind.low, kind.high
    size = kind.size or 0
    ranks = range(size) if size <= MOST_LISTED else (0, size - 1)
    return tuple(kind.value_at(r) for r in ranks)


def _count(space: Space, config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """Count configs by walking over the values of parents only; the rest multiply."""
    parents = {parent for kind in space.parameters.values() for parent in kind.conditions}
    factor = 1
    for position, name in enumerate(names):
        if not space.is_active(name, config):
            continue
        kind = space.parameters[name]
        if kind.size is None:
            return None
        if name not in parents:
            factor *= kind.size
            continue
        total = 0
        for representative, weight in _classes(space, name):
            below = _count(space, {**config, name: representative}, names[position + 1 :])
            if below is None:
                return None
            total += weight * below
        return factor * total
    return factor


def _classes(space: Space, parent: str) -> list[tuple[Value, int]]:
    """Return the values of a parent that conditions tell apart, each with the number of values that it stands for."""
    kind = space.parameters[parent]
    named = [v for k in space.parameters.values() for v in k.conditions.get(parent, ()) if kind.objection(v) is None]
    told = {identity(v): v for v in named}
    rest = (kind.size or 0) - len(told)
    other = next((v for v in _iterate(kind) if identity(v) not in told), None) if rest else None
    return [(v, 1) for v in told.values()] + ([(other, rest)] if rest else [])


def _iterate(kind: Kind) -> Iterator[Value]:
    return (kind.value_at(rank) for rank in itertools.count())
