"""A measure over folds: mean weighted by scored rows, and its standard error (ANALYSIS-1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldMean:
    """A mean over folds; `error` is None below two folds."""

    mean: float
    error: float | None
    n_folds: int


def over_folds(values: ArrayLike, n_scored: ArrayLike) -> FoldMean | None:
    """Return the mean over folds, weighted by scored rows, with the standard error of a weighted mean.

    Folds are taken as independent. With equal weights the error is the standard deviation (ddof 1) over root n.

    Args:
        values: (n_folds,) one value a fold; folds where it is not finite are left out.
        n_scored: (n_folds,) positive numbers of scored rows.

    Returns:
        None where no fold is left.

    Raises:
        ValueError: Shapes differ, or a weight is not positive.
    """
    v, w = np.asarray(values, dtype=np.float64), np.asarray(n_scored, dtype=np.float64)
    if v.ndim != 1 or v.shape != w.shape:
        raise ValueError(f"values, n_scored: expected equal shapes (n_folds,), found {v.shape} and {w.shape}")
    if not (w > 0).all():
        raise ValueError(f"n_scored: expected positive numbers, found {float(w.min())}")
    known = np.isfinite(v)
    v, w = v[known], w[known]
    n = len(v)
    if n == 0:
        return None
    share = w / w.sum()
    mean = float(share @ v)
    if n == 1:
        return FoldMean(mean=mean, error=None, n_folds=1)
    spread = float(share**2 @ (v - mean) ** 2) * n / (n - 1)
    return FoldMean(mean=mean, error=math.sqrt(spread), n_folds=n)
