"""Calibration: do stated probabilities come true (ANALYSIS-5, ANALYSIS-8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Float = NDArray[np.float64]


def coverage(target: ArrayLike, quantiles: ArrayLike) -> Float:
    """Return for each quantile the share of targets at or below it; calibrated forecasts give the levels themselves.

    Args:
        target: (n,) realised values; rows with a NaN in target or quantiles are left out.
        quantiles: (n, k) forecasts.

    Raises:
        ValueError: Shapes do not fit, or no row is left.
    """
    y, q = np.asarray(target, dtype=np.float64), np.asarray(quantiles, dtype=np.float64)
    if y.ndim != 1 or q.ndim != 2 or len(q) != len(y):
        raise ValueError(f"quantiles: expected shape (n, k) with n = {len(y)}, found {q.shape}")
    keep = ~(np.isnan(y) | np.isnan(q).any(axis=1))
    if not keep.any():
        raise ValueError("target: expected at least one row without NaN, found none")
    return (y[keep, None] <= q[keep]).mean(axis=0)


def coverage_error(target: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> Float:
    """Return `coverage` minus the levels, (k,); positive where targets fall below the quantile too often.

    Raises:
        ValueError: As in `coverage`, or the number of levels differs.
    """
    tau = np.asarray(levels, dtype=np.float64)
    shares = coverage(target, quantiles)
    if tau.shape != shares.shape:
        raise ValueError(f"levels: expected {shares.shape[0]} levels, one a quantile, found shape {tau.shape}")
    return shares - tau


def pit_gaussian(target: ArrayLike, mean: ArrayLike, scale: ArrayLike) -> Float:
    """Return the probability integral transform Phi((y - mean) / scale), (n,); uniform where forecasts are calibrated.

    Source: Dawid (1984); Diebold, Gunther and Tay (1998). Horizons of h rows leave (h - 1)-dependent values.

    Raises:
        ValueError: A scale is not positive.
    """
    y, mu, sigma = (np.asarray(a, dtype=np.float64) for a in (target, mean, scale))
    if (sigma <= 0).any():
        raise ValueError(f"scale: expected positive values, found {float(np.nanmin(sigma))}")
    return ndtr((y - mu) / sigma)


def expected_calibration_error(outcome: ArrayLike, probability: ArrayLike, *, n_bins: int = 10) -> float:
    """Return the mean gap between confidence and frequency over equal-width bins, weighted by rows.

    Source: Naeini, Cooper and Hauskrecht (2015). Bins are (a, b]; a probability of 0 is in the first.

    Args:
        outcome: (n,) 0 or 1.
        probability: (n,) forecasts of 1 in [0, 1].
        n_bins: 1 or more.

    Raises:
        ValueError: Shapes differ, there is no row, a probability lies outside [0, 1], or `n_bins` is below 1.
    """
    y, p = np.asarray(outcome, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1 or len(y) == 0:
        raise ValueError(f"outcome, probability: expected equal shapes (n,) with rows, found {y.shape} and {p.shape}")
    if n_bins < 1 or (p < 0).any() or (p > 1).any():
        raise ValueError(
            f"expected probabilities in [0, 1] and n_bins of 1 or more, found {p.min()}..{p.max()}, {n_bins}"
        )
    bins = np.clip(np.ceil(p * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=y, minlength=n_bins) - np.bincount(bins, weights=p, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(y))
