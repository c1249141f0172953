"""The indicator kit IND-1..12: arrays in, arrays out.

`first` is as in `trainables.features.rolling`: no indicator looks across the start of a run. Results are NaN in
warm-up. A denominator below DEGENERATE gives the neutral value that the function states (IND-12).

TA-Lib (0.8) gives the CCI and judges the rest in tests. Its SMA, EMA, deviation, ATR and parabolic stop agree with the
specification, but keep running state inside one call, which cannot go on with the next bar (EXEC-3); called once per
session its checks of types cost more than the work (true range, highest, lowest). Compiled passes stand here instead.
So they do where TA-Lib differs:

- RSI, %K, MFI: 0 instead of 50 where prices are flat or nothing was traded.
- ADX, +DI, -DI: the Wilder sums start with n-1 values instead of n; the difference dies out as (1-1/n)^t.
- MACD: the fast average starts late, with the n values that end where the slow one starts.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import talib

from trainables.features.memory import active, earlier_rows, remembered
from trainables.features.rolling import (
    Float,
    Int,
    average_step,
    price_channel,
    recursive_average,
    rolling_mean,
    rolling_std,
)

DEGENERATE = 1e-12
"""Denominators of smaller size give the neutral value (IND-12)."""


TALIB_CCI_CONSTANT = 0.015
"""Lambert's constant inside TA-Lib."""


def ratio(numerator: Float, denominator: Float, neutral: float) -> Float:
    """Divide, with a neutral value where the denominator is degenerate (IND-12).

    Args:
        numerator: (n,) values.
        denominator: (n,) values, or a number.
        neutral: Result where abs(denominator) < DEGENERATE. NaN in either input stays NaN.

    Returns:
        (n,) quotients, finite wherever both inputs are.
    """
    x, y = (np.asarray(part, dtype=np.float64) for part in (numerator, denominator))
    if x.shape != y.shape:
        x, y = (part if part.ndim else np.full(x.shape or y.shape, part) for part in (x, y))
    return _ratio(x.ravel(), y.ravel(), float(neutral)).reshape(x.shape)


@numba.njit(cache=True, nogil=True)
def _ratio(x: Float, y: Float, neutral: float) -> Float:
    out = np.empty(len(x))
    for i in range(len(x)):
        out[i] = quotient(x[i], y[i], neutral)
    return out


@numba.njit(inline="always")
def quotient(x, y, neutral):  # type: ignore[no-untyped-def]
    """Divide two numbers as `ratio` does, inside a compiled pass."""
    degenerate = abs(y) < DEGENERATE
    divided = x / (1.0 if degenerate else y)
    return neutral if degenerate and not np.isnan(x) else divided


def by_run(function: Callable[..., Float], first: Int, *arrays: Float) -> Float:
    """Apply a TA-Lib function to each run on its own.

    Args:
        function: Takes as many arrays as given, returns one of the same length.
        first: (n,) start of each bar's run.
        *arrays: (n,) inputs.

    Returns:
        (n,) results.
    """
    starts = np.flatnonzero(first == np.arange(len(first)))
    ends = np.append(starts[1:], len(first))
    out = np.empty(len(first))
    for start, end in zip(starts, ends, strict=True):
        out[start:end] = function(*(x[start:end] for x in arrays))
    return out


def simple_average(x: Float, first: Int, n: int) -> Float:
    """Return the mean of the last n values (IND-1)."""
    return rolling_mean(x, first, n)


def exponential_average(x: Float, first: Int, n: int) -> Float:
    """Return the average of weight 2/(n+1), started with the mean of the first n values (IND-1)."""
    return recursive_average(x, first, n, 2.0 / (n + 1))


def wilder_average(x: Float, first: Int, n: int) -> Float:
    """Return the average of weight 1/n, started with the mean of the first n values (IND-1)."""
    return recursive_average(x, first, n, 1.0 / n)


def change(x: Float, first: Int) -> Float:
    """Return x_t - x_{t-1}, NaN at the first bar of a run."""
    return _change(np.asarray(x, dtype=np.float64), first, remembered(1))


@numba.njit(cache=True, nogil=True)
def _change(x: Float, first: Int, state: Float) -> Float:
    out = np.empty(len(x))
    before = state[0]
    for i in range(len(x)):
        out[i] = np.nan if first[i] == i else x[i] - before
        before = x[i]
    state[0] = before
    return out


def relative_strength(close: Float, first: Int, n: int) -> Float:
    """Return the relative strength index, 0..100, 50 where gains and losses are both 0 (IND-2).

    Written as 100 G/(G+L), which equals 100 - 100/(1 + G/L) and needs no case for L = 0.
    """
    return _relative_strength(close, first, n, remembered(5))


@numba.njit(cache=True, nogil=True)
def _relative_strength(close: Float, first: Int, n: int, state: Float) -> Float:
    out = np.empty(len(close))
    before, seen_gain, gain, seen_loss, loss = state
    for i in range(len(close)):
        move = close[i] - before
        if first[i] == i:
            move, seen_gain, gain, seen_loss, loss = np.nan, 0.0, 0.0, 0.0, 0.0
        before = close[i]
        # the sum keeps the NaN that a comparison would lose
        seen_gain, gain, mean_gain = average_step(seen_gain, gain, 0.5 * (abs(move) + move), n, 1.0 / n)
        seen_loss, loss, mean_loss = average_step(seen_loss, loss, 0.5 * (abs(move) - move), n, 1.0 / n)
        out[i] = quotient(100.0 * mean_gain, mean_gain + mean_loss, 50.0)
    state[0], state[1], state[2], state[3], state[4] = before, seen_gain, gain, seen_loss, loss
    return out


@numba.njit(inline="always")
def true_range(high, low, close_before):  # type: ignore[no-untyped-def]
    """Return max(H-L, |H-C_1|, |L-C_1|) of one bar (IND-3), NaN where there is no close before."""
    return max(high, close_before) - min(low, close_before)


def average_true_range(high: Float, low: Float, close: Float, first: Int, n: int) -> Float:
    """Return the Wilder average of the true range, from bar n of a run on (IND-3)."""
    return _average_true_range(high, low, close, first, n, remembered(3))


@numba.njit(cache=True, nogil=True)
def _average_true_range(high: Float, low: Float, close: Float, first: Int, n: int, state: Float) -> Float:
    out = np.empty(len(high))
    before, seen, average = state
    for i in range(len(high)):
        move = true_range(high[i], low[i], before)
        if first[i] == i:
            move, seen, average = np.nan, 0.0, 0.0
        before = close[i]
        seen, average, out[i] = average_step(seen, average, move, n, 1.0 / n)
    state[0], state[1], state[2] = before, seen, average
    return out


def directional_index(high: Float, low: Float, close: Float, first: Int, n: int) -> tuple[Float, Float, Float]:
    """Return +DI, -DI and ADX, each 0..100 and 0 where degenerate (IND-4).

    A directional move is the larger of the two outward moves of high and low where positive, else 0. All averages start
    with the mean of their first n values; TA-Lib starts its sums with n-1 values.
    Source: Wilder (1978), New Concepts in Technical Trading Systems.
    """
    return _directional_index(high, low, close, first, n, remembered(4, 2), remembered(3))


@numba.njit(cache=True, nogil=True)
def _directional_index(high, low, close, first, n, averages, before):  # type: ignore[no-untyped-def]
    plus_di, minus_di, adx = np.empty(len(high)), np.empty(len(high)), np.empty(len(high))
    (seen_up, mean_up), (seen_down, mean_down), (seen_range, mean_range), (seen_dx, mean_dx) = averages
    high_1, low_1, close_1 = before
    weight = 1.0 / n
    for i in range(len(high)):
        up, down, move = high[i] - high_1, low_1 - low[i], true_range(high[i], low[i], close_1)
        plus = up if up > down and up > 0.0 else 0.0
        minus = down if down > up and down > 0.0 else 0.0
        if first[i] == i:
            plus, minus, move = np.nan, np.nan, np.nan
            seen_up, seen_down, seen_range, seen_dx = 0.0, 0.0, 0.0, 0.0
            mean_up, mean_down, mean_range, mean_dx = 0.0, 0.0, 0.0, 0.0
        high_1, low_1, close_1 = high[i], low[i], close[i]
        seen_up, mean_up, up = average_step(seen_up, mean_up, plus, n, weight)
        seen_down, mean_down, down = average_step(seen_down, mean_down, minus, n, weight)
        seen_range, mean_range, atr = average_step(seen_range, mean_range, move, n, weight)
        plus, minus = quotient(100.0 * up, atr, 0.0), quotient(100.0 * down, atr, 0.0)
        dx = quotient(100.0 * abs(plus - minus), plus + minus, 0.0)
        seen_dx, mean_dx, adx[i] = average_step(seen_dx, mean_dx, dx, n, weight)
        plus_di[i], minus_di[i] = plus, minus
    averages[0, 0], averages[1, 0], averages[2, 0], averages[3, 0] = seen_up, seen_down, seen_range, seen_dx
    averages[0, 1], averages[1, 1], averages[2, 1], averages[3, 1] = mean_up, mean_down, mean_range, mean_dx
    before[0], before[1], before[2] = high_1, low_1, close_1
    return plus_di, minus_di, adx


def moving_average_convergence(
    close: Float, first: Int, fast_n: int, slow_n: int, signal_n: int
) -> tuple[Float, Float, Float]:
    """Return MACD line, signal and histogram (IND-5), each average started with its own first n values."""
    line, signal = _moving_average_convergence(close, first, fast_n, slow_n, signal_n, remembered(6))
    return line, signal, line - signal


@numba.njit(cache=True, nogil=True)
def _moving_average_convergence(close, first, fast_n, slow_n, signal_n, state):  # type: ignore[no-untyped-def]
    line, signal = np.empty(len(close)), np.empty(len(close))
    seen_fast, fast, seen_slow, slow, seen_signal, average = state
    for i in range(len(close)):
        if first[i] == i:
            seen_fast, fast, seen_slow, slow, seen_signal, average = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        seen_fast, fast, fast_now = average_step(seen_fast, fast, close[i], fast_n, 2.0 / (fast_n + 1))
        seen_slow, slow, slow_now = average_step(seen_slow, slow, close[i], slow_n, 2.0 / (slow_n + 1))
        line[i] = fast_now - slow_now
        seen_signal, average, signal[i] = average_step(
            seen_signal, average, line[i], signal_n, 2.0 / (signal_n + 1)
        )  # fmt: skip
    state[0], state[1], state[2] = seen_fast, fast, seen_slow
    state[3], state[4], state[5] = slow, seen_signal, average
    return line, signal


def bollinger(close: Float, first: Int, n: int, width: float) -> tuple[Float, Float, Float]:
    """Return lower band, middle and upper band: mean of n bars and `width` population deviations (IND-6)."""
    middle = simple_average(close, first, n)
    half = width * rolling_std(close, first, n)
    return middle - half, middle, middle + half


def stochastic(high: Float, low: Float, close: Float, first: Int, n: int) -> Float:
    """Return %K, 50 where the range is flat (IND-7)."""
    top, bottom = price_channel(high, low, first, n)
    return ratio(100.0 * (close - bottom), top - bottom, 50.0)


def commodity_channel(high: Float, low: Float, close: Float, first: Int, n: int, constant: float) -> Float:
    """Return (TP - mean TP)/(constant x mean absolute deviation), 0 where degenerate (IND-8).

    TA-Lib CCI, whose constant is 0.015. It sums a ring buffer from its first cell, so that the last bit depends on the
    bar's place in its run modulo n: earlier rows are given to it from a multiple of n on.
    """
    (high, low, close), first, start = earlier_rows(first, 2 * n, high, low, close)
    skipped = 0
    if active() is not None and first[0] < 0:
        skipped = int(min(first[0] % n, start, np.argmax(first >= 0) if (first >= 0).any() else start))
    high, low, close, first = (x[skipped:] for x in (high, low, close, np.maximum(first - skipped, 0)))
    index = by_run(lambda h, low_, c: talib.CCI(h, low_, c, n), first, high, low, close)
    return index[start - skipped :] * (TALIB_CCI_CONSTANT / constant)


def typical_price(high: Float, low: Float, close: Float) -> Float:
    """Return (H + L + C)/3."""
    return (high + low + close) / 3.0


def money_flow(high: Float, low: Float, close: Float, volume: Float, first: Int, n: int) -> Float:
    """Return the money flow index, 0..100, 50 where no money flowed (IND-9).

    Written as 100 P/(P+N) like `relative_strength`. Flow counts as positive where the typical price rose.
    """
    typical = typical_price(high, low, close)
    move = change(typical, first)
    flow = np.where(np.isnan(move), np.nan, typical * volume)
    positive = rolling_mean(np.where(move < 0, 0.0, np.where(move == 0, 0.0 * flow, flow)), first, n)
    negative = rolling_mean(np.where(move > 0, 0.0, np.where(move == 0, 0.0 * flow, flow)), first, n)
    return ratio(100.0 * positive, positive + negative, 50.0)


def parabolic_stop(high: Float, low: Float, first: Int, step: float, largest: float) -> Float:
    """Return Wilder's parabolic stop and reverse, from the second bar of a run on (IND-10); as TA-Lib's SAR.

    The first direction is down where the second bar's downward move is the larger outward one, else up.
    """
    return _parabolic_stop(high, low, first, step, largest, remembered(7))


@numba.njit(cache=True, nogil=True)
def _parabolic_stop(high: Float, low: Float, first: Int, step: float, largest: float, state: Float) -> Float:
    out = np.full(len(high), np.nan)
    age, is_long, factor, extreme, stop, high_1, low_1 = state
    for i in range(len(high)):
        if first[i] == i:
            age, high_1, low_1 = 0.0, high[i], low[i]
            continue
        if age == 0.0:
            up, down = high[i] - high_1, low_1 - low[i]
            is_long = 0.0 if down > up and down > 0.0 else 1.0
            age, factor = 1.0, min(step, largest)
            extreme, stop = (high[i], low_1) if is_long else (low[i], high_1)
            high_1, low_1 = high[i], low[i]
        turns = low[i] <= stop if is_long else high[i] >= stop
        if turns:
            is_long = 1.0 - is_long
            stop = min(extreme, low_1, low[i]) if is_long else max(extreme, high_1, high[i])
            factor, extreme = min(step, largest), high[i] if is_long else low[i]
        out[i] = stop
        if not turns and ((is_long and high[i] > extreme) or (not is_long and low[i] < extreme)):
            extreme = high[i] if is_long else low[i]
            factor = min(factor + step, largest)
        stop += factor * (extreme - stop)
        stop = min(stop, low_1, low[i]) if is_long else max(stop, high_1, high[i])
        high_1, low_1 = high[i], low[i]
    state[0], state[1], state[2], state[3], state[4], state[5], state[6] = (
        age, is_long, factor, extreme, stop, high_1, low_1,
    )  # fmt: skip
    return out


def anchored_vwap(typical: Float, volume: Float, anchor: Int) -> Float:
    """Return the volume-weighted average price since the anchor, current bar included (IND-11).

    Where no volume was traded since the anchor, the last value holds; an anchor bar without volume gives its own TP.

    Args:
        typical: (n,) typical prices.
        volume: (n,) traded volume; NaN gives NaN until the next anchor.
        anchor: (n,) position of each bar's anchor, as `first`.

    Returns:
        (n,) prices.
    """
    return _anchored_vwap(typical, volume, anchor, remembered(4))


@numba.njit(cache=True, nogil=True)
def _anchored_vwap(typical: Float, volume: Float, anchor: Int, state: Float) -> Float:
    out = np.empty(len(typical))
    money, total, base, last = state
    for i in range(len(typical)):
        if anchor[i] == i:
            # money is kept relative to the anchor's price: sums of differences lose no digits to the price level
            money, total, base, last = 0.0, 0.0, typical[i], typical[i]
        money += (typical[i] - base) * volume[i]
        total += volume[i]
        if np.isnan(total) or total > 0.0:
            last = base + money / total
        out[i] = last
    state[0], state[1], state[2], state[3] = money, total, base, last
    return out


def rolling_vwap(typical: Float, volume: Float, first: Int, n: int) -> Float:
    """Return the volume-weighted average price of the last n bars, their last TP where nothing traded (IND-11)."""
    total = rolling_mean(volume, first, n)
    weighted = ratio(rolling_mean(typical * volume, first, n), total, np.nan)
    return np.where(np.isnan(total) | (total >= DEGENERATE), weighted, typical)
