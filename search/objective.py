"""What a search minimises: the one place where a sign is turned."""

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
