"""What a study is made of, as arguments and as the JSON in the header of its journal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.errors import JournalError, SpaceError
from search.history import observation_body, observation_from
from search.journal import to_json
from search.objective import Constraint, Objective
from search.parameters import KINDS
from search.space import Space
from search.trial import Rung, Trial, TrialState

Named = str | Mapping[str, Any]
"""An optimizer or a stopping rule: its name, or a mapping with `name` and its settings."""

EXTENDABLE = ("n_trials", "max_infeasible", "limits")
"""What may change when a study is resumed: they say how long it goes on, not what it does."""
IDENTITY = ("data_snapshot", "family", "folds", "data")
"""Keys of the caller's header that may not change; all others (commit, versions) are told only."""


@dataclass(frozen=True, kw_only=True)
class Charter:
    """The arguments of a study that its journal keeps.

    Raises:
        SpaceError: An enqueued config is not a point of the space.
        ValueError: A number is too small, or there is no rung or objective.

    Attributes:
        space: What may vary.
        ladder: Rungs of a complete trial, in order.
        objectives: At least one; the first decides about stopping and about the best.
        constraints: What trials must keep to, one bound for a metric.
        optimizer: Name, or mapping with `name` and settings.
        stopping: Name, or mapping with `name` and settings.
        seed: Zero or more; everything random follows from it.
        n_trials: Trials to start; those that are infeasible from the outset do not count.
        enqueue: Configs that come first; defaults fill them up.
        population: Trials per generation (SEARCH-1).
        max_infeasible: Infeasible proposals after which the study gives up.
        limits: Settings of `search.stopping.whole_search.WholeSearch`: when the search is over before.
        synchronous: A generation begins when the one before is over, and the optimizer hears results by number: then
            proposals do not depend on the number of workers or the order of results. Off, no worker ever waits.
        unlock: Settings of `search.unlocking.Unlocking`; empty: nothing is locked.
        defaults: What the family takes a parameter for that a config does not name. A training seed follows from what
            differs from it, so that a config keeps its seed, and its known results, in a space with more parameters.
        prior: Trials of an earlier search that the optimizer shall hear first (`search.warm_start`).
    """

    space: Space
    ladder: Sequence[Rung]
    n_trials: int
    objectives: Sequence[Objective] = (Objective(),)
    constraints: Sequence[Constraint] = ()
    optimizer: Named = "tpe"
    stopping: Named = "asha"
    seed: int = 0
    enqueue: Sequence[Mapping[str, Any]] = ()
    population: int = 16
    max_infeasible: int = 1000
    limits: Mapping[str, Any] = field(default_factory=dict)
    synchronous: bool = False
    unlock: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    prior: Sequence[Trial] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "enqueue", check_enqueued(self.space, self.enqueue))
        if not self.objectives or not self.ladder:
            raise ValueError("study: expected at least one objective and one rung, found none")
        if min(self.n_trials, self.population, self.max_infeasible) < 1 or self.seed < 0:
            raise ValueError(
                "study: expected n_trials, population and max_infeasible of 1 or more and a seed of 0 or more, "
                f"found {self.n_trials}, {self.population}, {self.max_infeasible} and {self.seed}"
            )

    def to_header(self) -> dict[str, Any]:
        """Return the charter as JSON values; `charter_from` reads them back."""
        kinds = self.space.parameters.items()
        return {
            "space": {
                "fingerprint": self.space.fingerprint(),
                "parameters": {name: kind.model_dump(mode="json") for name, kind in kinds},
            },
            "ladder": [[rung.fold, rung.share] for rung in self.ladder],
            "objectives": [[objective.metric, objective.direction] for objective in self.objectives],
            "constraints": [[c.metric, c.bound, c.limit] for c in self.constraints],
            "optimizer": _spelled(self.optimizer),
            "stopping": _spelled(self.stopping),
            "seed": self.seed,
            "n_trials": self.n_trials,
            "enqueue": [dict(config) for config in self.enqueue],
            "population": self.population,
            "max_infeasible": self.max_infeasible,
            "limits": dict(self.limits),
            "synchronous": self.synchronous,
            **({"unlock": dict(self.unlock)} if self.unlock else {}),
            "defaults": dict(self.defaults),
            "prior": [prior_body(trial) for trial in self.prior],
        }


def charter_from(body: Mapping[str, Any]) -> Charter:
    """Read what `Charter.to_header` wrote.

    Raises:
        JournalError: The header is incomplete, or its space is not the one that its fingerprint names.
    """
    try:
        parameters = body["space"]["parameters"]
        kinds = {n: KINDS[k.get("type", "fixed")].model_validate_json(json.dumps(k)) for n, k in parameters.items()}
        rungs = tuple(Rung(index=i, fold=int(f), share=float(s)) for i, (f, s) in enumerate(body["ladder"]))
        objectives = tuple(Objective(metric, direction) for metric, direction in body["objectives"])
        rest = {key: body[key] for key in ("optimizer", "stopping", "seed", "population", "n_trials", "max_infeasible")}
        charter = Charter(
            space=Space(kinds),
            ladder=rungs,
            objectives=objectives,
            enqueue=tuple(body["enqueue"]),
            limits=body.get("limits", {}),
            synchronous=body.get("synchronous", False),
            unlock=body.get("unlock", {}),
            constraints=tuple(Constraint(*told) for told in body.get("constraints", ())),
            defaults=body.get("defaults", {}),
            prior=tuple(prior_from(told) for told in body.get("prior", ())),
            **rest,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"header of the journal: expected a charter, found something else: {error!r}") from error
    if charter.space.fingerprint() != body["space"]["fingerprint"]:
        raise JournalError("header of the journal: its space does not have its fingerprint; the header was changed")
    return charter


def prior_body(trial: Trial) -> dict[str, Any]:
    """Write a trial of an earlier search as JSON values: all that an optimizer may learn from it."""
    return {
        "number": trial.number,
        "trial_id": trial.trial_id,
        "config": dict(trial.config),
        "origin": trial.origin,
        "state": trial.state.value,
        "observations": [observation_body(observation) for observation in trial.observations],
    }


def prior_from(body: Mapping[str, Any]) -> Trial:
    """Read what `prior_body` wrote."""
    return Trial(
        number=body["number"],
        trial_id=body["trial_id"],
        config=body["config"],
        origin=body["origin"],
        generation=0,
        parents=(),
        seed=0,
        state=TrialState(body["state"]),
        observations=tuple(observation_from(told) for told in body["observations"]),
    )


def named(spelled: Named) -> tuple[str, dict[str, Any]]:
    """Split a name with its settings.

    Raises:
        SpaceError: The mapping has no name.
    """
    if isinstance(spelled, str):
        return spelled, {}
    if "name" not in spelled:
        raise SpaceError(f"expected a name, found only settings {dict(spelled)}; add name")
    return str(spelled["name"]), {key: value for key, value in spelled.items() if key != "name"}


def refuse_differences(path: str, found: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to resume a study of another space, or of anything else that decides what its trials mean.

    Args:
        path: Of the journal.
        found: Header in the journal: `study` is a charter, other keys are the caller's.
        given: Header that a new journal would have.

    Raises:
        SpaceError: The space differs; names the parameters.
        JournalError: Something else differs; names all of it.
    """
    given = json.loads(to_json(given))
    was, now = found["study"], given["study"]
    before, after = was["space"]["parameters"], now["space"]["parameters"]
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if was["space"]["fingerprint"] != now["space"]["fingerprint"]:
        raise SpaceError(
            f"{path}: expected the space of this run, found another in {', '.join(changed) or 'its order'}; "
            "use the space of the run, or start a new one with --out"
        )
    keys = [key for key in {**was, **now} if key not in EXTENDABLE and was.get(key) != now.get(key)]
    keys += [key for key in IDENTITY if found.get(key) != given.get(key)]
    if keys:
        raise JournalError(
            f"{path}: expected the run's own {', '.join(keys)}, found different; "
            "give what the run was started with, or start a new one with --out"
        )


def check_enqueued(space: Space, configs: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the configs, completed by defaults.

    Raises:
        SpaceError: One of them is not a point of the space.
    """
    complete = []
    for position, config in enumerate(configs):
        try:
            complete.append(json.loads(to_json(space.complete(config))))
        except SpaceError as error:
            raise SpaceError(tuple(f"search.enqueue.{position}: {problem}" for problem in error.problems)) from error
    return tuple(complete)


def _spelled(given: Named) -> dict[str, Any]:
    name, settings = named(given)
    return {"name": name, **settings}
