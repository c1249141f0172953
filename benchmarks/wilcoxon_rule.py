"""The rule of Optuna's WilcoxonPruner as a stopping rule of ours, to compare with: `benchmarks.wilcoxon_rule:wilcoxon`.

Written from its documentation (optuna.pruners.WilcoxonPruner): after every fold beyond `n_startup`, a signed-rank test
against the best complete trial on the folds of both; dropped where worse at `p_threshold`, unless its mean is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import wilcoxon as signed_rank

from search.objective import Objective
from search.space import Space
from search.trial import Decision, Rung, Trial, TrialState


class Wilcoxon:
    """Signed-rank test against the best complete trial, at the same level at every look."""

    def __init__(self, objective: Objective, p_threshold: float, n_startup: int) -> None:
        self.objective = objective
        self.p_threshold = p_threshold
        self.n_startup = n_startup
        self._best: tuple[float, Trial] | None = None

    def tell(self, trial: Trial) -> None:
        loss = self.objective.loss(trial) if trial.state is TrialState.COMPLETE else None
        if loss is not None and (self._best is None or loss < self._best[0]):
            self._best = (loss, trial)

    def decide(self, trial: Trial) -> Decision:
        own = trial.by_fold()
        if self._best is None or len(own) <= self.n_startup or trial.observations[-1].share < 1.0:
            return Decision.CONTINUE
        theirs = self._best[1].by_fold()
        metric = self.objective.metric
        difference = np.array([own[f].metrics[metric] - theirs[f].metrics[metric] for f in own])
        if self.objective.direction == "max":
            difference = -difference
        if difference.mean() <= 0:
            return Decision.CONTINUE
        p = float(signed_rank(difference, alternative="greater", zero_method="zsplit").pvalue)
        return Decision.STOP if p < self.p_threshold else Decision.CONTINUE


def wilcoxon(
    *,
    space: Space,
    objectives: Sequence[Objective],
    ladder: Sequence[Rung],
    p_threshold: float = 0.1,
    n_startup: int = 2,
) -> Wilcoxon:
    """Make the rule with Optuna's defaults."""
    return Wilcoxon(objectives[0], p_threshold, n_startup)
