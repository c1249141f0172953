"""A trial as the search sees it: a config, a state, a lineage and its observations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Config = Mapping[str, Any]


class TrialState(StrEnum):
    """Each way in which a trial can be or end; they are told apart everywhere (decision 3)."""

    RUNNING = "running"
    COMPLETE = "complete"
    """Every rung of the ladder was reported."""
    PAUSED = "paused"
    """The stopping rule set it aside for something more promising; it may be taken up again where it is."""
    STOPPED = "stopped"
    """The stopping rule ended it; its observations are partial."""
    FAILED = "failed"
    """Its code raised; the reason holds the error."""
    DIVERGED = "diverged"
    """Training left the finite numbers."""
    OUT_OF_MEMORY = "out_of_memory"
    """It did not fit: a constraint, not a bad loss."""
    INFEASIBLE = "infeasible"
    """Its config breaks a rule of the family and was never trained, or its model breaks a constraint of the search."""
    LOST = "lost"
    """Its worker died more often than allowed."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be heard of it."""
        return self not in (TrialState.RUNNING, TrialState.PAUSED)

    @property
    def has_value(self) -> bool:
        """Whether no worker has it and its observations may be compared: complete, or ended or set aside by a rule."""
        return self in (TrialState.COMPLETE, TrialState.STOPPED, TrialState.PAUSED)


class Decision(StrEnum):
    """What a stopping rule says about a trial at a rung."""

    CONTINUE = "continue"
    PAUSE = "pause"
    """Leave the worker to something more promising; the trial may go on later."""
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A point of the ladder: `share` of the epochs of `fold` is trained. Index counts from 0."""

    index: int
    fold: int
    share: float


def ladder(n_folds: int, rungs_per_fold: int = 1) -> tuple[Rung, ...]:
    """Return the rungs of `n_folds` folds, each visited to the end before the next begins.

    Raises:
        ValueError: Either number is below 1.
    """
    if n_folds < 1 or rungs_per_fold < 1:
        raise ValueError(
            f"ladder: expected at least one fold and one rung a fold, found {n_folds} and {rungs_per_fold}"
        )
    points = [(f, (k + 1) / rungs_per_fold) for f in range(n_folds) for k in range(rungs_per_fold)]
    return tuple(Rung(index=i, fold=f, share=s) for i, (f, s) in enumerate(points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a trial reported at a rung about the fold it is in.

    Attributes:
        rung: Index of the rung.
        fold: Fold number.
        share: Share of the fold's epochs trained; 1 means that the fold is complete.
        metrics: Measures on this fold's scored rows. Finite, or the trial is told as diverged.
        n_scored: Number of scored timestamps.
        seconds: Wall seconds of this rung.
        blocks: Means of the reference loss `val_loss` over equal stretches of the scored timestamps, in time order.
            All trials are scored on the same timestamps (SEARCH-14), so blocks of two trials are pairs. Empty where
            the trial does not say.
        reused_from: Run and trial whose result of this fold was taken over; empty where the fold was trained.
    """

    rung: int
    fold: int
    share: float
    metrics: Mapping[str, float]
    n_scored: int
    seconds: float
    blocks: tuple[float, ...] = ()
    reused_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over folds with its standard error; `error` is None below two folds."""

    mean: float
    error: float | None
    n_folds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial. A value: the study replaces it when something happens.

    Attributes:
        number: Order of proposal, from 0.
        trial_id: `t0000` and so on; names its files.
        config: Active parameters and fixed values, complete.
        origin: Which part of the optimizer proposed it: `enqueued`, `random`, `tpe`, `child`, ...
        generation: 0 for enqueued trials; what an optimizer proposes counts populations from 1.
        parents: Trial ids of its parents.
        seed: Seed of its training.
        state: See `TrialState`.
        observations: In order of rungs.
        reason: Why it ended, where it did not complete.
        note: What the optimizer wants back on replay; JSON values.
        attempts: How often it was started.
        inherit: Empty, or whose weights its folds begin with: `trial_id` and `folds`, pairs (fold, fold of that trial).
        excesses: Metric -> by how much of its limit the trial breaks a constraint, zero or less where it keeps to it.
    """

    number: int
    trial_id: str
    config: Config
    origin: str
    generation: int
    parents: tuple[str, ...]
    seed: int
    state: TrialState = TrialState.RUNNING
    observations: tuple[Observation, ...] = ()
    reason: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    inherit: Mapping[str, Any] = field(default_factory=dict)
    excesses: Mapping[str, float] = field(default_factory=dict)

    def observed(self, observation: Observation) -> Trial:
        return replace(self, observations=(*self.observations, observation))

    @property
    def excess(self) -> float | None:
        """All that is broken of its constraints together, else how near the nearest limit is, as a negative number."""
        broken = [excess for excess in self.excesses.values() if excess > 0]
        return sum(broken) if broken else max(self.excesses.values(), default=None)

    @property
    def n_folds(self) -> int:
        """Number of complete folds."""
        return len(self.by_fold())

    def by_fold(self) -> dict[int, Observation]:
        """Return the observation of each complete fold."""
        return {o.fold: o for o in self.observations if o.share >= 1.0}

    def latest_by_fold(self) -> dict[int, Observation]:
        """Return the newest observation of each visited fold, complete or not."""
        return {o.fold: o for o in self.observations}

    def estimate(self, metric: str) -> Estimate | None:
        """Return mean and standard error of a metric over folds, weighted by scored timestamps (ANALYSIS-1).

        Uses complete folds; where there is none, the partial first one. None where no fold has the metric.
        The standard error is that of a weighted mean; folds are treated as independent here, and the analysis
        layer, which has the timestamps, does better.
        """
        folds = self.by_fold() or self.latest_by_fold()
        pairs = [(o.metrics[metric], float(o.n_scored)) for o in folds.values() if metric in o.metrics]
        if not pairs:
            return None
        total = sum(w for _, w in pairs)
        mean = sum(v * w for v, w in pairs) / total
        if len(pairs) < 2:
            return Estimate(mean=mean, error=None, n_folds=1)
        n = len(pairs)
        spread = sum((w / total) ** 2 * (v - mean) ** 2 for v, w in pairs)
        return Estimate(mean=mean, error=math.sqrt(spread * n / (n - 1)), n_folds=n)
