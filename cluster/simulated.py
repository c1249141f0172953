"""A virtual cluster: the same study against a table of losses and seconds, hours of scheduling in milliseconds.

Workers are entries of a queue ordered by virtual time. What they report comes from a table, so a search can be repeated
with other rules, other optimizers or other numbers of workers in the same world. Imports no Ray and starts nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from search.space import Space
from search.study import Study
from search.trial import Config, Decision, Observation, Rung, Trial, TrialState

Failure = Callable[[Trial, Rung], tuple[TrialState, str] | None]


class Table(Protocol):
    """What every config loses at every rung, and how long it takes."""

    @property
    def space(self) -> Space:
        """Space whose points the table knows."""
        ...

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """Rungs of a complete trial."""
        ...

    def report(self, config: Config, rung: Rung) -> Observation:
        """Return what a trial of this config reports at the rung; equal arguments give equal reports."""
        ...

    def true_loss(self, config: Config) -> float:
        """Return what the config is worth, for whoever judges the search; the search never sees it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One report of a simulated search.

    Attributes:
        time_s: Virtual seconds since the start.
        folds: Folds trained by all workers so far, in fold-epochs: shares of an incomplete fold count in part.
        trial_id: Who reported.
        rung: Index of the rung.
        decision: What the study said; None where the trial ended by a failure.
        best_id: Best complete trial after it.
    """

    time_s: float
    folds: float
    trial_id: str
    rung: int
    decision: Decision | None
    best_id: str | None


def simulate(
    study: Study, table: Table, *, n_workers: int, most_folds: float | None = None, failure: Failure | None = None
) -> tuple[Step, ...]:
    """Run a study on a virtual cluster until it is done, or its budget of folds is spent.

    Deterministic: reports that fall on the same instant come in the order in which their rungs began.

    Args:
        study: Fresh or resumed; unfinished trials go on where they were.
        table: What trials report.
        n_workers: Trials at a time.
        most_folds: Folds after whose training everything ends at once; None: the study's own end.
        failure: Says whether a trial ends badly at a rung instead of reporting, and how. None: nobody fails.

    Returns:
        Every report, in order of virtual time.

    Raises:
        ValueError: There is no worker, or the study has another ladder than the table.
    """
    if n_workers < 1:
        raise ValueError(f"n_workers: expected 1 or more, found {n_workers}")
    if tuple(study.charter.ladder) != tuple(table.ladder):
        raise ValueError("study: expected the ladder of the table, found another; create it with table.ladder")
    workers = _Workers(study, table, failure)
    workers.fill(n_workers)
    while workers.queue and (most_folds is None or workers.folds < most_folds):
        workers.advance()
        workers.fill(n_workers)
    return tuple(workers.steps)


class _Workers:
    """Trials in training, by the virtual time at which they report."""

    def __init__(self, study: Study, table: Table, failure: Failure | None) -> None:
        self._study = study
        self._table = table
        self._failure = failure
        self._n_begun = 0
        self._now = 0.0
        self.folds = 0.0
        self.steps: list[Step] = []
        self.queue: list[tuple[float, int, str, int, int, Observation]] = []

    def fill(self, n_workers: int) -> None:
        """Give every idle worker a trial, where the study has one."""
        while len(self.queue) < n_workers and (trial := self._study.next()) is not None:
            self._begin(trial, self._study.started(trial.trial_id), len(trial.observations))

    def advance(self) -> None:
        """Let time pass until the next report, and tell the study."""
        self._now, _, trial_id, attempt, rung, observation = heapq.heappop(self.queue)
        self.folds += _trained(self._table.ladder, rung)
        trial, decision = self._study.trials[trial_id], None
        ending = None if self._failure is None else self._failure(trial, self._table.ladder[rung])
        if ending is not None:
            self._study.finish(trial_id, *ending)
        else:
            decision = self._study.observe(trial_id, observation, attempt)
        best = self._study.best()
        self.steps.append(
            Step(
                time_s=self._now,
                folds=self.folds,
                trial_id=trial_id,
                rung=rung,
                decision=decision,
                best_id=None if best is None else best.trial_id,
            )
        )
        if decision is Decision.CONTINUE:
            self._begin(trial, attempt, rung + 1)

    def _begin(self, trial: Trial, attempt: int, rung: int) -> None:
        observation = self._table.report(trial.config, self._table.ladder[rung])
        self._n_begun += 1
        place = (self._now + observation.seconds, self._n_begun, trial.trial_id, attempt, rung, observation)
        heapq.heappush(self.queue, place)


def _trained(ladder: Sequence[Rung], rung: int) -> float:
    """Return the share of a fold that is trained on the way to a rung."""
    here, before = ladder[rung], ladder[rung - 1] if rung else None
    return here.share - (before.share if before is not None and before.fold == here.fold else 0.0)
