"""Means of many dependent series resampled together: what the tests on thousands of trials share."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
_ROWS_AT_ONCE = 4_000_000
"""Resampled row numbers held at once (32 MB)."""


def matrix(values: ArrayLike, name: str = "losses", *, least_rows: int = 2) -> NDArray[np.floating]:
    """Return (n_rows, n_columns) floats, checked.

    Raises:
        ValueError: Not two-dimensional, too few rows, no column, or a value is not finite.
    """
    found = np.asarray(values)
    if not np.issubdtype(found.dtype, np.floating):
        found = found.astype(np.float64)
    if found.ndim != 2 or found.shape[0] < least_rows or found.shape[1] < 1:
        raise ValueError(
            f"{name}: expected shape (n_rows, n_trials) with {least_rows} rows or more, found {found.shape}"
        )
    if not np.isfinite(found).all():
        n_bad = int((~np.isfinite(found)).sum())
        raise ValueError(f"{name}: expected finite values, found {n_bad} that are not; leave these trials or rows out")
    return found


def block_length(series: ArrayLike, *, horizon_rows: int = 1) -> float:
    """Return the mean block length for the stationary bootstrap of the mean of a series.

    Source: Politis and White (2004), "Automatic block-length selection for the dependent bootstrap", with the
    correction of Patton, Politis and White (2009): a flat-top window over twice the first lag from which on K_n
    autocorrelations are insignificant. Never below the horizon, as overlapping targets depend that far.

    Args:
        series: (n,) finite values in time order.
        horizon_rows: Rows that one target spans.

    Returns:
        From `horizon_rows`, itself at most n / 2, to the smaller of 3 sqrt(n) and n / 3; at least 1.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    least = float(max(1, min(horizon_rows, n // 2)))
    centred = x - x.mean()
    scale = float(centred @ centred)
    if n < 9 or scale <= 0:
        return least
    n_quiet = max(5, math.ceil(math.log10(n)))
    largest = min(math.ceil(math.sqrt(n)) + n_quiet, n - 1)
    covariance = np.array([centred[k:] @ centred[: n - k] for k in range(largest + 1)]) / n
    is_loud = np.abs(covariance[1:] / covariance[0]) >= 2 * math.sqrt(math.log10(n) / n)
    quiet_lag = next((k + 1 for k in range(largest - n_quiet + 1) if not is_loud[k : k + n_quiet].any()), largest)
    lags = np.arange(1, min(2 * quiet_lag, largest) + 1)
    ratio = lags / len(lags)
    window = np.where(ratio <= 0.5, 1.0, 2 * (1 - ratio))
    slope = 2 * float(np.sum(window * lags * covariance[lags]))
    spectrum = float(covariance[0] + 2 * np.sum(window * covariance[lags]))
    if spectrum <= 0:
        return least
    best = (2 * slope**2 / (2 * spectrum**2)) ** (1 / 3) * n ** (1 / 3)
    return float(max(least, 1.0, min(best, math.ceil(min(3 * math.sqrt(n), n / 3)))))


def stationary_counts(
    n_rows: int, *, mean_block: float, n_resamples: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return how often each row is in each resample of the stationary bootstrap, (n_resamples, n_rows).

    Source: Politis and Romano (1994). Blocks start anywhere, have geometric length and wrap around the end.
    """
    jumps = generator.random((n_resamples, n_rows)) < 1 / mean_block
    jumps[:, 0] = True
    start = np.maximum.accumulate(np.where(jumps, np.arange(n_rows), 0), axis=1)
    first = generator.integers(0, n_rows, (n_resamples, n_rows))
    rows = (np.take_along_axis(first, start, axis=1) + np.arange(n_rows) - start) % n_rows
    flat = rows + n_rows * np.arange(n_resamples)[:, None]
    return np.bincount(flat.ravel(), minlength=n_resamples * n_rows).reshape(n_resamples, n_rows).astype(np.float32)


def resampled_means(values: ArrayLike, *, mean_block: float, n_resamples: int, seed: int) -> Float:
    """Return the column means of stationary bootstrap resamples of the rows, (n_resamples, n_columns).

    All columns are resampled by the same rows. A resample is a row of counts, so all means are one matrix product; it
    is taken in float32 where the values are float32: subtract first what the columns have in common.

    Args:
        values: (n_rows, n_columns) finite values in time order.
        mean_block: 1 or more; at least the horizon.
        n_resamples: Resamples.
        seed: Of the resampling.

    Raises:
        ValueError: Values are wrong, or the block is shorter than one row.
    """
    x = matrix(values, "values")
    if mean_block < 1:
        raise ValueError(f"mean_block: expected 1 or more rows, found {mean_block}")
    generator = np.random.default_rng(seed)
    at_once = max(1, _ROWS_AT_ONCE // len(x))
    parts = []
    for done in range(0, n_resamples, at_once):
        n_now = min(at_once, n_resamples - done)
        counts = stationary_counts(len(x), mean_block=mean_block, n_resamples=n_now, generator=generator)
        parts.append((counts.astype(x.dtype, copy=False) @ x).astype(np.float64) / len(x))
    return np.concatenate(parts)


def share_at_least(resampled: ArrayLike, observed: float) -> float:
    """Return the p value of a resampled statistic: the share that is no smaller, the observed one counted as one.

    Source: Davison and Hinkley (1997), ch. 4: (1 + number no smaller) / (1 + number). Never zero.
    """
    found = np.asarray(resampled)
    return float((1 + np.sum(found >= observed)) / (1 + len(found)))
