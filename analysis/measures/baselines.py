"""Forecasts that know nothing but the past: what a model must beat (ANALYSIS-4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.measures.crps import gaussian, quantile

Float = NDArray[np.float64]


def unconditional_crps(train_target: ArrayLike, target: ArrayLike, levels: ArrayLike) -> Float:
    """Return the (n,) quantile-form CRPS of forecasting the quantiles of the training rows at every row.

    Args:
        train_target: (m,) targets of the training rows of the fold; NaN is left out.
        target: (n,) targets to score.
        levels: (k,) increasing levels inside (0, 1).

    Raises:
        ValueError: No training target is known, or the levels are wrong.
    """
    known = _known(train_target)
    y = np.asarray(target, dtype=np.float64)
    fixed = np.quantile(known, np.asarray(levels, dtype=np.float64))
    return quantile(y, np.tile(fixed, (len(y), 1)), levels)


def ewma_scale(realised: ArrayLike, *, span_rows: float) -> Float:
    """Return the zero-mean EWMA standard deviation after each row, (n,); the newest has the weight 2 / (span + 1).

    Source: RiskMetrics (1996), started at the first squared value. A value with a horizon of h rows is known h rows
    later: shift by the horizon before using it as a forecast.

    Args:
        realised: (n,) finite values in time order.
        span_rows: 1 or more.

    Raises:
        ValueError: Values are not finite, or the span is below 1.
    """
    y = np.asarray(realised, dtype=np.float64)
    if y.ndim != 1 or not np.isfinite(y).all() or span_rows < 1:
        raise ValueError(f"expected finite values (n,) and span_rows of 1 or more, found {y.shape} and {span_rows}")
    weight = 2 / (span_rows + 1)
    variance = np.empty(len(y))
    state = float(y[0] ** 2) if len(y) else 0.0
    for i, square in enumerate(y**2):
        state += weight * (float(square) - state)
        variance[i] = state
    return np.sqrt(variance)


def zero_mean_gaussian_crps(target: ArrayLike, scale: ArrayLike | float) -> Float:
    """Return the (n,) CRPS of a normal forecast with mean zero; arguments and errors as in `crps.gaussian`."""
    return gaussian(target, 0.0, scale)


def scale_of(train_target: ArrayLike) -> float:
    """Return the root mean square of the known training targets: the scale of a zero-mean normal forecast.

    Raises:
        ValueError: No training target is known.
    """
    return math.sqrt(float(np.mean(_known(train_target) ** 2)))


def relative_reduction(score: float, baseline: float) -> float:
    """Return 1 - score / baseline: the share of the baseline's score that the model saves; negative where it is worse.

    Raises:
        ValueError: The baseline is not positive.
    """
    if not baseline > 0:
        raise ValueError(f"baseline: expected a positive score, found {baseline}")
    return 1 - score / baseline


def _known(values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    if not len(known):
        raise ValueError("train_target: expected at least one known value, found none")
    return known
