"""The search itself as a forecaster: choose on the folds so far, score on the next; and how stable the choice is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from analysis.measures.block_bootstrap import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedChoice:
    """What would have been chosen before each fold from the second on, and how it did there.

    Attributes:
        folds: (n - 1,) position of the scored fold.
        chosen: (n - 1,) column of the trial with the lowest mean loss on all earlier folds.
        loss: (n - 1,) its loss in the fold.
        median: (n - 1,) loss of the median trial in the fold: what no choice at all would have given.
        best: (n - 1,) the lowest loss in the fold: what no choice could have beaten.
    """

    folds: NDArray[np.int64]
    chosen: NDArray[np.int64]
    loss: Float
    median: Float
    best: Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence:
    """Rank correlation of the trials' losses between consecutive folds.

    Attributes:
        mean: Mean over the pairs of folds; 0: the order of one fold says nothing about the next.
        error: Standard error over pairs; None with one pair.
        pairs: (n - 1,) the correlations; NaN where all trials are equal in a fold.
    """

    mean: float
    error: float | None
    pairs: Float


def walk_forward_choice(fold_losses: ArrayLike, n_scored: ArrayLike) -> NestedChoice | None:
    """Choose before each fold by the mean loss of the folds before it, weighted by scored rows; score in the fold.

    Nested evaluation (Varma and Simon 2006) at no training of its own, as the folds of a walk-forward search come one
    after another. It still flatters by what the optimizer learned from later folds while proposing.

    Args:
        fold_losses: (n_folds, n_trials) finite mean losses, folds in time order.
        n_scored: (n_folds,) positive numbers of scored rows.

    Returns:
        None below two folds.

    Raises:
        ValueError: Losses are not finite, or shapes do not fit.
    """
    x, n = _folds(fold_losses), np.asarray(n_scored, dtype=np.float64)
    if n.shape != (len(x),) or not (n > 0).all():
        raise ValueError(f"n_scored: expected {len(x)} positive numbers, found shape {n.shape}")
    if len(x) < 2:
        return None
    before = np.cumsum(x * n[:, None], axis=0)[:-1] / np.cumsum(n)[:-1, None]
    chosen = before.argmin(axis=1)
    later = x[1:]
    return NestedChoice(
        folds=np.arange(1, len(x)),
        chosen=chosen,
        loss=later[np.arange(len(later)), chosen],
        median=np.median(later, axis=1),
        best=later.min(axis=1),
    )


def rank_persistence(fold_losses: ArrayLike) -> Persistence | None:
    """Return how much of the order of the trials in one fold is found again in the next (Spearman, ties averaged).

    Args:
        fold_losses: (n_folds, n_trials) finite mean losses, folds in time order.

    Returns:
        None below two folds or three trials, or where no pair has an order.

    Raises:
        ValueError: Losses are not finite.
    """
    x = _folds(fold_losses)
    if len(x) < 2 or x.shape[1] < 3:
        return None
    ranks = rankdata(x, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1))
    product = length[:-1] * length[1:]
    pairs = np.divide((ranks[:-1] * ranks[1:]).sum(axis=1), product, out=np.full(len(x) - 1, np.nan), where=product > 0)
    known = pairs[np.isfinite(pairs)]
    if not len(known):
        return None
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None
    return Persistence(mean=float(known.mean()), error=error, pairs=pairs)


def best_value_by_fold(values: ArrayLike, fold_losses: ArrayLike, *, top_share: float = 0.2) -> Float:
    """Return the mean value that a parameter has in the best trials of each fold, to see whether the best drifts.

    Args:
        values: (n_trials,) a parameter, on the scale that it is searched on; NaN where it is not active.
        fold_losses: (n_folds, n_trials) finite mean losses, folds in time order.
        top_share: Share of the trials taken as best in a fold; at least one trial.

    Returns:
        (n_folds,) NaN where it is active in none of them.

    Raises:
        ValueError: Losses are not finite, or shapes do not fit.
    """
    x, v = _folds(fold_losses), np.asarray(values, dtype=np.float64)
    if v.shape != (x.shape[1],):
        raise ValueError(f"values: expected one a trial, {x.shape[1]}, found shape {v.shape}")
    n_top = max(1, round(top_share * x.shape[1]))
    top = v[np.argsort(x, axis=1, kind="stable")[:, :n_top]]
    known = np.isfinite(top)
    total = np.where(known, top, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(len(x), np.nan), where=known.any(axis=1))


def _folds(fold_losses: ArrayLike) -> Float:
    x = np.asarray(fold_losses, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape or not np.isfinite(x).all():
        raise ValueError(f"fold_losses: expected finite values (n_folds, n_trials), found shape {x.shape}")
    return x
