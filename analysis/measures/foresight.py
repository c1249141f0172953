"""Whether a measure of one fold says something about the next: what flatness must show before it may rank anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Float = NDArray[np.float64]
LEAST_TRIALS = 8
"""Fewer trials give no rank correlation worth an interval."""
N_RESAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """Partial rank correlation of a measure in one fold with the loss in the next, given the loss in the first.

    Attributes:
        value: Mean over pairs of consecutive folds. Positive: where the measure was high, the next loss was high.
        low, high: Ends of the interval; the wider, on each side, of that over pairs of folds and that over trials.
        level: Of the interval.
        n_pairs, n_trials: What stands behind it.
    """

    value: float
    low: float
    high: float
    level: float
    n_pairs: int
    n_trials: int

    @property
    def is_told(self) -> bool:
        """Whether a high value of the measure went with a high loss in the next fold, beyond the interval."""
        return self.low > 0


def foresight(
    measure: ArrayLike, fold_losses: ArrayLike, *, level: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Foresight | None:
    """Ask whether a measure adds to what the loss itself says of the next fold.

    Training settings move flatness and loss together, so the plain correlation would credit flatness with what the loss
    shows already (Jiang et al. 2020, "Fantastic generalization measures", condition on the settings): the loss of the
    same fold is held fixed. Trials are resampled with replacement; pairs of folds give Student's t. With one pair there
    is only the first.

    Args:
        measure: (n_folds, n_trials) the measure, folds in time order; trials with a NaN in any fold are left out.
        fold_losses: (n_folds, n_trials) mean losses of the same trials and folds.
        level: Of the interval.
        n_resamples: Resamplings of trials.
        seed: Of the resampling.

    Returns:
        None below two folds or `LEAST_TRIALS` trials, or where measure or losses are all equal.

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(measure, dtype=np.float64), np.asarray(fold_losses, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"measure, fold_losses: expected equal shapes (n_folds, n_trials), found {x.shape} and {y.shape}"
        )
    known = np.isfinite(x).all(axis=0) & np.isfinite(y).all(axis=0)
    x, y = x[:, known], y[:, known]
    if len(x) < 2 or x.shape[1] < LEAST_TRIALS:
        return None
    orders = Order.of(x), Order.of(y)
    pairs = _pairs(*orders, np.ones(x.shape[1], dtype=np.int64))
    pairs = pairs[np.isfinite(pairs)]
    if not len(pairs):
        return None
    low, high = _over_trials(*orders, level, n_resamples, seed)
    if len(pairs) > 1:
        reach = stats.t.ppf((1 + level) / 2, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
        low, high = min(low, pairs.mean() - reach), max(high, pairs.mean() + reach)
    return Foresight(
        value=float(pairs.mean()),
        low=float(max(low, -1.0)),
        high=float(min(high, 1.0)),
        level=level,
        n_pairs=len(pairs),
        n_trials=x.shape[1],
    )


def _over_trials(x: Order, y: Order, level: float, n_resamples: int, seed: int) -> tuple[float, float]:
    generator, n = np.random.default_rng(seed), x.sequence.shape[1]
    drawn = (np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(n_resamples))
    means = np.array([np.nanmean(found) for counts in drawn if np.isfinite(found := _pairs(x, y, counts)).any()])
    if not len(means):
        return -1.0, 1.0
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _pairs(x: Order, y: Order, counts: NDArray[np.int64]) -> Float:
    """Return the partial rank correlation of each pair of consecutive folds; NaN where it is not defined.

    Args:
        x: Measure.
        y: Losses.
        counts: (n_trials,) how often each trial was drawn.
    """
    measured, lost = x.standard_ranks(counts), y.standard_ranks(counts)
    now, before, later = measured[:-1], lost[:-1], lost[1:]
    xl, xb, bl = ((a * b) @ counts / counts.sum() for a, b in ((now, later), (now, before), (before, later)))
    left = np.maximum(1 - xb**2, 0.0) * np.maximum(1 - bl**2, 0.0)  # rounding may leave less than nothing
    return np.divide(xl - xb * bl, np.sqrt(left), out=np.full(len(xl), np.nan), where=left > 1e-12)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of each row, sorted once: ranks of any resample follow from it by counting.

    Attributes:
        sequence: (n_rows, n) positions in increasing order.
        first, behind: (n_rows, n) where, in that order, the values equal to one begin, and the place after them.
    """

    sequence: NDArray[np.int64]
    first: NDArray[np.int64]
    behind: NDArray[np.int64]

    @classmethod
    def of(cls, values: Float) -> Order:
        """Sort the rows of values, (n_rows, n)."""
        sequence = np.argsort(values, axis=1, kind="stable")
        ordered = np.take_along_axis(values, sequence, axis=1)
        place = np.broadcast_to(np.arange(values.shape[1]), values.shape)
        is_new = np.ones(values.shape, dtype=bool)
        is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        is_last = np.ones(values.shape, dtype=bool)
        is_last[:, :-1] = is_new[:, 1:]
        starts = np.maximum.accumulate(np.where(is_new, place, 0), axis=1)
        ends = np.minimum.accumulate(np.where(is_last, place + 1, values.shape[1])[:, ::-1], axis=1)[:, ::-1]
        first, behind = np.empty_like(sequence), np.empty_like(sequence)
        np.put_along_axis(first, sequence, starts, axis=1)
        np.put_along_axis(behind, sequence, ends, axis=1)
        return cls(sequence, first, behind)

    def standard_ranks(self, counts: NDArray[np.int64]) -> Float:
        """Return mid-ranks in the sample that holds value k `counts[k]` times, with mean 0 and variance 1 in it."""
        below = np.zeros((len(self.sequence), len(counts) + 1))
        np.cumsum(counts[self.sequence], axis=1, out=below[:, 1:])
        ranks = np.take_along_axis(below, self.first, axis=1) + np.take_along_axis(below, self.behind, axis=1)
        ranks = (ranks - counts.sum()) / 2
        spread = np.sqrt(ranks**2 @ counts / counts.sum())[:, None]
        return np.divide(ranks, spread, out=np.full_like(ranks, np.nan), where=spread > 0)
