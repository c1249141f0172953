"""Windows and recursions over arrays cut into runs: compiled passes that never look across a run's start.

Every function takes `first`, (n,) int64: for each bar the position of the first bar of its run, non-decreasing, with
`first[i] <= i`. Results are NaN until a run holds enough bars; a NaN inside a window makes that window NaN and no later
one. Value i depends on rows up to i only, and no function uses randomness. All functions can go on
from block to block of bars (`trainables.features.memory`).

A sum over a window of n rows is made of two: the rows of the window before the last multiple of n in the run, summed
backwards from it, and those from there on, summed forwards (van Herk 1992 and Gil and Werman 1993 did so for extremes).
So nothing is ever subtracted: what has left the window has left no rounding behind, and a NaN spoils the windows that
hold it and no other, without a branch. TA-Lib's SMA, a plain running sum, is spoilt by one for good.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from trainables.features.memory import Memory, active, keep_rows, remembered

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def rolling_mean(x: Float, first: Int, n: int) -> Float:
    """Return the mean of the last n values.

    Args:
        x: (n_bars,) values; NaN allowed.
        first: (n_bars,) start of each bar's run.
        n: Window in bars.

    Returns:
        (n_bars,) means.
    """
    return _rolling_mean(np.asarray(x, dtype=np.float64), first, n, remembered(2 * n))


@numba.njit(cache=True, nogil=True)
def _rolling_mean(x: Float, first: Int, n: int, earlier: Float) -> Float:
    out = np.empty(len(x))
    before = np.zeros(n)  # before[k]: sum of the k rows before the block
    i = 0
    while i < len(x):
        run, block, total = first[i], i - (i - first[i]) % n, 0.0
        for k in range(1, n if block > run else 1):
            j = block - k
            total += x[j] if j >= 0 else earlier[2 * n + j]
            before[k] = total
        total = 0.0
        for j in range(block, i):
            total += x[j] if j >= 0 else earlier[2 * n + j]
        while i < min(block + n, len(x)) and first[i] == run:
            total += x[i]
            missing = block + n - 1 - i
            out[i] = (before[missing] + total) / n if block > run or missing == 0 else np.nan
            i += 1
    keep_rows(x, earlier)
    return out


def rolling_std(x: Float, first: Int, n: int) -> Float:
    """Return the population standard deviation of the last n values.

    Deviations are from a row that is in the window, the first of its block, so that at most a factor n of the
    precision is lost, and nothing where all values are equal.

    Args:
        x: (n_bars,) values; NaN allowed.
        first: (n_bars,) start of each bar's run.
        n: Window in bars.

    Returns:
        (n_bars,) standard deviations, exactly 0 where all values of the window are equal.
    """
    return _rolling_std(np.asarray(x, dtype=np.float64), first, n, remembered(2 * n))


@numba.njit(cache=True, nogil=True)
def _rolling_std(x: Float, first: Int, n: int, earlier: Float) -> Float:
    out = np.empty(len(x))
    before, squares_before = np.zeros(n), np.zeros(n)
    i = 0
    while i < len(x):
        run, block = first[i], i - (i - first[i]) % n
        anchor = x[block] if block >= 0 else earlier[2 * n + block]
        total, squares = 0.0, 0.0
        for k in range(1, n if block > run else 1):
            j = block - k
            deviation = (x[j] if j >= 0 else earlier[2 * n + j]) - anchor
            total += deviation
            squares += deviation * deviation
            before[k], squares_before[k] = total, squares
        total, squares = 0.0, 0.0
        for j in range(block, i):
            deviation = (x[j] if j >= 0 else earlier[2 * n + j]) - anchor
            total += deviation
            squares += deviation * deviation
        while i < min(block + n, len(x)) and first[i] == run:
            deviation = x[i] - anchor
            total += deviation
            squares += deviation * deviation
            missing = block + n - 1 - i
            mean = (before[missing] + total) / n
            variance = (squares_before[missing] + squares) / n - mean * mean
            # written so that NaN stays NaN
            variance = 0.0 if variance < 0.0 else variance
            out[i] = np.sqrt(variance) if block > run or missing == 0 else np.nan
            i += 1
    keep_rows(x, earlier)
    return out


def price_channel(high: Float, low: Float, first: Int, n: int) -> tuple[Float, Float]:
    """Return the largest of the last n highs and the smallest of the last n lows.

    Args:
        high: (n_bars,) finite values.
        low: (n_bars,) finite values.
        first: (n_bars,) start of each bar's run.
        n: Window in bars.

    Returns:
        (n_bars,) each.
    """
    return _price_channel(high, low, first, n, remembered(2 * n), remembered(2 * n))


@numba.njit(cache=True, nogil=True)
def _price_channel(high, low, first, n, earlier_high, earlier_low):  # type: ignore[no-untyped-def]
    highest, lowest = np.empty(len(high)), np.empty(len(high))
    top_before, bottom_before = np.full(n, -np.inf), np.full(n, np.inf)
    i = 0
    while i < len(high):
        run, block = first[i], i - (i - first[i]) % n
        top, bottom = -np.inf, np.inf
        for k in range(1, n if block > run else 1):
            j = block - k
            top = _larger(top, high[j] if j >= 0 else earlier_high[2 * n + j])
            bottom = _smaller(bottom, low[j] if j >= 0 else earlier_low[2 * n + j])
            top_before[k], bottom_before[k] = top, bottom
        top, bottom = -np.inf, np.inf
        for j in range(block, i):
            top = _larger(top, high[j] if j >= 0 else earlier_high[2 * n + j])
            bottom = _smaller(bottom, low[j] if j >= 0 else earlier_low[2 * n + j])
        while i < min(block + n, len(high)) and first[i] == run:
            top, bottom = _larger(top, high[i]), _smaller(bottom, low[i])
            missing = block + n - 1 - i
            is_full = block > run or missing == 0
            highest[i] = _larger(top, top_before[missing]) if is_full else np.nan
            lowest[i] = _smaller(bottom, bottom_before[missing]) if is_full else np.nan
            i += 1
    keep_rows(high, earlier_high)
    keep_rows(low, earlier_low)
    return highest, lowest


@numba.njit(inline="always")
def _larger(a, b):  # type: ignore[no-untyped-def]
    return a if a > b else b  # one instruction; Python's max also looks for NaN


@numba.njit(inline="always")
def _smaller(a, b):  # type: ignore[no-untyped-def]
    return a if a < b else b


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
    out = np.empty(len(x))
    seen, state = memory
    for i in range(len(x)):
        if first[i] == i:
            seen, state = 0.0, 0.0
        seen, state, out[i] = average_step(seen, state, x[i], n, weight)
    memory[0], memory[1] = seen, state
    return out


@numba.njit(inline="always")
def average_step(seen, state, x, n, weight):  # type: ignore[no-untyped-def]
    """Take one value into a recursive average, inside a compiled pass.

    Args:
        seen: Values so far in the run.
        state: Their sum while `seen` is below n, then the average.
        x: The new value; NaN leaves all as it was.
        n: Values in the starting mean.
        weight: Weight of the newest value.

    Returns:
        The new `seen` and `state`, and the average, NaN in warm-up and where x is.
    """
    value = np.nan
    if not np.isnan(x):
        seen += 1.0
        if seen > n:
            state += weight * (x - state)
            value = state
        else:
            state += x
            if seen == n:
                state /= n
                value = state
    return seen, state, value


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
    return _lagged(np.asarray(x, dtype=np.float64), first, n, remembered(n))


@numba.njit(cache=True, nogil=True)
def _lagged(x: Float, first: Int, n: int, earlier: Float) -> Float:
    out = np.empty(len(x))
    for i in range(len(x)):
        j = i - n
        out[i] = (x[j] if j >= 0 else earlier[n + j]) if j >= first[i] else np.nan
    keep_rows(x, earlier)
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
    memory = active()
    if memory is None:
        kept, values, starts, _ = _finite_rows(x, first, 0)
        return (
            function(x, first, *arguments)
            if len(kept) == len(x)
            else _spread(function(values, starts, *arguments), kept, len(x))
        )
    inner = memory.slot(lambda: {"memory": Memory(), "start": 0})
    n_before = inner["memory"].n_rows
    kept, values, starts, start = _finite_rows(x, first, inner["start"] - n_before)
    inner["start"] = n_before + start
    if not len(kept):
        return np.full(len(x), np.nan)
    with inner["memory"].block(len(kept)):
        return _spread(function(values, starts, *arguments), kept, len(x))


@numba.njit(cache=True, nogil=True)
def _finite_rows(x: Float, first: Int, start: int) -> tuple[Int, Float, Int, int]:
    """Return positions and values of finite rows, and where in them the run of each began, of the last row too."""
    kept, starts = np.empty(len(x), dtype=np.int64), np.empty(len(x), dtype=np.int64)
    values = np.empty(len(x))
    n_kept = 0
    for i in range(len(x)):
        if first[i] == i:
            start = n_kept
        kept[n_kept], values[n_kept], starts[n_kept] = i, x[i], start
        n_kept += np.isfinite(x[i])
    return kept[:n_kept], values[:n_kept], starts[:n_kept], start


@numba.njit(cache=True, nogil=True)
def _spread(values: Float, kept: Int, n: int) -> Float:
    """Return n rows: the values at the positions that were kept, NaN elsewhere."""
    out, k = np.empty(n), 0
    for i in range(n):
        is_kept = k < len(kept) and kept[k] == i
        out[i] = values[k] if is_kept else np.nan
        k += is_kept
    return out
