"""What the next fold of each trial promises: expected improvement on the best complete trial per fold that it costs.

A trial's worth is normal: what its folds say (`search.fold_effects`), shrunk towards those of trials that were proposed
about the same time. A trial that is not proposed yet is like the newest ones. Whoever looks at a trial after one more
fold goes on only if that looks good; so the cost is one fold and, by the chance of being better, the rest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from search import fold_effects
from search.fold_effects import Floats, FoldEffects
from search.stopping.improvement import expected_improvement

NEWEST = 256
"""Trials that are looked at, the best complete one and those that reported last: a bound on the cost of a report."""
REACH = 10
"""Trials proposed before and after one that its worth is shrunk to."""
LEAST_SPREAD = 0.02
"""Least variance of worths, as a share of that of what the folds say: nobody's promise is certain."""


@dataclass(frozen=True, slots=True)
class Promises:
    """Expected improvement per fold.

    Attributes:
        of: Number of a trial -> its promise, 0 for a complete one.
        fresh: That of a trial to come.
        gains: Number of a trial -> its whole expected improvement, in standard errors of a complete trial's loss.
    """

    of: Mapping[int, float]
    fresh: float
    gains: Mapping[int, float]


class Outlook:
    """Losses by fold of the newest trials, and what they promise.

    Args:
        n_folds: Of a complete trial.
    """

    def __init__(self, n_folds: int) -> None:
        self._n_folds = n_folds
        self._losses: dict[int, Floats] = {}
        self._best: int | None = None
        self._layout: FoldEffects | None = None
        self._n_new = 0
        self._known: Promises | None = None
        self._is_stale = True

    def take_in(self, number: int, losses: Floats) -> None:
        """Take in the losses of a trial's complete folds, the first ones of the ladder.

        Variances are fitted anew when an eighth of the trials has reported since, effects at every question.
        """
        self._losses.pop(number, None)
        self._losses[number] = losses
        if len(losses) == self._n_folds and losses.mean() < self._level_of_best():
            self._best = number
        while len(self._losses) > NEWEST:
            del self._losses[next(n for n in self._losses if n != self._best)]
        self._is_stale = True
        self._n_new += 1
        if self._n_new >= len(self._losses) / 8:
            self._n_new = 0
            self._layout = fold_effects.fit(self._table(self._losses))

    def remove(self, number: int) -> None:
        """Forget a trial: what it lost says nothing any more."""
        self._losses.pop(number, None)
        self._is_stale = True

    def _level_of_best(self) -> float:
        known = None if self._best is None else self._losses.get(self._best)
        return np.inf if known is None else float(known.mean())

    def promises(self) -> Promises | None:
        """Return what is promised; None while too few trials have several folds."""
        if self._is_stale:
            self._known, self._is_stale = self._found(self._losses), False
        return self._known

    def promises_with(self, number: int, losses: Floats) -> Promises | None:
        """Return what is promised with the newest losses of one trial, which were not taken in yet."""
        return self._found({**self._losses, number: losses})

    def _found(self, losses: Mapping[int, Floats]) -> Promises | None:
        if not losses or self._layout is None or not self._layout.is_known:
            return None
        table = self._table(losses)
        layout = fold_effects.refit(table, self._layout)
        mean, variance, (usual, spread) = _shrunk(*layout.worth(table))
        left = np.count_nonzero(np.isnan(table), axis=1)
        is_complete = left == 0
        best = mean[is_complete].min() if is_complete.any() else usual
        gain, n_expected = _outcome(best - mean, np.sqrt(variance), left)
        gain = np.where(is_complete, 0.0, gain)
        of_new, n_of_new = _outcome(np.array([best - usual]), np.array([spread]), np.array([self._n_folds]))
        unit = np.sqrt(1 / np.sum(1 / layout.chance))
        of, gains = (dict(zip(sorted(losses), part.tolist(), strict=True)) for part in (gain / n_expected, gain / unit))
        return Promises(of, float(of_new[0] / n_of_new[0]), gains)

    def _table(self, losses: Mapping[int, Floats]) -> Floats:
        """Return (n, n_folds) losses in order of number, NaN where a trial has none."""
        table = np.full((len(losses), self._n_folds), np.nan)
        for row, number in zip(table, sorted(losses), strict=True):
            row[: len(losses[number])] = losses[number]
        return table


def _shrunk(worths: Floats, variances: Floats) -> tuple[Floats, Floats, tuple[float, float]]:
    """Return mean and variance of each worth by itself and its neighbours, and mean and deviation of the newest ones.

    Args:
        worths: (n,) in order of proposal.
        variances: (n,) of what the folds say of each.
    """
    n = len(worths)
    ends = np.arange(n + 1)
    low, high = np.maximum(ends - REACH, 0), np.minimum(ends + REACH, n)
    sums = [np.concatenate([[0.0], np.cumsum(terms)]) for terms in (worths, worths**2, variances)]
    first, second, noise = ((total[high] - total[low]) / (high - low) for total in sums)
    spread = np.maximum(second - first**2 - noise, LEAST_SPREAD * noise)
    precision = 1 / variances + 1 / spread[:-1]
    mean = (worths / variances + first[:-1] / spread[:-1]) / precision
    return mean, 1 / precision, (float(first[-1]), float(np.sqrt(spread[-1])))


def _outcome(gap: Floats, deviation: Floats, left: Floats) -> tuple[Floats, Floats]:
    """Return the expected improvement of worths that lie below the best by a normal gap, and the folds expected."""
    return expected_improvement(gap, deviation), 1 + ndtr(gap / deviation) * np.maximum(left - 1, 0)
