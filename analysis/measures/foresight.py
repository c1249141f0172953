"""Whether a measure of one fold says something about the next: what flatness must show before it may rank anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Float = NDArray[np.float64]
LEAST_TRIALS = 8
"""Fewer trials give no rank correlation worth an interval."""
N_RESAMPLES = 500


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
    pairs = _pairs(x, y)
    pairs = pairs[np.isfinite(pairs)]
    if not len(pairs):
        return None
    low, high = _over_trials(x, y, level, n_resamples, seed)
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


def _over_trials(x: Float, y: Float, level: float, n_resamples: int, seed: int) -> tuple[float, float]:
    generator, n = np.random.default_rng(seed), x.shape[1]
    drawn = (generator.integers(0, n, n) for _ in range(n_resamples))
    means = np.array(
        [np.nanmean(found) for rows in drawn if np.isfinite(found := _pairs(x[:, rows], y[:, rows])).any()]
    )
    if not len(means):
        return -1.0, 1.0
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _pairs(x: Float, y: Float) -> Float:
    """Return the partial rank correlation of each pair of consecutive folds; NaN where it is not defined."""
    now, before, later = (_standardised(v) for v in (x[:-1], y[:-1], y[1:]))
    xl, xb, bl = ((a * b).mean(axis=1) for a, b in ((now, later), (now, before), (before, later)))
    left = np.maximum(1 - xb**2, 0.0) * np.maximum(1 - bl**2, 0.0)  # rounding may leave less than nothing
    return np.divide(xl - xb * bl, np.sqrt(left), out=np.full(len(xl), np.nan), where=left > 1e-12)


def _standardised(values: Float) -> Float:
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks**2).mean(axis=1, keepdims=True))
    return np.divide(ranks, spread, out=np.full_like(ranks, np.nan), where=spread > 0)
