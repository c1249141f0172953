"""Values per session, and how bars may use them: a session's own value is known when it is over (DATA-10, DATA-21)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from trainables.features.bars import Bars, over_recent, shared, typical_price, weekday
from trainables.features.indicators import DEGENERATE, ratio
from trainables.features.memory import remembered
from trainables.features.rolling import Float, Int

MOMENTUM_SESSIONS = (3, 5)
"""Sessions that `price_mom_3d` and `price_mom_5d` look back (FEAT-SC-1)."""


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


def session_edges(bars: Bars) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where sessions and where segments begin."""
    here = np.arange(len(bars))
    return bars.session_first == here, bars.segment_first == here


@shared
def volatility_correlation(bars: Bars) -> Float:
    """Return the correlation of session returns and changes of log implied volatility (FEAT-SC-3); 0 where degenerate.

    Over the last `vix_correlation_n` sessions that are over and have both; changes are of closes inside a segment.
    """
    m, n = bars.market, bars.settings.vix_correlation_n
    volatility = np.log(np.where(m.iv > 0, m.iv, np.nan))
    is_daily = m.bars_per_session == 1
    return _correlations(
        np.log(m.close), volatility, *session_edges(bars), is_daily, remembered(n, 2), remembered(7)
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _correlations(price: Float, volatility: Float, new_session, new_segment, is_daily, ring, state):  # type: ignore[no-untyped-def]
    """Pass over bars; `ring` holds the last pairs of changes, `state` their count, levels and the latest value.

    A session that is one bar is over with it; a longer one is over when the next begins.
    """
    out = np.empty(len(price))
    count, before, before_volatility, last, last_volatility, value, has_begun = state
    if not has_begun:
        before, before_volatility, last, last_volatility, value = np.nan, np.nan, np.nan, np.nan, np.nan
    for i in range(len(price)):
        if new_session[i] and not is_daily:
            count, value = _with_pair(ring, count, last - before, last_volatility - before_volatility, value)
            before, before_volatility = last, last_volatility
        if new_segment[i]:
            before, before_volatility = np.nan, np.nan
        last, last_volatility = price[i], volatility[i]
        if is_daily:
            count, value = _with_pair(ring, count, last - before, last_volatility - before_volatility, value)
            before, before_volatility = last, last_volatility
        out[i] = value
    state[0], state[1], state[2], state[3], state[4], state[5], state[6] = (
        count, before, before_volatility, last, last_volatility, value, 1.0,
    )  # fmt: skip
    return out


@numba.njit(cache=True, nogil=True)
def _with_pair(ring, count, x, y, value):  # type: ignore[no-untyped-def]
    """Add a pair of changes, if both are known, and return the number of pairs and the correlation of the last ones."""
    n = len(ring)
    if np.isnan(x) or np.isnan(y):
        return count, value
    ring[int(count) % n] = x, y
    count += 1.0
    if count < n:
        return count, value
    mean_x, mean_y, xx, yy, xy = 0.0, 0.0, 0.0, 0.0, 0.0
    for k in range(n):
        pair = ring[(int(count) + k) % n]
        mean_x, mean_y = mean_x + pair[0] / n, mean_y + pair[1] / n
    for k in range(n):
        pair = ring[(int(count) + k) % n]
        dx, dy = pair[0] - mean_x, pair[1] - mean_y
        xx, yy, xy = xx + dx * dx, yy + dy * dy, xy + dx * dy
    scale = np.sqrt(xx * yy)
    return count, xy / scale if scale >= DEGENERATE else 0.0


@shared
def weekday_effect(bars: Bars) -> Float:
    """Return the mean return of the last `weekday_n` sessions of the same weekday before this session (FEAT-SC-3)."""
    n = bars.settings.weekday_n
    return _weekday_means(
        np.log(bars.market.close), weekday(bars), *session_edges(bars), remembered(7, n), remembered(12)
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _weekday_means(price: Float, day: Int, new_session, new_segment, ring, state):  # type: ignore[no-untyped-def]
    """Pass over bars; `ring` holds the last returns of each weekday, `state` their counts and the present values."""
    out = np.empty(len(price))
    n = ring.shape[1]
    before, last, today, value = state[7], state[8], int(state[9]), state[10]
    if not state[11]:
        before, last, value = np.nan, np.nan, np.nan
    for i in range(len(price)):
        if new_session[i]:
            if not np.isnan(last - before):
                ring[today, int(state[today]) % n] = last - before
                state[today] += 1.0
            before = np.nan if new_segment[i] else last
            today, value = day[i], np.nan
            if state[today] >= n:
                value = 0.0
                for k in range(n):
                    value += ring[today, (int(state[today]) + k) % n]
                value /= n
        last = price[i]
        out[i] = value
    state[7], state[8], state[9], state[10], state[11] = before, last, today, value, 1.0
    return out


@over_recent
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
@over_recent
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


@over_recent
def opening_range_position(bars: Bars) -> Float:
    """Return (C - low)/(high - low) of the session's opening range, 0.5 where it is flat (FEAT-SC-6)."""
    m = bars.market
    top, bottom = opening_range(m.high, m.low, bars.session_first, bars.settings.clock.range_bars)
    return ratio(m.close - bottom, top - bottom, 0.5)


@over_recent
def closing_range_position(bars: Bars) -> Float:
    """Return (C - low)/(high - low) of the last bars of the session before, 0.5 where flat (FEAT-SC-6)."""
    m, n = bars.market, bars.settings.clock.range_bars
    starts, ends = bounds(bars)
    spans = [slice(max(start, end - n), end) for start, end in zip(starts, ends, strict=True)]
    ranges = np.array([(m.high[span].max(), m.low[span].min()) for span in spans])
    before = np.vstack([np.full((1, 2), np.nan), ranges[:-1]])[ordinal(bars)]
    before[bars.session_first == bars.segment_first] = np.nan
    return ratio(m.close - before[:, 1], before[:, 0] - before[:, 1], 0.5)
