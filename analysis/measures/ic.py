"""Information coefficient: how well predictions order or track what happened (ANALYSIS-2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from analysis.measures.long_run import ewc, ewc_terms, mean_with_error

Float = NDArray[np.float64]
Method = Literal["spearman", "pearson"]
LEAST_ROWS = 3
"""Two points always correlate perfectly: below three a correlation says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IcEstimate:
    """A correlation with a standard error that holds for dependent rows.

    Attributes:
        value: In [-1, 1].
        error: Standard error; None below 8 rows.
        degrees_of_freedom: Of the t distribution for `value / error`; None with `error`.
        n_rows: Rows used.
        n_independent: Rows divided by the horizon in rows. Below 50 the error is a rough one (too small).
    """

    value: float
    error: float | None
    degrees_of_freedom: int | None
    n_rows: int
    n_independent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyIc:
    """Information coefficients of single days, averaged.

    Attributes:
        mean: Mean over days.
        error: Standard error of the mean by EWC; None below 8 days.
        ratio: Mean divided by the standard deviation over days (ICIR, per day); None below 2 days or without spread.
        n_days: Days used.
    """

    mean: float
    error: float | None
    ratio: float | None
    n_days: int


def pearson(prediction: ArrayLike, target: ArrayLike) -> float | None:
    """Return the linear correlation, or None where it is undefined: a constant side, or fewer than three rows.

    Args:
        prediction: (n,) values.
        target: (n,) values. Rows with a NaN on either side are left out.

    Raises:
        ValueError: Shapes differ or are not one-dimensional, or a value is infinite.
    """
    return _pearson(*_pairs(prediction, target))


def spearman(prediction: ArrayLike, target: ArrayLike) -> float | None:
    """Return the rank correlation, ties averaged, or None where it is undefined; arguments as in `pearson`."""
    x, y = _pairs(prediction, target)
    return _pearson(rankdata(x), rankdata(y))


def estimate(
    prediction: ArrayLike, target: ArrayLike, *, method: Method = "spearman", horizon_rows: int = 1
) -> IcEstimate | None:
    """Return the correlation of all rows with a standard error that overlapping horizons do not shrink.

    The correlation is, to first order, a mean of influence terms; the long-run variance of that series by EWC gives
    the error. Influence functions: Croux and Dehon (2010), "Influence functions of the Spearman and Kendall
    correlation measures", at the empirical distribution.

    Args:
        prediction: (n,) values in time order.
        target: (n,) values. Rows with a NaN on either side are left out.
        method: Rank or linear correlation.
        horizon_rows: Rows that one target spans; only for `n_independent`.

    Returns:
        None where the correlation is undefined.

    Raises:
        ValueError: Shapes differ, a value is infinite, or `horizon_rows` is below 1.
    """
    if horizon_rows < 1:
        raise ValueError(f"horizon_rows: expected 1 or more, found {horizon_rows}")
    x, y = _pairs(prediction, target)
    value = _pearson(x, y) if method == "pearson" else _pearson(rankdata(x), rankdata(y))
    if value is None:
        return None
    n = len(x)
    error, terms = None, None
    if n >= 8:
        influence = _pearson_influence(x, y, value) if method == "pearson" else _spearman_influence(x, y)
        terms = ewc_terms(n)
        error = math.sqrt(ewc(influence, n_terms=terms) / n)
    return IcEstimate(value=value, error=error, degrees_of_freedom=terms, n_rows=n, n_independent=n / horizon_rows)


def subsampled(
    prediction: ArrayLike, target: ArrayLike, *, horizon_rows: int, method: Method = "spearman"
) -> float | None:
    """Return the mean of the correlations over the `horizon_rows` interleaved samples whose targets do not overlap.

    Offsets where the correlation is undefined are left out; None where it is undefined for all. Arguments and errors
    as in `estimate`.
    """
    if horizon_rows < 1:
        raise ValueError(f"horizon_rows: expected 1 or more, found {horizon_rows}")
    x, y = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    measure = pearson if method == "pearson" else spearman
    values = [measure(x[k::horizon_rows], y[k::horizon_rows]) for k in range(horizon_rows)]
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def per_day(
    prediction: ArrayLike, target: ArrayLike, day: ArrayLike, *, method: Method = "spearman", least_rows: int = 20
) -> DailyIc | None:
    """Return the information coefficient of each day, averaged over days.

    Args:
        prediction: (n,) values.
        target: (n,) values. Rows with a NaN on either side are left out.
        day: (n,) any sortable label of the trading day; its order is the order of time.
        method: Rank or linear correlation.
        least_rows: Days with fewer rows are left out; a correlation of few rows is noise.

    Returns:
        None where no day has a defined correlation.

    Raises:
        ValueError: Shapes differ, or a value is infinite.
    """
    x, y, days = np.asarray(prediction, float), np.asarray(target, float), np.asarray(day)
    if days.shape != x.shape:
        raise ValueError(f"day: expected the shape of prediction, {x.shape}, found {days.shape}")
    measure = pearson if method == "pearson" else spearman
    order = np.argsort(days, kind="stable")
    starts = np.flatnonzero(np.r_[True, days[order][1:] != days[order][:-1]])
    blocks = [rows for rows in np.split(order, starts[1:]) if len(rows) >= least_rows]
    known = [v for v in (measure(x[rows], y[rows]) for rows in blocks) if v is not None]
    if not known:
        return None
    mean = mean_with_error(known)
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    ratio = mean.mean / spread if spread > 0 else None
    return DailyIc(mean=mean.mean, error=mean.error, ratio=ratio, n_days=len(known))


def _pairs(prediction: ArrayLike, target: ArrayLike) -> tuple[Float, Float]:
    x, y = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"prediction, target: expected equal shapes (n,), found {x.shape} and {y.shape}")
    if np.isinf(x).any() or np.isinf(y).any():
        raise ValueError("prediction, target: expected finite values or NaN, found infinity; the model has diverged")
    keep = ~(np.isnan(x) | np.isnan(y))
    return x[keep], y[keep]


def _pearson(x: Float, y: Float) -> float | None:
    if len(x) < LEAST_ROWS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    # Dividing by the largest deviation first keeps squares of very small or large values representable.
    dx, dy = x - x.mean(), y - y.mean()
    dx, dy = dx / np.abs(dx).max(), dy / np.abs(dy).max()
    return float(np.clip(dx @ dy / math.sqrt((dx @ dx) * (dy @ dy)), -1.0, 1.0))


def _pearson_influence(x: Float, y: Float, value: float) -> Float:
    zx, zy = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    return zx * zy - value / 2 * (zx**2 + zy**2)


def _spearman_influence(x: Float, y: Float) -> Float:
    n = len(x)
    u, v = (rankdata(x) - 0.5) / n, (rankdata(y) - 0.5) / n
    # Without ties both variances are 1/12 and known; ties make them smaller.
    return (u * v + _mean_above(x, v) + _mean_above(y, u)) / (u.std() * v.std())


def _mean_above(x: Float, weight: Float) -> Float:
    """Return for each row the mean over rows s of weight_s times (1 where x_s is larger, 1/2 where it is equal)."""
    _, group = np.unique(x, return_inverse=True)
    total = np.bincount(group, weights=weight)
    above = total.sum() - np.cumsum(total)
    return (above + total / 2)[group] / len(x)
