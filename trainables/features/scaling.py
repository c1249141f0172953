"""The feature sets of the scaling document: 10, 20, 26 and 30+ columns (FEAT-SC-1..6).

Windows count bars, which are minutes on the one-minute bars of the document and days on daily bars. Price levels are
given relative to the close unless `levels_mode` is `raw` (C-16).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainables.features import bars as kit
from trainables.features import sessions
from trainables.features.bars import Bars, shared
from trainables.features.indicators import ratio, rolling_vwap
from trainables.features.memory import at_start, run_starts
from trainables.features.rolling import Float, lagged, over_finite, rolling_mean, rolling_std
from trainables.features.row import FeatureRow, RowsOf
from trainables.features.settings import FeatureSettings


def level(part: Callable[[Bars], Float]) -> Callable[[Bars], Float]:
    """Return a feature that is a price level: level/C - 1, or the level itself (C-16)."""

    def values(bars: Bars) -> Float:
        return part(bars) if bars.settings.levels_mode == "raw" else part(bars) / bars.market.close - 1.0

    return values


def distance(part: Callable[[Bars], Float]) -> Callable[[Bars], Float]:
    """Return a feature that is a difference of prices: difference/C, or the difference itself (C-16)."""

    def values(bars: Bars) -> Float:
        return part(bars) if bars.settings.levels_mode == "raw" else part(bars) / bars.market.close

    return values


def relative_change(x: Float, bars: Bars, neutral: float = 0.0) -> Float:
    """Return x/x_1 - 1 inside a run, 0 where x_1 is 0."""
    before = lagged(x, bars.first, 1)
    return ratio(x - before, before, neutral)


@shared
def vwap(bars: Bars, n: int) -> Float:
    """Return the rolling VWAP of n bars."""
    return rolling_vwap(kit.typical_price(bars), bars.market.volume, bars.first, n)


def short_vwap(bars: Bars) -> Float:
    """Return the VWAP of `vwap_short_n` bars."""
    return vwap(bars, bars.settings.vwap_short_n)


def long_vwap(bars: Bars) -> Float:
    """Return the VWAP of `vwap_long_n` bars."""
    return vwap(bars, bars.settings.vwap_long_n)


def _close_to(average: Callable[[Bars], Float]) -> Callable[[Bars], Float]:
    return lambda bars: ratio(bars.market.close, average(bars), 1.0) - 1.0


def _session_momentum(n: int) -> Callable[[Bars], Float]:
    return lambda bars: bars.market.close / sessions.close_sessions_ago(bars, n) - 1.0


def volatility_regime(bars: Bars) -> Float:
    """Return the short deviation of returns over its long mean, which is cross-session (FEAT-SC-3)."""
    s = bars.settings
    short = rolling_std(kit.log_return(bars), bars.first, s.volatility_n)
    long = over_finite(rolling_mean, short, bars.segment_first, regime_n(s, bars.market.bars_per_session))
    return ratio(short, long, 1.0)


def regime_n(settings: FeatureSettings, per_session: int) -> int:
    """Return the bars in the long mean of `volatility_regime`."""
    return settings.scaling_regime_n * min(settings.scaling_regime_bars, per_session)


def volume_weighted_price(bars: Bars) -> Float:
    """Return (C - long VWAP)/ATR (FEAT-SC-3)."""
    return ratio(bars.market.close - long_vwap(bars), kit.atr(bars), 0.0)


def profile_signal(bars: Bars) -> Float:
    """Return (C - POC)/(VAH - VAL), 0 where the value area has no width (FEAT-SC-3)."""
    control, high, low = sessions.profile(bars).T
    return ratio(bars.market.close - control, high - low, 0.0)


def _profile(position: int) -> Callable[[Bars], Float]:
    return lambda bars: sessions.profile(bars)[:, position]


def order_flow_imbalance(bars: Bars) -> Float:
    """Return the sum of V sign(change of C) over the sum of V, 0 where nothing was traded (FEAT-SC-5)."""
    n, volume = bars.settings.imbalance_n, bars.market.volume
    sign = np.sign(kit.log_return(bars))
    signed, total = (rolling_mean(x, bars.first, n) for x in (volume * sign, volume + 0.0 * sign))
    return ratio(signed, total, 0.0)


@shared
def clock_session(bars: Bars) -> Float:
    """Return 0 in the Asian, 1 in the European, 2 in the New York session by the clock (FEAT-SC-6).

    New York lasts until Asia opens, so that every bar belongs to one.
    """
    minute, clock = kit.local_minute(bars), bars.settings.clock
    opened = np.select(
        [minute >= clock.asia_open_minute, minute >= clock.new_york_open_minute, minute >= clock.europe_open_minute],
        [0.0, 2.0, 1.0],
        default=0.0,
    )
    return opened


def session_momentum(bars: Bars) -> Float:
    """Return C over the open of the current clock session's first bar, minus 1 (FEAT-SC-3)."""
    m = bars.market
    return m.close / at_start(m.open, run_starts(m.segment, m.session, clock_session(bars))) - 1.0


def _in_session(number: int) -> Callable[[Bars], Float]:
    return lambda bars: (clock_session(bars) == number).astype(np.float64)


def _between(start: str, end: str) -> Callable[[Bars], Float]:
    def values(bars: Bars) -> Float:
        minute, clock = kit.local_minute(bars), bars.settings.clock
        return ((minute >= getattr(clock, start)) & (minute < getattr(clock, end))).astype(np.float64)

    return values


def _on_weekdays(*numbers: int) -> Callable[[Bars], Float]:
    return lambda bars: np.isin(kit.weekday(bars), numbers).astype(np.float64)


_row = RowsOf(family="scaling", source="scaling document", requirement="FEAT-SC")


def _flag(name: str, function: Callable[[Bars], Float]) -> FeatureRow:
    return _row(name, "time", 6, 1, function, kind="category", known="always")


def _short(s: FeatureSettings, per_session: int) -> int:
    return s.vwap_short_n


def _long(s: FeatureSettings, per_session: int) -> int:
    return s.vwap_long_n


def _signal(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.macd_slow_n + s.indicators.macd_signal_n - 1


def _bands(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.bollinger_n


def _profile_lookback(s: FeatureSettings, per_session: int) -> int:
    return 2 if per_session == 1 else per_session + 1


BEFORE = "previous session's close"

ROWS = (
    _row("close_change_pct", "baseline", 1, 2, lambda b: relative_change(b.market.close, b)),
    _row("vwap", "baseline", 1, 1, level(kit.session_vwap)),
    _row("price_range", "baseline", 1, 1, distance(lambda b: b.market.high - b.market.low)),
    *(
        _row(
            f"price_mom_{n}d",
            "baseline",
            1,
            lambda s, per_session, n=n: n * per_session + 1,
            _session_momentum(n),
            scope="segment",
        )
        for n in sessions.MOMENTUM_SESSIONS
    ),
    _row("close_to_vwap_15", "baseline", 1, _short, _close_to(short_vwap)),
    _row("close_to_vwap_60", "baseline", 1, _long, _close_to(long_vwap)),
    _row("volume_change_1", "baseline", 1, 2, lambda b: relative_change(b.market.volume, b)),
    _row("vwap_15", "baseline", 1, _short, level(short_vwap)),
    _row("vwap_60", "baseline", 1, _long, level(long_vwap)),
    _row("rsi_14", "phase_1", 2, lambda s, per_session: s.indicators.rsi_n + 1, kit.rsi),
    _row("macd_line", "phase_1", 2, lambda s, _: s.indicators.macd_slow_n, distance(lambda b: kit.macd(b)[0])),
    _row("macd_signal", "phase_1", 2, _signal, distance(lambda b: kit.macd(b)[1])),
    _row("macd_histogram", "phase_1", 2, _signal, distance(lambda b: kit.macd(b)[2])),
    _row("bb_upper", "phase_1", 2, _bands, level(lambda b: kit.bollinger(b)[2])),
    _row("bb_lower", "phase_1", 2, _bands, level(lambda b: kit.bollinger(b)[0])),
    _row("bb_position", "phase_1", 2, _bands, kit.bollinger_position),
    _row("stoch_k", "phase_1", 2, lambda s, _: s.indicators.stochastic_n, kit.stochastic_k),
    _row(
        "stoch_d",
        "phase_1",
        2,
        lambda s, _: s.indicators.stochastic_n + s.indicators.stochastic_d_n - 1,
        kit.stochastic_d,
    ),
    _row("atr_14", "phase_1", 2, lambda s, _: s.indicators.atr_n + 1, distance(kit.atr)),
    _row(
        "volatility_regime",
        "phase_2",
        3,
        lambda s, per_session: s.volatility_n + regime_n(s, per_session),
        volatility_regime,
        scope="segment",
    ),
    _row(
        "vix_correlation",
        "phase_2",
        3,
        lambda s, per_session: (s.vix_correlation_n + 1) * per_session + (per_session > 1),
        sessions.volatility_correlation,
        scope="market",
        known=BEFORE,
    ),
    _row(
        "volume_weighted_price",
        "phase_2",
        3,
        lambda s, _: max(s.vwap_long_n, s.indicators.atr_n + 1),
        volume_weighted_price,
    ),
    _row("volume_profile_signal", "phase_2", 3, _profile_lookback, profile_signal, scope="segment"),
    _row("session_momentum", "phase_2", 3, 1, session_momentum),
    _row(
        "day_of_week_effect",
        "phase_2",
        3,
        lambda s, per_session: (5 * s.weekday_n + 1) * per_session + 1,
        sessions.weekday_effect,
        scope="market",
        known=BEFORE,
    ),
    _row("profile_poc", "microstructure", 5, _profile_lookback, level(_profile(0)), scope="segment"),
    _row("profile_vah", "microstructure", 5, _profile_lookback, level(_profile(1)), scope="segment"),
    _row("profile_val", "microstructure", 5, _profile_lookback, level(_profile(2)), scope="segment"),
    _row(
        "profile_width",
        "microstructure",
        5,
        _profile_lookback,
        distance(lambda b: sessions.profile(b)[:, 1] - sessions.profile(b)[:, 2]),
        scope="segment",
    ),
    _row("order_flow_imbalance", "microstructure", 5, lambda s, _: s.imbalance_n + 1, order_flow_imbalance),
    _flag("asia_session", _in_session(0)),
    _flag("europe_session", _in_session(1)),
    _flag("new_york_session", _in_session(2)),
    _flag("asia_europe_overlap", _between("europe_open_minute", "asia_close_minute")),
    _flag("europe_new_york_overlap", _between("new_york_open_minute", "europe_close_minute")),
    _flag("monday", _on_weekdays(0)),
    _flag("friday", _on_weekdays(4)),
    _flag("midweek", _on_weekdays(1, 2, 3)),
    _row("opening_range_position", "time", 6, 1, sessions.opening_range_position),
    _row(
        "closing_range_position",
        "time",
        6,
        lambda s, per_session: per_session + 1,
        sessions.closing_range_position,
        scope="segment",
    ),
    _flag("lunch_hour", _between("lunch_start_minute", "lunch_end_minute")),
)
