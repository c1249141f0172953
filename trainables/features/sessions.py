"""Values per session, and how bars may use them: a session's own value is known when it is over (DATA-10, DATA-21)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from trainables.features.bars import Bars, shared, typical_price, weekday
from trainables.features.indicators import DEGENERATE, ratio
from trainables.features.rolling import Float, Int, rolling_mean


@shared
def bounds(bars: Bars) -> tuple[Int, Int]:
    """Return position of the first bar of each session, and of the bar after its last; segments cut sessions."""
    starts = np.flatnonzero(bars.session_first == np.arange(len(bars)))
    return starts, np.append(starts[1:], len(bars))


@shared
def ordinal(bars: Bars) -> Int:
    """Return the number of each bar's session among those of `bounds`."""
    return np.cumsum(bars.session_first == np.arange(len(bars))) - 1


def known_of_sessions(values: Float, bars: Bars) -> Float:
    """Give each bar the value of the last session that is over when the bar ends.

    Args:
        values: (n_sessions,) or (n_sessions, k), each computed from its own session and earlier ones.
        bars: The bars. Where a session is one bar it is over with that bar; else the previous session's value counts.

    Returns:
        (n_bars,) or (n_bars, k), NaN where no session is over.
    """
    at = ordinal(bars) if bars.market.bars_per_session == 1 else ordinal(bars) - 1
    known = values[np.maximum(at, 0)]
    return np.where((at >= 0).reshape(-1, *[1] * (values.ndim - 1)), known, np.nan)


@shared
def session_returns(bars: Bars) -> Float:
    """Return the log return from close to close of each session, NaN for the first of a segment."""
    return _change_between_sessions(np.log(bars.market.close), bars)


def _change_between_sessions(x: Float, bars: Bars) -> Float:
    starts, ends = bounds(bars)
    last = x[ends - 1]
    change = np.diff(last, prepend=np.nan)
    change[bars.segment_first[starts] == starts] = np.nan
    return change


def volatility_correlation(bars: Bars) -> Float:
    """Return the correlation of session returns and changes of log implied volatility (FEAT-SC-3); 0 where degenerate.

    Over the last `vix_correlation_n` sessions that are over and have both.
    """
    n, iv = bars.settings.vix_correlation_n, bars.market.iv
    volatility = np.log(np.where(iv > 0, iv, np.nan))
    pairs = np.stack([session_returns(bars), _change_between_sessions(volatility, bars)])
    has_both = np.isfinite(pairs).all(axis=0)
    values = np.full(max(int(has_both.sum()), n - 1) + 1, np.nan)
    if has_both.sum() >= n:
        windows = sliding_window_view(pairs[:, has_both], n, axis=1)
        x, y = windows - windows.mean(axis=2, keepdims=True)
        values[n : len(x) + n] = ratio((x * y).sum(axis=1), np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1)), 0.0)
    return known_of_sessions(values[np.cumsum(has_both)], bars)


def weekday_effect(bars: Bars) -> Float:
    """Return the mean return of the last `weekday_n` sessions of the same weekday before this session (FEAT-SC-3)."""
    starts, _ = bounds(bars)
    returns, day, n = session_returns(bars), weekday(bars)[starts], bars.settings.weekday_n
    effect = np.full(len(returns), np.nan)
    for number in range(7):
        of_day = np.flatnonzero(day == number)
        kept = of_day[~np.isnan(returns[of_day])]
        means = np.append(np.nan, rolling_mean(returns[kept], np.zeros(len(kept), dtype=np.int64), n))
        effect[of_day] = means[np.searchsorted(kept, of_day)]
    return effect[ordinal(bars)]


def close_sessions_ago(bars: Bars, n: int) -> Float:
    """Return the close n sessions earlier at the same time after the open, or the latest before it (FEAT-SC-1).

    Cross-session inside a segment; NaN where the segment has no such session.
    """
    starts, ends = bounds(bars)
    at, event = ordinal(bars), bars.market.event_time
    earlier = np.maximum(at - n, 0)
    target = event[starts[earlier]] + event - event[starts[at]]
    position = np.minimum(np.searchsorted(event, target, side="right") - 1, ends[earlier] - 1)
    has_one = (at >= n) & (starts[earlier] >= bars.segment_first)
    return np.where(has_one, bars.market.close[position], np.nan)


@numba.njit(cache=True, nogil=True)
def value_areas(price: Float, volume: Float, starts: Int, ends: Int, n_bins: int, share: float) -> Float:
    """Return point of control, value-area high and value-area low of the volume profile of each stretch of bars.

    A bar's volume counts at its price. The area grows from the fullest bin by the fuller neighbour (the lower one where
    equal) until it holds the share. Without volume every bar counts once. Source: Steidlmayer (1986), Market Profile.

    Args:
        price: (n_bars,) prices.
        volume: (n_bars,) volumes; NaN counts as 0.
        starts: (m,) first position of each stretch.
        ends: (m,) position after its last.
        n_bins: Bins between the lowest and the highest price.
        share: Share of volume in the area.

    Returns:
        (m, 3) prices; NaN for empty stretches.
    """
    out = np.full((len(starts), 3), np.nan)
    for k in range(len(starts)):
        start, end = starts[k], ends[k]
        if end <= start:
            continue
        low, high = price[start:end].min(), price[start:end].max()
        if high - low < DEGENERATE:
            out[k, :] = price[start]
            continue
        width = (high - low) / n_bins
        counted = np.nansum(volume[start:end]) > 0.0
        filled = np.zeros(n_bins)
        for i in range(start, end):
            weight = volume[i] if counted else 1.0
            if weight > 0.0:
                filled[min(int((price[i] - low) / width), n_bins - 1)] += weight
        top = np.argmax(filled)
        bottom_bin, top_bin, held = top, top, filled[top]
        while held < share * filled.sum():
            below = filled[bottom_bin - 1] if bottom_bin > 0 else -1.0
            above = filled[top_bin + 1] if top_bin < n_bins - 1 else -1.0
            if below >= above:
                bottom_bin -= 1
                held += below
            else:
                top_bin += 1
                held += above
        out[k, 0] = low + (top + 0.5) * width
        out[k, 1] = low + (top_bin + 1) * width
        out[k, 2] = low + bottom_bin * width
    return out


@shared
def profile(bars: Bars) -> Float:
    """Return (n_bars, 3): point of control, value-area high and low of the last session that is over (FEAT-SC-3).

    Where a session is one bar: of the `profile_daily_n` bars before this one, fewer at the start of a segment.
    """
    s, price, volume = bars.settings, typical_price(bars), bars.market.volume
    if bars.market.bars_per_session == 1:
        here = np.arange(len(bars))
        starts = np.maximum(here - s.profile_daily_n, bars.segment_first)
        return value_areas(price, volume, starts, here, s.profile_bins, s.value_area_frac)
    starts, ends = bounds(bars)
    areas = known_of_sessions(value_areas(price, volume, starts, ends, s.profile_bins, s.value_area_frac), bars)
    return np.where((bars.session_first > bars.segment_first)[:, None], areas, np.nan)


@numba.njit(cache=True, nogil=True)
def opening_range(high: Float, low: Float, first: Int, n: int) -> tuple[Float, Float]:
    """Return highest high and lowest low of a run's first n bars, as far as they have passed."""
    top, bottom = np.empty(len(high)), np.empty(len(high))
    for i in range(len(high)):
        if first[i] == i:
            top[i], bottom[i] = high[i], low[i]
        elif i - first[i] < n:
            top[i], bottom[i] = max(top[i - 1], high[i]), min(bottom[i - 1], low[i])
        else:
            top[i], bottom[i] = top[i - 1], bottom[i - 1]
    return top, bottom


def opening_range_position(bars: Bars) -> Float:
    """Return (C - low)/(high - low) of the session's opening range, 0.5 where it is flat (FEAT-SC-6)."""
    m = bars.market
    top, bottom = opening_range(m.high, m.low, bars.session_first, bars.settings.clock.range_bars)
    return ratio(m.close - bottom, top - bottom, 0.5)


def closing_range_position(bars: Bars) -> Float:
    """Return (C - low)/(high - low) of the last bars of the session before, 0.5 where flat (FEAT-SC-6)."""
    m, n = bars.market, bars.settings.clock.range_bars
    starts, ends = bounds(bars)
    spans = [slice(max(start, end - n), end) for start, end in zip(starts, ends, strict=True)]
    ranges = np.array([(m.high[span].max(), m.low[span].min()) for span in spans])
    before = np.vstack([np.full((1, 2), np.nan), ranges[:-1]])[ordinal(bars)]
    before[bars.session_first == bars.segment_first] = np.nan
    return ratio(m.close - before[:, 1], before[:, 0] - before[:, 1], 0.5)
