"""The Pareto set of a search: complete trials that no other is better than in every respect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.objective import Constraint, Objective
from search.stopping.dominated import dominates
from search.trial import Trial, TrialState


def pareto_set(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the complete trials that no other complete one dominates, best first objective first (SEARCH-19).

    Trials of equal values are all in it. What breaks a constraint is not complete, so it is never in it.
    """
    points = []
    for trial in trials:
        losses = [objective.loss(trial) for objective in objectives]
        if trial.state is TrialState.COMPLETE and None not in losses:
            points.append((tuple(loss for loss in losses if loss is not None), trial.number, trial))
    points.sort(key=lambda entry: entry[:2])
    front: list[tuple[tuple[float, ...], int, Trial]] = []
    for entry in points:  # what dominates a point sorts before it, and then something in the front does too
        if not any(dominates(other[0], entry[0]) for other in front):
            front.append(entry)
    return [trial for _, _, trial in front]


def pareto_rows(
    trials: Iterable[Trial], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> dict[str, Any]:
    """Return the Pareto set as JSON values: objectives, constraints, and each trial's config with means and errors."""
    rows = []
    for trial in pareto_set(trials, objectives):
        estimates = {o.metric: trial.estimate(o.metric) for o in objectives}
        rows.append(
            {
                "trial_id": trial.trial_id,
                "values": {m: e.mean for m, e in estimates.items() if e is not None},
                "errors": {m: e.error for m, e in estimates.items() if e is not None},
                "config": dict(trial.config),
            }
        )
    return {
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in objectives],
        "constraints": [{"metric": c.metric, c.bound: c.limit} for c in constraints],
        "trials": rows,
    }
