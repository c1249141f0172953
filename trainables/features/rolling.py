"""Windows and recursions over arrays cut into runs: compiled passes that never look across a run's start.

Every function takes `first`, (n,) int64: for each bar the position of the first bar of its run, non-decreasing, with
`first[i] <= i`. Results are NaN until a run holds enough bars; a NaN inside a window makes that window NaN and no later
one. Value i depends on rows up to i only, and no function uses randomness. All functions can go on
from block to block of bars (`trainables.features.memory`).

Sums are compensated (Neumaier 1974); TA-Lib's SMA is a plain running sum, twice as fast, which a NaN spoils for good.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from trainables.features.memory import Memory, active, earlier_rows, remembered, windowed

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@numba.njit(inline="always")
def _add(total, lost, value):  # type: ignore[no-untyped-def]
    new = total + value
    if abs(total) >= abs(value):
        lost += (total - new) + value
    else:
        lost += (value - new) + total
    return new, lost


def rolling_mean(x: Float, first: Int, n: int) -> Float:
    """Return the mean of the last n values, by a compensated running sum.

    Args:
        x: (n_bars,) values; NaN allowed.
        first: (n_bars,) start of each bar's run.
        n: Window in bars.

    Returns:
        (n_bars,) means.
    """
    (x,), first, start = earlier_rows(first, n, np.asarray(x, dtype=np.float64))
    return _rolling_mean(x, first, n, start, remembered(3))


@numba.njit(cache=True, nogil=True)
def _rolling_mean(x: Float, first: Int, n: int, start: int, state: Float) -> Float:
    out = np.full(len(x) - start, np.nan)
    total, lost, n_missing = state
    for i in range(start, len(x)):
        if first[i] == i:
            total, lost, n_missing = 0.0, 0.0, 0.0
        if np.isnan(x[i]):
            n_missing += 1
        else:
            total, lost = _add(total, lost, x[i])
        old = i - n
        if old >= first[i]:
            if np.isnan(x[old]):
                n_missing -= 1
            else:
                total, lost = _add(total, lost, -x[old])
        if i - first[i] + 1 >= n and n_missing == 0:
            out[i - start] = (total + lost) / n
    state[0], state[1], state[2] = total, lost, n_missing
    return out


@windowed(1, lambda n: n)
@numba.njit(cache=True, nogil=True)
def rolling_std(x: Float, first: Int, n: int) -> Float:
    """Return the population standard deviation of the last n values, by two passes over each window.

    Args:
        x: (n_bars,) values; NaN allowed.
        first: (n_bars,) start of each bar's run.
        n: Window in bars.

    Returns:
        (n_bars,) standard deviations, exactly 0 where all values of the window are equal.
    """
    out = np.full(len(x), np.nan)
    for i in range(len(x)):
        if i - first[i] + 1 < n:
            continue
        anchor = x[i]
        total = 0.0
        for j in range(i - n + 1, i + 1):
            total += x[j] - anchor
        mean = total / n
        squares = 0.0
        for j in range(i - n + 1, i + 1):
            squares += (x[j] - anchor - mean) ** 2
        out[i] = np.sqrt(squares / n)
    return out


def recursive_average(x: Float, first: Int, n: int, weight: float) -> Float:
    """Return y_t = y_{t-1} + weight (x_t - y_{t-1}), started with the mean of the first n values of the run (IND-1).

    weight 2/(n+1) is an exponential average, 1/n is Wilder's. A NaN gives NaN and leaves the state as it was.

    Args:
        x: (n_bars,) values; those before the first finite value of a run are skipped.
        first: (n_bars,) start of each bar's run.
        n: Values in the starting mean.
        weight: Weight of the newest value, in (0, 1].

    Returns:
        (n_bars,) averages.
    """
    return _recursive_average(x, first, n, weight, remembered(2))


@numba.njit(cache=True, nogil=True)
def _recursive_average(x: Float, first: Int, n: int, weight: float, memory: Float) -> Float:
    out = np.full(len(x), np.nan)
    seen, state = memory
    for i in range(len(x)):
        if first[i] == i:
            seen, state = 0.0, 0.0
        if np.isnan(x[i]):
            continue
        seen += 1
        if seen <= n:
            state += x[i]
            if seen < n:
                continue
            state /= n
        else:
            state += weight * (x[i] - state)
        out[i] = state
    memory[0], memory[1] = seen, state
    return out


@windowed(1, lambda n: n)
def lagged(x: Float, first: Int, n: int) -> Float:
    """Return the value n bars earlier in the same run, NaN where the run has none.

    Args:
        x: (n_bars,) values.
        first: (n_bars,) start of each bar's run.
        n: Bars, 0 or more.

    Returns:
        (n_bars,) earlier values.

    Raises:
        ValueError: n is negative: that would be the future.
    """
    if n < 0:
        raise ValueError(f"lag: expected 0 or more bars, found {n}; a negative lag would read the future")
    return _lagged(np.asarray(x, dtype=np.float64), first, n)


@numba.njit(cache=True, nogil=True)
def _lagged(x: Float, first: Int, n: int) -> Float:
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = x[i - n] if i - n >= first[i] else np.nan
    return out


def over_finite(function, x: Float, first: Int, *arguments):  # type: ignore[no-untyped-def]
    """Apply a rolling function to the finite values alone, as if the others were not there.

    This is how a cross-session window passes over the first bars of sessions, which have no return (DATA-10).

    Args:
        function: Called as function(values, first, *arguments).
        x: (n_bars,) values.
        first: (n_bars,) start of each bar's run.
        *arguments: Passed on.

    Returns:
        (n_bars,) results, NaN where x is.
    """
    kept = np.flatnonzero(np.isfinite(x))
    memory = active()
    out = np.full(len(x), np.nan)
    if memory is None:
        if len(kept) == len(x):
            return function(x, first, *arguments)
        out[kept] = function(x[kept], np.searchsorted(kept, first[kept]), *arguments)
        return out
    inner = memory.slot(lambda: {"memory": Memory(), "start": 0})
    n_before = inner["memory"].n_rows
    starts = np.where(first >= 0, np.searchsorted(kept, first), inner["start"] - n_before)
    inner["start"] = n_before + int(starts[-1])
    if len(kept):
        with inner["memory"].block(len(kept)):
            out[kept] = function(x[kept], starts[kept], *arguments)
    return out
