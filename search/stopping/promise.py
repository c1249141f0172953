"""Which trial deserves the next fold: expected improvement on the best complete trial per fold that it will cost.

A trial's worth is normal: what its folds say (`search.fold_effects`), shrunk towards trials that were proposed about
the same time. A trial that is not proposed yet is like the newest ones. Someone who looks at a trial after one more
fold goes on only where that looks good, so the cost is one fold and, by the chance of being better, the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from search import fold_effects
from search.fold_effects import FoldEffects, Floats

NEWEST = 256
"""Trials that the layout is fitted to, the newest ones: a bound on the cost of a report."""
REACH = 10
"""Trials proposed before and after one that its worth is shrunk to."""


class Promise(NamedTuple):
    """What is known of the trials with folds, in order of number.

    Attributes:
        numbers: (n,) of the trials.
        gains: (n,) expected improvement per fold; 0 for complete ones.
        fresh: That of a trial to come.
    """

    numbers: Floats
    gains: Floats
    fresh: float


class Field:
    """Losses by fold of the newest trials.

    Args:
        n_folds: Of a complete trial.
    """

    def __init__(self, n_folds: int) -> None:
        self._n_folds = n_folds
        self._losses: dict[int, Floats] = {}
        self._promise: Promise | None = None
        self._is_fresh = False

    def take_in(self, number: int, losses: Floats) -> None:
        """Take in the losses of a trial's complete folds."""
        self._losses.pop(number, None)
        self._losses[number] = losses
        while len(self._losses) > NEWEST:
            del self._losses[next(iter(self._losses))]
        self._is_fresh = False

    def remove(self, number: int) -> None:
        self._losses.pop(number, None)
        self._is_fresh = False

    def promise(self, extra: tuple[int, Floats] | None = None) -> Promise | None:
        """Return it; None while too little is known."""
        if extra is not None:
            return self._found({**self._losses, extra[0]: extra[1]})
        if not self._is_fresh:
            self._promise, self._is_fresh = self._found(self._losses), True
        return self._promise

    def _found(self, of: dict[int, Floats]) -> Promise | None:
        if not of:
            return None
        numbers = np.array(sorted(of))
        losses = np.full((len(numbers), self._n_folds), np.nan)
        for row, number in zip(losses, numbers, strict=True):
            row[: len(of[number])] = of[number]
        layout = fold_effects.fit(losses)
        if not layout.is_known:
            return None
        counts = (~np.isnan(losses)).sum(axis=1)
        mean, variance, (base, spread) = self._shrunk(*layout.worth(losses))
        left = self._n_folds - counts
        complete = left == 0
        best = mean[complete].min() if complete.any() else base
        deviation = np.sqrt(variance)
        gains = np.where(complete, 0.0, _improvement(best - mean, deviation) / _cost(best - mean, deviation, left))
        fresh = _improvement(best - base, spread) / _cost(best - base, spread, np.array(self._n_folds))
        import os
        kappa = float(os.environ.get("KAPPA", "1"))
        return Promise(numbers, gains, kappa * float(fresh))

    def _shrunk(self, rest: Floats, variances: Floats) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
        """Return mean and variance of each worth, and mean and deviation of the newest ones' worths."""
        n = len(rest)
        weights = 1 / variances
        sums = [np.concatenate([[0.0], np.cumsum(a)]) for a in (np.ones(n), rest, rest**2, variances)]
        low = np.maximum(np.arange(n + 1) - REACH, 0)
        high = np.minimum(np.arange(n + 1) + REACH, n)
        count, first, second, noise = (s[high] - s[low] for s in sums)
        centre = first / count
        spread = np.maximum(second / count - centre**2 - noise / count, 0.02 * noise / count)
        precision = weights + 1 / spread[:-1]
        mean = (weights * rest + centre[:-1] / spread[:-1]) / precision
        return mean, 1 / precision, (centre[-1], np.sqrt(spread[-1]))


def _improvement(gap: Floats, deviation: Floats) -> Floats:
    z = gap / deviation
    return deviation * (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) + z * ndtr(z))


def _cost(gap: Floats, deviation: Floats, left: Floats) -> Floats:
    return 1 + ndtr(gap / deviation) * np.maximum(left - 1, 0)
