"""The 24 features of the NQ models: 23 relative ones and the gap (FEAT-NQ-0..9)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, local_time
from trainables.features import bars as kit
from trainables.features import indicators
from trainables.features.bars import Bars
from trainables.features.indicators import change, ratio
from trainables.features.memory import earlier_rows, run_starts, running_max
from trainables.features.rolling import Float
from trainables.features.row import RowsOf
from trainables.features.settings import FeatureSettings


def close_location(bars: Bars) -> Float:
    """Return (C - L)/(H - L), 0.5 on a flat bar (FEAT-NQ-1)."""
    m = bars.market
    return ratio(m.close - m.low, m.high - m.low, 0.5)


def volume_delta(bars: Bars) -> Float:
    """Return the change of ln(1 + V), or V (2 x close location - 1) where `volume_delta` is `signed` (C-91)."""
    volume = bars.market.volume
    if bars.settings.volume_delta == "signed":
        return volume * (2.0 * close_location(bars) - 1.0)
    return change(np.log1p(volume), bars.first)


def opening_vwap(bars: Bars) -> Float:
    """Return the VWAP since the last 09:30 in New York; earlier bars go on with the day before's (IND-11).

    Cross-session; a segment's first bars start their own average.
    """
    return indicators.anchored_vwap(kit.typical_price(bars), bars.market.volume, opening_anchor(bars))


def opening_anchor(bars: Bars) -> NDArray[np.int64]:
    """Return the position of the first bar at or after the last 09:30 in New York, or of the segment's first bar."""
    day = kit.local_clock(bars) // NS_PER_DAY
    after_open = kit.local_minute(bars) >= bars.settings.clock.new_york_open_minute
    trading_day = running_max(np.where(after_open, day, np.iinfo(np.int64).min))
    return run_starts(bars.market.segment, trading_day)


def gap(bars: Bars) -> Float:
    """Return ln of the minutes since the bar before, 0 for a minute or less and for the first bar (FEAT-NQ-7, C-11)."""
    (event,), _, start = earlier_rows(bars.first, 1, bars.market.event_time)
    seconds = np.diff(event, prepend=event[:1])[start:] / NS_PER_SECOND
    return np.log1p(np.maximum(seconds / 60.0 - 1.0, 0.0))


def calendar_inputs(event_time: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return New York calendar positions for the positional embedding, and their phases (FEAT-NQ-8).

    Args:
        event_time: (n,) ns UTC, starts of bars.

    Returns:
        (n, 4) minute of day 0..1439, day of week 0 (Monday)..6, day of month - 1, day of year - 1; and (n, 4) their
        phases in radians, of periods 1440, 7, 31 and 365.25.
    """
    clock = local_time(event_time)
    day = clock // NS_PER_DAY
    date = day.astype("datetime64[D]")
    positions = np.stack(
        [
            clock % NS_PER_DAY // kit.NS_PER_MINUTE,
            (day + 3) % 7,
            (date - date.astype("datetime64[M]")).astype(np.int64),
            (date - date.astype("datetime64[Y]")).astype(np.int64),
        ],
        axis=1,
    )
    return positions, 2.0 * np.pi * positions / np.array([1440.0, 7.0, 31.0, 365.25])


def sma_deviation(position: int) -> Callable[[Bars], Float]:
    """Return the feature (C - SMA_n)/SMA_n, n being the window at a position of `sma_windows` (FEAT-NQ-3)."""

    def values(bars: Bars) -> Float:
        average = kit.sma(bars, bars.settings.sma_windows[position])
        return ratio(bars.market.close - average, average, 0.0)

    return values


def _directional(position: int) -> Callable[[Bars], Float]:
    return lambda bars: kit.directional_index(bars)[position] / 100.0


def commodity_channel(bars: Bars) -> Float:
    """Return CCI/100 (FEAT-NQ-4)."""
    m, s = bars.market, bars.settings.indicators
    return indicators.commodity_channel(m.high, m.low, m.close, bars.first, s.cci_n, s.cci_constant) / 100.0


def money_flow(bars: Bars) -> Float:
    """Return MFI/100 (FEAT-NQ-6)."""
    m = bars.market
    return indicators.money_flow(m.high, m.low, m.close, m.volume, bars.first, bars.settings.indicators.mfi_n) / 100.0


_row = RowsOf(family="nq", source="grok document 3.1", requirement="FEAT-NQ")


def _macd_lookback(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.macd_slow_n + s.indicators.macd_signal_n - 1


ROWS = (
    _row("log_return", "price", 1, 2, kit.log_return),
    _row("hl_range", "price", 1, 1, lambda b: ratio(b.market.high - b.market.low, b.market.close, 0.0)),
    _row("close_location", "price", 1, 1, close_location),
    _row("log_volume", "volume", 2, 1, lambda b: np.log1p(b.market.volume)),
    _row("volume_delta", "volume", 2, lambda s, per_session: 2 if s.volume_delta == "difference" else 1, volume_delta),
    _row(
        "dollar_volume",
        "volume",
        2,
        1,
        lambda b: np.log1p(b.settings.point_value_usd * b.market.close * b.market.volume),
    ),
    _row(
        "vwap_dev",
        "trend",
        3,
        1,
        lambda b: ratio(b.market.close - opening_vwap(b), opening_vwap(b), 0.0),
        scope="segment",
    ),
    _row("macd_hist", "trend", 3, _macd_lookback, lambda b: ratio(kit.macd(b)[2], b.market.close, 0.0)),
    *(
        _row(f"sma_dev_{k + 1}", "trend", 3, lambda s, per_session, k=k: s.sma_windows[k], sma_deviation(k))
        for k in range(6)
    ),
    _row("rsi", "momentum", 4, lambda s, per_session: s.indicators.rsi_n + 1, lambda b: (kit.rsi(b) - 50.0) / 50.0),
    _row("cci", "momentum", 4, lambda s, per_session: s.indicators.cci_n, commodity_channel),
    _row("plus_di", "momentum", 4, lambda s, per_session: s.indicators.adx_n + 1, _directional(0)),
    _row("minus_di", "momentum", 4, lambda s, per_session: s.indicators.adx_n + 1, _directional(1)),
    _row("adx", "momentum", 4, lambda s, per_session: 2 * s.indicators.adx_n, _directional(2)),
    _row(
        "atr_norm",
        "volatility",
        5,
        lambda s, per_session: s.indicators.atr_n + 1,
        lambda b: ratio(kit.atr(b), b.market.close, 0.0),
    ),
    _row("bb_pctb", "volatility", 5, lambda s, per_session: s.indicators.bollinger_n, kit.bollinger_position),
    _row("bb_bandwidth", "volatility", 5, lambda s, per_session: s.indicators.bollinger_n, kit.bollinger_bandwidth),
    _row("mfi", "volume_weighted", 6, lambda s, per_session: s.indicators.mfi_n + 1, money_flow),
    _row("gap", "gap", 7, 1, gap, scope="market"),
)
