"""Fold racing: a trial leaves when it is worse than a leader on equal folds, at an error rate for the whole search.

The truly best trial of a search is dropped with a chance of at most `alpha`. It can only be dropped where it looks
worse than another trial although it is not, at one of its looks. So `alpha` is spent over the looks of a trial (the
power family of Kim & DeMets 1987, Biometrika 74), and each look shares its part among its comparisons (Bonferroni).
Leaders are those whom chance has helped: they are chosen on the folds that the test does not use, the later ones of
complete trials. While no trial is complete they are chosen on the very folds of the test, and the look then pays for
all trials that could have been chosen.

The last folds are for finalists: no decision looks at them, so whoever reaches them is judged on untouched folds.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

import numpy as np

from search.objective import Objective
from search.space import Space
from search.stopping.paired_test import Floats, VariancePrior, between_folds, fit_prior, p_worse, within_folds
from search.trial import Decision, Rung, Trial

FEWEST_PAIRS = 8
"""Pairs of trials before their variances say something about another pair."""
NEWEST_PAIRS = 256
"""Pairs that are looked at, the newest ones: a bound on the cost of a decision."""


class FoldRacing:
    """Paired tests against the leaders on equal folds.

    A trial is dropped where both tests of `paired_test` say that it is worse than a leader: the spread between folds,
    and, where trials report block means of the loss, the dependence within folds. Only whole folds are looked at.

    Args:
        objective: Metric and direction.
        n_folds: Folds of a complete trial.
        alpha: Largest chance that the search drops its truly best trial, in (0, 1).
        min_folds: Folds before the first look, at least 1.
        final_folds: Folds at the end that nobody is dropped in, below `n_folds` - `min_folds` + 1.
        leaders: Trials that a trial is compared with; at least 1.
        margin: A trial is of use only where it is better than a leader by this many standard errors of a difference
            over the whole ladder; the chance of dropping such a trial is what alpha then bounds. Zero or more.
        spending: Power of the spent share of alpha over looks: 1 spends evenly, 3 keeps most for the late looks
            (as O'Brien and Fleming do); above 0.

    Raises:
        ValueError: A number is outside its range.
    """

    def __init__(
        self,
        objective: Objective,
        n_folds: int,
        *,
        alpha: float = 0.05,
        min_folds: int = 1,
        final_folds: int = 1,
        leaders: int = 2,
        margin: float = 0.0,
        spending: float = 1.0,
    ) -> None:
        if not 0 < alpha < 1 or min(min_folds, final_folds, leaders) < 1 or margin < 0 or spending <= 0:
            raise ValueError(
                "expected alpha in (0, 1), min_folds, final_folds and leaders of 1 or more, margin of 0 or more and "
                f"spending above 0, found {alpha}, {min_folds}, {final_folds}, {leaders}, {margin} and {spending}"
            )
        self.objective = objective
        self.n_folds = n_folds
        self.alpha = alpha
        self.leaders = leaders
        self.margin = margin
        self.looks = tuple(range(min_folds, n_folds - final_folds + 1))
        """Numbers of complete folds at which a trial may be dropped; none where there are too few folds."""
        self.spending = spending
        self._field = _Field(objective, n_folds)
        self._pairs = _Pairs()

    def tell(self, trial: Trial) -> None:
        series = self._field.take_in(trial)
        if series is not None and series.n_folds >= 2:
            self._pairs.take_in(trial.number, series.losses)

    def decide(self, trial: Trial) -> Decision:
        own = _Series.of(trial, self.objective)
        if own is None or trial.observations[-1].share < 1.0 or own.n_folds not in self.looks:
            return Decision.CONTINUE
        n_compared, leaders = self._field.leaders(own, trial.number, self.leaders)
        if not leaders:
            return Decision.CONTINUE
        level = self.level(own.n_folds) / n_compared
        return Decision.STOP if self._is_worse(own, leaders, level) else Decision.CONTINUE

    def level(self, n_folds: int) -> float:
        """Return the part of alpha that the look after so many folds may spend."""
        look, n_looks = self.looks.index(n_folds) + 1, len(self.looks)
        spent, before = (float((k / n_looks) ** self.spending) for k in (look, look - 1))
        return self.alpha * (spent - before)

    def _is_worse(self, own: _Series, leaders: Sequence[_Series], level: float) -> bool:
        """Say whether both tests find the trial worse than one of the leaders."""
        n = own.n_folds
        weights = np.asarray(own.n_scored, dtype=float) / sum(own.n_scored)
        difference = np.stack([own.losses - leader.losses[:n] for leader in leaders])
        between = between_folds(difference, weights, self._pairs.prior())
        if between is None:
            return False
        mean, variance, dof = between
        mean = mean + self.margin * np.sqrt(variance * n / self.n_folds)
        is_worse = p_worse(mean, variance, dof) <= level
        theirs = [leader.blocks for leader in leaders if leader.blocks is not None]
        if is_worse.any() and own.blocks is not None and len(theirs) == len(leaders):
            blocks = np.stack([own.blocks - other[:n] for other in theirs])
            is_worse &= p_worse(mean, *within_folds(blocks, weights, own.n_scored)) <= level
        return bool(is_worse.any())


class _Series:
    """Losses of a trial over its complete folds, in the order of the ladder; smaller is better."""

    __slots__ = ("blocks", "losses", "n_scored")

    def __init__(self, losses: Floats, n_scored: tuple[int, ...], blocks: Floats | None) -> None:
        self.losses = losses
        self.n_scored = n_scored
        self.blocks = blocks

    @classmethod
    def of(cls, trial: Trial, objective: Objective) -> _Series | None:
        """Return the series; None where a fold has no value. Blocks are of the loss: other objectives have none."""
        folds = list(trial.by_fold().values())
        values = [o.metrics.get(objective.metric) for o in folds]
        if not folds or any(value is None for value in values):
            return None
        sign = 1.0 if objective.direction == "min" else -1.0
        length = len(folds[0].blocks)
        is_whole = objective.metric == "val_loss" and length >= 2 and all(len(o.blocks) == length for o in folds)
        blocks = np.array([o.blocks for o in folds]) if is_whole else None
        return cls(sign * np.array(values, dtype=float), tuple(o.n_scored for o in folds), blocks)

    @property
    def n_folds(self) -> int:
        return len(self.losses)

    def mean(self, start: int, end: int) -> float:
        """Return the mean over some folds, weighted by scored timestamps (ANALYSIS-1)."""
        return float(np.average(self.losses[start:end], weights=self.n_scored[start:end]))


class _Field:
    """All trials that one may be compared with: sorted by the folds before a look, complete ones by those after too."""

    def __init__(self, objective: Objective, n_folds: int) -> None:
        self._objective = objective
        self._n_folds = n_folds
        self._series: dict[int, _Series] = {}
        self._before: list[list[tuple[float, int]]] = [[] for _ in range(n_folds + 1)]
        self._after: list[list[tuple[float, int]]] = [[] for _ in range(n_folds)]

    def take_in(self, trial: Trial) -> _Series | None:
        """Sort a trial in; return its series where it has more folds than before.

        A trial that failed or diverged leads nobody: whatever it lost before, its config is of no use.
        """
        before = self._series.get(trial.number)
        if trial.state.is_finished and not trial.state.has_value:
            self._remove(trial.number)
            return None
        if trial.n_folds == (0 if before is None else before.n_folds):
            return None
        series = _Series.of(trial, self._objective)
        if series is None:
            return None
        for n in range(1 if before is None else before.n_folds + 1, series.n_folds + 1):
            insort(self._before[n], (series.mean(0, n), trial.number))
        if series.n_folds == self._n_folds:
            for n in range(1, self._n_folds):
                insort(self._after[n], (series.mean(n, self._n_folds), trial.number))
        self._series[trial.number] = series
        return series

    def leaders(self, own: _Series, number: int, most: int) -> tuple[int, list[_Series]]:
        """Return the trials to compare with, and how many comparisons that is worth: who was chosen on the folds of
        the test could have been any of those that have them.
        """
        n = own.n_folds
        ranked = self._after[n] or self._before[n]
        chosen = [k for _, k in ranked[: most + 1] if k != number][:most]
        n_compared = len(chosen) if self._after[n] else len(ranked)
        return n_compared, [s for s in map(self._series.__getitem__, chosen) if s.n_scored[:n] == own.n_scored]

    def _remove(self, number: int) -> None:
        series = self._series.pop(number, None)
        if series is not None:
            for n in range(1, series.n_folds + 1):
                self._before[n].remove((series.mean(0, n), number))


class _Pairs:
    """Variances of paired fold differences, from trials joined two by two as they reach their second fold.

    Each trial is in one pair, so that no single trial speaks through many of them.
    """

    def __init__(self) -> None:
        self._partner: dict[int, int] = {}
        self._losses: dict[int, Floats] = {}
        self._single: int | None = None
        self._variances: dict[int, tuple[float, float]] = {}
        self._prior: VariancePrior | None = None

    def take_in(self, number: int, losses: Floats) -> None:
        """Take in a trial with two folds or more."""
        self._losses[number] = losses
        if number not in self._partner and number != self._single:
            if self._single is None:
                self._single = number
                return
            self._partner[number], self._partner[self._single] = self._single, number
            self._single = None
        if number not in self._partner:
            return
        pair = sorted((number, self._partner[number]))
        first, second = (self._losses[k] for k in pair)
        n = min(len(first), len(second))
        variance = float(np.var(first[:n] - second[:n], ddof=1))
        if variance > 0:
            self._variances[pair[1]] = (variance, n - 1.0)
            while len(self._variances) > NEWEST_PAIRS:
                del self._variances[next(iter(self._variances))]
            self._prior = None

    def prior(self) -> VariancePrior | None:
        """Return what the pairs say; None where they are too few."""
        if self._prior is None and len(self._variances) >= FEWEST_PAIRS:
            self._prior = fit_prior(*zip(*self._variances.values(), strict=True))
        return self._prior


def fold_racing(
    *,
    space: Space,
    objectives: Sequence[Objective],
    ladder: Sequence[Rung],
    alpha: float = 0.05,
    min_folds: int = 1,
    final_folds: int = 1,
    leaders: int = 2,
    margin: float = 0.0,
    spending: float = 1.0,
) -> FoldRacing:
    """Make the rule for the first objective."""
    return FoldRacing(
        objectives[0],
        ladder[-1].fold + 1,
        alpha=alpha,
        min_folds=min_folds,
        final_folds=final_folds,
        leaders=leaders,
        margin=margin,
        spending=spending,
    )
