"""What a search minimises and what it must keep to: the one place where a sign is turned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.trial import Observation, Trial


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric of the observations and the direction in which it is better.

    Attributes:
        metric: Key of `Observation.metrics`.
        direction: `min` or `max`; everything inside the search is minimised.
    """

    metric: str = "val_loss"
    direction: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise ValueError(f"objective {self.metric}: direction must be min or max, found {self.direction!r}")

    def loss(self, trial: Trial) -> float | None:
        """Return the trial's estimate over its folds, smaller is better; None where it is unknown or not finite."""
        estimate = trial.estimate(self.metric)
        return None if estimate is None or not math.isfinite(estimate.mean) else self._signed(estimate.mean)

    def loss_on(self, folds: Sequence[int], trial: Trial) -> float | None:
        """Return the estimate over exactly these complete folds, smaller is better; None where one is missing.

        Weighted by scored timestamps as in `Trial.estimate` (ANALYSIS-1), so that two trials are compared on pairs.
        """
        complete = trial.by_fold()
        if any(fold not in complete or self.metric not in complete[fold].metrics for fold in folds):
            return None
        pairs = [(complete[fold].metrics[self.metric], complete[fold].n_scored) for fold in folds]
        mean = sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)
        return self._signed(mean) if math.isfinite(mean) else None

    def is_broken_by(self, observation: Observation) -> bool:
        """Say whether the observation holds a value of this metric that is not finite."""
        value = observation.metrics.get(self.metric)
        return value is not None and not math.isfinite(value)

    def _signed(self, value: float) -> float:
        return value if self.direction == "min" else -value


OF_THE_MODEL = frozenset({"n_parameters", "memory_bytes", "latency_ms"})
"""Metrics that say what a model is, not how well it forecasts: one complete fold tells them."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a metric. A config that breaks it is infeasible, not bad: it teaches a constraint, not a loss.

    Attributes:
        metric: Key of `Observation.metrics`.
        bound: `max`: the metric must not exceed `limit`; `min`: it must not fall below.
        limit: The bound itself, finite.
    """

    metric: str
    bound: Literal["min", "max"]
    limit: float

    def __post_init__(self) -> None:
        if self.bound not in ("min", "max") or not math.isfinite(self.limit):
            raise ValueError(
                f"constraint {self.metric}: expected min or max with a finite limit, found {self.bound} {self.limit}"
            )

    def excess(self, value: float) -> float:
        """Return by how much of the limit a value breaks it; zero or less: it keeps to it."""
        over = value - self.limit if self.bound == "max" else self.limit - value
        return over / (abs(self.limit) or 1.0)

    def excess_of(self, trial: Trial) -> float | None:
        """Return the excess of the trial's estimate over its folds, or None where it says nothing of the metric."""
        estimate = trial.estimate(self.metric)
        return None if estimate is None or not math.isfinite(estimate.mean) else self.excess(estimate.mean)

    def objection(self, value: float) -> str | None:
        """Say what is wrong with a value, in one line; None where it keeps to the bound."""
        if self.excess(value) <= 0:
            return None
        word = "at most" if self.bound == "max" else "at least"
        return f"{self.metric}: expected {word} {self.limit:g}, found {value:g}"

    def is_judged(self, trial: Trial, *, is_last: bool) -> bool:
        """Say whether the bound may be held against a trial now.

        What a model is (`OF_THE_MODEL`) is known after one complete fold; what it scores, when all folds are seen.
        """
        return is_last or (self.metric in OF_THE_MODEL and bool(trial.by_fold()))
