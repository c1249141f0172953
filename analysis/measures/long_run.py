"""Long-run variance: the standard error of a mean whose terms overlap or are otherwise dependent in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEstimate:
    """A mean with its standard error; `mean / error` is compared with Student's t of `degrees_of_freedom`.

    Attributes:
        mean: Mean of the series, in its unit.
        error: Standard error of the mean, in the same unit; None where there are too few rows to know it.
        degrees_of_freedom: Of the t distribution; None with `error`.
        n_rows: Length of the series.
    """

    mean: float
    error: float | None
    degrees_of_freedom: int | None
    n_rows: int


def ewc_terms(n_rows: int) -> int:
    """Return the number of cosines, floor(0.4 n^(2/3)) and at least 1 (Lazarus, Lewis, Stock and Watson 2018)."""
    return max(1, math.floor(0.4 * n_rows ** (2 / 3)))


def ewc(series: ArrayLike, *, n_terms: int | None = None) -> float:
    """Return the long-run variance by equally weighted cosines.

    Source: Lazarus, Lewis, Stock and Watson (2018), "HAR inference", JBES 36(4). The mean of the squared cosine
    coefficients 1..n_terms; they are those of the orthonormal DCT-II. Never negative.

    Args:
        series: (n,) finite values in time order, equally spaced.
        n_terms: Number of cosines, from 1 to n - 1; none: `ewc_terms`.

    Raises:
        ValueError: The series is not one-dimensional, not finite or shorter than 2; or `n_terms` is out of range.
    """
    y = _series(series)
    terms = ewc_terms(len(y)) if n_terms is None else n_terms
    if not 1 <= terms < len(y):
        raise ValueError(f"n_terms: expected 1 to {len(y) - 1} for {len(y)} rows, found {terms}")
    coefficients = dct(y - y.mean(), type=2, norm="ortho")
    return float(np.mean(coefficients[1 : terms + 1] ** 2))


def newey_west(series: ArrayLike, *, n_lags: int) -> float:
    """Return the long-run variance with Bartlett weights, autocovariances divided by n.

    Source: Newey and West (1987). Never negative. For overlapping horizons of h rows use at least h - 1 lags; its
    tests reject too often then (twice the level and more), which is why `ewc` is the default here.

    Args:
        series: (n,) finite values in time order.
        n_lags: Zero or more, below n.

    Raises:
        ValueError: The series is not one-dimensional, not finite or shorter than 2; or `n_lags` is out of range.
    """
    y = _series(series)
    if not 0 <= n_lags < len(y):
        raise ValueError(f"n_lags: expected 0 to {len(y) - 1} for {len(y)} rows, found {n_lags}")
    centred = y - y.mean()
    covariance = [float(centred[k:] @ centred[: len(y) - k]) / len(y) for k in range(n_lags + 1)]
    return covariance[0] + 2 * sum((1 - k / (n_lags + 1)) * covariance[k] for k in range(1, n_lags + 1))


def mean_with_error(series: ArrayLike) -> MeanEstimate:
    """Return the mean of a dependent series with its EWC standard error.

    Args:
        series: (n,) finite values in time order; n at least 1. Below 8 rows the error is None.

    Raises:
        ValueError: The series is empty, not one-dimensional or not finite.
    """
    y = _series(series, least=1)
    if len(y) < 8:
        return MeanEstimate(mean=float(y.mean()), error=None, degrees_of_freedom=None, n_rows=len(y))
    terms = ewc_terms(len(y))
    error = math.sqrt(ewc(y, n_terms=terms) / len(y))
    return MeanEstimate(mean=float(y.mean()), error=error, degrees_of_freedom=terms, n_rows=len(y))


def _series(series: ArrayLike, least: int = 2) -> NDArray[np.float64]:
    y = np.asarray(series, dtype=np.float64)
    if y.ndim != 1 or len(y) < least:
        raise ValueError(f"series: expected shape (n,) with n at least {least}, found {y.shape}")
    if not np.isfinite(y).all():
        raise ValueError(
            f"series: expected finite values, found {int((~np.isfinite(y)).sum())} that are not; drop them"
        )
    return y
