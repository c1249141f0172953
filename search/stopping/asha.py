"""Asynchronous successive halving over completed folds (Li et al. 2020, MLSys, algorithm 2, in its stopping form)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from search.objective import Objective
from search.space import Space
from search.trial import Decision, Rung, Trial


class Asha:
    """At 1, eta, eta^2, ... times `min_folds` complete folds only the best 1/eta of those that came so far go on.

    The resource is the number of complete folds. A trial is compared with every other trial that has the same folds,
    on these folds alone: a hard fold then weighs on all of them alike (decision 4). Nobody waits for anybody: the
    first trial at a milestone always goes on, and ties go on.

    Args:
        objective: Metric and direction.
        min_folds: Folds of the first milestone, at least 1 (SEARCH-8).
        eta: One in eta goes on, at least 2 (SEARCH-8: 3).

    Raises:
        ValueError: `min_folds` or `eta` is too small.
    """

    def __init__(self, objective: Objective, *, min_folds: int = 1, eta: int = 3) -> None:
        if min_folds < 1 or eta < 2:
            raise ValueError(f"expected min_folds >= 1 and eta >= 2, found min_folds={min_folds} and eta={eta}")
        self.objective = objective
        self.min_folds = min_folds
        self.eta = eta
        self._losses: dict[tuple[int, ...], list[float]] = {}
        self._n_heard: dict[str, int] = {}

    def tell(self, trial: Trial) -> None:
        """Sort the trial in at every milestone that it has newly reached; its folds never change afterwards."""
        folds = tuple(trial.by_fold())
        for n in range(self._n_heard.get(trial.trial_id, 0) + 1, len(folds) + 1):
            loss = self.objective.loss_on(folds[:n], trial) if self.is_milestone(n) else None
            if loss is not None:
                insort(self._losses.setdefault(folds[:n], []), loss)
        self._n_heard[trial.trial_id] = len(folds)

    def decide(self, trial: Trial) -> Decision:
        folds = tuple(trial.by_fold())
        if trial.observations[-1].share < 1.0 or not self.is_milestone(len(folds)):
            return Decision.CONTINUE
        own = self.objective.loss_on(folds, trial)
        if own is None:
            return Decision.CONTINUE
        rivals = self._losses.get(folds, [])
        n_kept = max(1, (len(rivals) + 1) // self.eta)
        return Decision.CONTINUE if bisect_left(rivals, own) < n_kept else Decision.STOP

    def is_milestone(self, n_folds: int) -> bool:
        """Say whether this number of complete folds is `min_folds` times a power of eta."""
        milestone = self.min_folds
        while milestone < n_folds:
            milestone *= self.eta
        return milestone == n_folds


def asha(
    *, space: Space, objectives: Sequence[Objective], ladder: Sequence[Rung], min_folds: int = 1, eta: int = 3
) -> Asha:
    """Make the rule for the first objective."""
    return Asha(objectives[0], min_folds=min_folds, eta=eta)
