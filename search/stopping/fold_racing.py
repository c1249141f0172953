"""Fold racing: a trial leaves when it is worse than the leaders on equal folds, at an error rate for the whole search.

A trial that is better than the leaders by `margin` is dropped with a chance of at most `alpha`; with a margin of zero
that is the truly best trial of the search. It can only be dropped where it looks worse although it is not, at one of
its looks. So `alpha` is spent over the looks of one trial, never over
trials, and what its looks have in common is counted once (`search.stopping.spending`).

A trial is compared with the mean of several leaders: whoever is the best is better than their mean, and a mean of four
has little noise of its own. Leaders are those whom chance has helped: they are chosen on the folds that the test does
not use, the later ones of complete trials. While no trial is complete the leader is chosen on the very folds of the
test, and the look then pays for all trials that could have been chosen.

A search soon proposes trials that nothing can tell apart, and a test alone keeps all of them to the end. A margin, in
standard errors of a difference over all folds, says what is worth telling apart; there is none unless it is given.

The last folds are for finalists: no test looks at them, so whoever reaches them is judged on folds that dropped nobody.

What is left is done in the order in which it promises most, fold by fold (`search.stopping.promise`): a trial that is
surpassed is set aside, not dropped, and goes on where nothing better is left to do. So alpha is as it was, and what a
budget cuts off is what promised least. The idea of going on with old trials or beginning new ones by what either
promises is that of Swersky, Snoek & Adams (2014), "Freeze-thaw Bayesian optimization", arXiv:1406.3896.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

import numpy as np

from search.objective import Objective
from search.space import Space
from search.stopping.paired_test import Floats, VariancePrior, between_folds, fit_prior, p_worse, within_folds
from search.stopping.promise import Outlook, Promises
from search.stopping.spending import levels
from search.trial import Decision, Rung, Trial, TrialState

FEWEST_DOF = 6
"""Degrees of freedom of the spreads of other trials before they say something about another one."""
FOLDS_FIRST = 2
"""Folds that the first trials are seen on, from which all is learnt about the size of chance."""
NEWEST = 256
"""Trials whose spreads are looked at, the newest ones: a bound on the cost of a report."""


class FoldRacing:
    """Paired tests against the mean of the leaders on equal folds.

    Doubt is the spread of differences between folds, moderated by that of other trials, and no less than what the
    dependence within folds says, where trials report block means of the loss. Only whole folds are looked at: how a
    trial does after half of a fold's epochs says nothing certain about its end.

    Args:
        objective: Metric and direction.
        n_folds: Folds of a complete trial.
        alpha: Largest chance that the search drops its truly best trial, or, with a margin, one that is better than the
            leaders by the margin; in (0, 1).
        min_folds: Folds before the first look, at least 1.
        final_folds: Folds at the end that nobody is dropped in, below `n_folds` - `min_folds` + 1.
        leaders: Trials whose mean a trial is compared with; at least 1.
        margin: In standard errors of a difference over the whole ladder: what is no better than the leaders by so much
            is of no use. Zero or more.
        spending: Power of the spent share of alpha over looks: 1 spends evenly, 3 keeps most for the late looks
            (as O'Brien and Fleming do); above 0.
        best_first: Set trials aside for what promises more; else each goes on until it is dropped.
        least_gain: In standard errors of a complete trial's loss: when nothing new is proposed any more, trials that
            were set aside are taken up again only while the most promising of them is expected to improve on the best
            complete one by so much; the others stay set aside. Zero finishes all that no test has dropped.

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
        leaders: int = 4,
        margin: float = 0.0,
        spending: float = 1.0,
        best_first: bool = True,
        least_gain: float = 0.0,
    ) -> None:
        if not 0 < alpha < 1 or min(min_folds, final_folds, leaders) < 1 or spending <= 0:
            raise ValueError(
                "expected alpha in (0, 1), min_folds, final_folds and leaders of 1 or more and spending above 0, "
                f"found {alpha}, {min_folds}, {final_folds}, {leaders} and {spending}"
            )
        if min(margin, least_gain) < 0:
            raise ValueError(f"expected margin and least_gain of 0 or more, found {margin} and {least_gain}")
        self.objective = objective
        self.n_folds = n_folds
        self.alpha = alpha
        self.leaders = leaders
        self.margin = margin
        self.looks = tuple(range(min_folds, n_folds - final_folds + 1))
        """Numbers of complete folds at which a trial may be dropped; none where there are too few folds."""
        self.levels = dict(zip(self.looks, levels(alpha, self.looks, spending), strict=True))
        """Nominal level of the look after so many folds."""
        self._field = _Field(objective, n_folds)
        self._spreads = _Spreads()
        self.best_first = best_first
        self.least_gain = least_gain
        self._outlook = Outlook(n_folds)
        self._paused: dict[int, str] = {}

    def tell(self, trial: Trial) -> None:
        series = self._field.take_in(trial)
        if trial.state is TrialState.PAUSED:
            self._paused[trial.number] = trial.trial_id
        else:
            self._paused.pop(trial.number, None)
        if trial.state.is_finished and not trial.state.has_value:
            self._outlook.remove(trial.number)
        if series is not None:
            self._outlook.take_in(trial.number, series.losses)
            if series.n_folds >= 2:
                self._spreads.take_in(trial.number, series.losses)

    def decide(self, trial: Trial) -> Decision:
        own = _Series.of(trial, self.objective)
        if own is None or trial.observations[-1].share < 1.0:
            return Decision.CONTINUE
        if own.n_folds in self.looks:
            n_compared, leaders = self._field.leaders(own, trial.number, self.leaders)
            if leaders and self._is_worse(own, leaders, self.levels[own.n_folds] / n_compared):
                return Decision.STOP
        return Decision.PAUSE if self.best_first and self._is_surpassed(own, trial.number) else Decision.CONTINUE

    def resume(self, *, is_last: bool) -> str | None:
        """Return the paused trial that promises most, where that is more than a new one does or there is no new one."""
        if not self._paused:
            return None
        promises = self._outlook.promises()
        if promises is None:
            return next(iter(self._paused.values())) if is_last else None
        if is_last and self.least_gain > 0 and self._field.has_complete:
            gain = max(promises.gains.get(number, 0.0) for number in self._paused)
            if gain < self.least_gain:
                return None
        promise, number = self._most_promising(promises)
        return self._paused[number] if is_last or promise > promises.fresh else None

    def _is_surpassed(self, own: _Series, number: int) -> bool:
        """Say whether a new or a paused trial promises more; before that is known a few folds are enough."""
        promises = self._outlook.promises_with(number, own.losses)
        if promises is None:
            return own.n_folds >= FOLDS_FIRST
        return promises.of[number] < max(promises.fresh, self._most_promising(promises)[0])

    def _most_promising(self, promises: Promises) -> tuple[float, int]:
        """Return the largest promise of a paused trial and its number, the first of equals.

        Those that reported too long ago promise nothing: the oldest of them stands for all.
        """
        best = max(((promises.of[n], -n) for n in promises.of if n in self._paused), default=None)
        return (best[0], -best[1]) if best is not None else (0.0, next(iter(self._paused), -1))

    def _is_worse(self, own: _Series, leaders: Sequence[_Series], level: float) -> bool:
        """Say whether the trial is worse than the mean of the leaders, or no better by the margin.

        The spread between folds holds the noise within them; where their blocks say more of it, that counts: a fold may
        be wild.
        """
        n = own.n_folds
        weights = np.asarray(own.n_scored, dtype=float) / sum(own.n_scored)
        difference = own.losses - np.mean([leader.losses[:n] for leader in leaders], axis=0)
        between = between_folds(difference[None], weights, self._spreads.prior(len(leaders)))
        if between is None:
            return False
        mean, variance, dof = between
        mean = mean + self.margin * np.sqrt(variance * n / self.n_folds)
        theirs = [leader.blocks[:n] for leader in leaders if leader.blocks is not None]
        if own.blocks is not None and len(theirs) == len(leaders):
            blocks = own.blocks - np.mean(theirs, axis=0)
            variance = np.maximum(variance, within_folds(blocks[None], weights, own.n_scored)[0])
        return bool(p_worse(mean, variance, dof)[0] <= level)


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

    @property
    def has_complete(self) -> bool:
        """Whether a trial has a value of every fold."""
        return bool(self._before[self._n_folds])

    def leaders(self, own: _Series, number: int, most: int) -> tuple[int, list[_Series]]:
        """Return the trials to compare with, and how many comparisons that is worth: who was chosen on the folds of
        the test could have been any of those that have them, and is one.
        """
        n = own.n_folds
        ranked = self._after[n] or self._before[n]
        if not self._after[n]:
            most = 1
        chosen = [k for _, k in ranked[: most + 1] if k != number][:most]
        n_compared = 1 if self._after[n] else len(ranked)
        return n_compared, [s for s in map(self._series.__getitem__, chosen) if s.n_scored[:n] == own.n_scored]

    def _remove(self, number: int) -> None:
        series = self._series.pop(number, None)
        if series is not None:
            for n in range(1, series.n_folds + 1):
                self._before[n].remove((series.mean(0, n), number))


class _Spreads:
    """How far folds scatter around what a trial loses on average and a fold costs on average: one variance a trial.

    Each trial is set against the mean of all others that have its folds, so that a handful of trials after two folds
    says something already.
    """

    def __init__(self) -> None:
        self._losses: dict[int, Floats] = {}
        self._n_new = 0
        self._prior: VariancePrior | None = None

    def take_in(self, number: int, losses: Floats) -> None:
        """Take in a trial with two folds or more; the prior is fitted anew when an eighth of the trials is new."""
        self._losses.pop(number, None)
        self._losses[number] = losses
        while len(self._losses) > NEWEST:
            del self._losses[next(iter(self._losses))]
        self._n_new += 1
        if self._n_new >= len(self._losses) / 8:
            self._n_new = 0
            variances, dofs = self._variances()
            self._prior = fit_prior(variances, dofs) if len(dofs) >= 2 and sum(dofs) >= FEWEST_DOF else None

    def prior(self, n_leaders: int) -> VariancePrior | None:
        """Return what other trials say of the difference to a mean of so many; None where they are too few."""
        if self._prior is None:
            return None
        return VariancePrior(self._prior.variance * (1 + 1 / n_leaders), self._prior.dof)

    def _variances(self) -> tuple[list[float], list[float]]:
        """Return variance and degrees of freedom of every trial that can be set against another."""
        variances: list[float] = []
        dofs: list[float] = []
        for n in sorted({len(losses) for losses in self._losses.values()}):
            field = np.array([losses[:n] for losses in self._losses.values() if len(losses) >= n])
            own = np.array([losses for losses in self._losses.values() if len(losses) == n])
            n_others = len(field) - 1
            if n_others == 0:
                continue
            difference = own - (field.sum(axis=0) - own) / n_others
            found = np.var(difference, axis=1, ddof=1) * n_others / (n_others + 1)
            variances += found[found > 0].tolist()
            dofs += [(n - 1) * n_others / (n_others + 1)] * int(np.count_nonzero(found))  # (T - 1) (n - 1) of T trials
        return variances, dofs


def fold_racing(
    *,
    space: Space,
    objectives: Sequence[Objective],
    ladder: Sequence[Rung],
    alpha: float = 0.05,
    min_folds: int = 1,
    final_folds: int = 1,
    leaders: int = 4,
    margin: float = 0.0,
    spending: float = 1.0,
    best_first: bool = True,
    least_gain: float = 0.0,
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
        best_first=best_first,
        least_gain=least_gain,
    )
