"""The one-second scalping set (FEAT-MES-1..10). Windows are in seconds; the bars must be of one second."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time

import numpy as np
from numpy.typing import NDArray

from trainables.data.config import DataConfig
from trainables.data.sessions import schedule
from trainables.data.zones import NS_PER_SECOND, instants
from trainables.features import bars as kit
from trainables.features.bars import Bars, over_recent, shared
from trainables.features.indicators import exponential_average, ratio
from trainables.features.memory import run_starts
from trainables.features.rolling import Float, lagged, price_channel, rolling_mean, rolling_std
from trainables.features.row import FeatureRow, Lookback, RowsOf, bars_needed
from trainables.features.schemas import MES_LEVELS, MES_WEEKDAY
from trainables.features.settings import FeatureSettings


def checked_seconds(bars: Bars, n: int) -> int:
    """Return n as a number of bars.

    Raises:
        ValueError: The bars are not of one second.
    """
    seconds = (bars.market.known_time[0] - bars.market.event_time[0]) / NS_PER_SECOND if len(bars) else 1.0
    if seconds != 1.0:
        raise ValueError(f"features: schema mes: expected bars of 1 s, found {seconds:g} s; choose another schema")
    return n


def _log_return_over(n: int) -> Callable[[Bars], Float]:
    def values(bars: Bars) -> Float:
        close = np.log(bars.market.close)
        return close - lagged(close, bars.first, checked_seconds(bars, n))

    return values


def _return_over(n: int) -> Callable[[Bars], Float]:
    def values(bars: Bars) -> Float:
        earlier = lagged(bars.market.close, bars.first, checked_seconds(bars, n))
        return ratio(bars.market.close - earlier, earlier, 0.0)

    return values


def _volatility_over(n: int) -> Callable[[Bars], Float]:
    return lambda bars: rolling_std(kit.log_return(bars), bars.first, checked_seconds(bars, n))


def _range_over(n: int) -> Callable[[Bars], Float]:
    def values(bars: Bars) -> Float:
        m, window = bars.market, checked_seconds(bars, n)
        top, bottom = price_channel(m.high, m.low, bars.first, window)
        return ratio(top - bottom, m.close, 0.0)

    return values


def _share_of_bar(part: Callable[[Bars], Float]) -> Callable[[Bars], Float]:
    return lambda bars: ratio(part(bars), bars.market.high - bars.market.low, 0.0)


def _share_of_close(part: Callable[[Bars], Float]) -> Callable[[Bars], Float]:
    return lambda bars: ratio(part(bars), bars.market.close, 0.0)


def volume_delta(bars: Bars) -> Float:
    """Return V over its mean - 1, 0 where nothing was traded (FEAT-MES-7)."""
    volume = bars.market.volume
    return ratio(volume, rolling_mean(volume, bars.first, checked_seconds(bars, bars.settings.surprise_n)), 1.0) - 1.0


@shared
def opening_phase(bars: Bars) -> Float:
    """Return the time since 09:30 in New York as an angle; a full turn is the length of regular hours (FEAT-MES-9)."""
    clock = bars.settings.clock
    period = clock.new_york_close_minute - clock.new_york_open_minute
    return 2.0 * np.pi * (kit.local_minute(bars) - clock.new_york_open_minute) / period


@shared
def minutes_to_close(bars: Bars) -> Float:
    """Return minutes from the start of the bar to the scheduled close of its trading day, half days included.

    Negative after the close. Days on which New York does not trade have the close of a full day.
    """
    event, day = bars.market.event_time, kit.trading_day(bars)
    close_minute = bars.settings.clock.new_york_close_minute
    close = instants(day, time(close_minute // 60, close_minute % 60))
    plan = schedule(DataConfig(), int(event[0]), int(event[-1]))
    position = np.minimum(np.searchsorted(plan.day, day), len(plan.day) - 1)
    close = np.where(plan.day[position] == day, np.minimum(close, plan.close[position]), close)
    return (close - event) / kit.NS_PER_MINUTE


def higher_bars(bars: Bars, seconds: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the higher bars of a session, and which one was last complete at each bar's end (DATA-12).

    Args:
        bars: Bars of one second.
        seconds: Length of a higher bar; it starts at a multiple of it and is visible from its end on.

    Returns:
        (n_higher,) position of the last bar of each; (n_higher,) `first` of their runs; (n_bars,) the last complete one
        of the same run, -1 where there is none.
    """
    market, length = bars.market, checked_seconds(bars, seconds) * NS_PER_SECOND
    bucket = market.event_time // length
    starts = run_starts(bars.first, bucket)
    firsts = np.flatnonzero(starts == np.arange(len(bars)))
    number = np.cumsum(starts == np.arange(len(bars))) - 1
    last = np.append(firsts[1:], len(bars)) - 1
    higher_first = run_starts(bars.first[firsts])
    is_complete = market.known_time >= (bucket + 1) * length
    complete = np.where(is_complete, number, number - 1)
    return last, higher_first, np.where(complete >= higher_first[number], complete, -1)


def _on_higher(seconds: int, function: Callable[[Bars, Float, NDArray[np.int64]], Float]) -> Callable[[Bars], Float]:
    @over_recent
    def values(bars: Bars) -> Float:
        last, first, complete = higher_bars(bars, seconds)
        higher = function(bars, bars.market.close[last], first)
        return np.where(complete >= 0, higher[np.maximum(complete, 0)], np.nan)

    return values


def _trend(bars: Bars, close: Float, first: NDArray[np.int64]) -> Float:
    s = bars.settings
    fast, slow = (exponential_average(close, first, n) for n in (s.higher_fast_n, s.higher_slow_n))
    return ratio(fast - slow, close, 0.0)


def _momentum(bars: Bars, close: Float, first: NDArray[np.int64]) -> Float:
    earlier = lagged(close, first, bars.settings.higher_momentum_n)
    return ratio(close - earlier, earlier, 0.0)


def _higher_lookback(seconds: int, bars_of: Callable[[FeatureSettings], int]) -> Lookback:
    return lambda s, per_session: seconds * bars_of(s)


_row = RowsOf(family="mes", source="scalper document, Feature Engineering", requirement="FEAT-MES")


def _bollinger_lookback(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.bollinger_n


def _signal_lookback(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.macd_slow_n + s.indicators.macd_signal_n - 1


def _macd(position: int) -> Callable[[Bars], Float]:
    return _share_of_close(lambda bars: kit.macd(bars)[position])


def _ema_deviation(n: int) -> Callable[[Bars], Float]:
    return _share_of_close(lambda bars: bars.market.close - kit.ema(bars, n))


def _level(name: str) -> FeatureRow:
    return FeatureRow(
        name=name,
        family="mes",
        group="level",
        lookback=bars_needed(1),
        source="scalper document, Preprocessing",
        requirement="DATA-11",
        function=lambda bars: getattr(bars.market, name),
        kind="price",
    )


def _weekday(number: int) -> Callable[[Bars], Float]:
    return lambda bars: (kit.weekday(bars) == number).astype(np.float64)


RETURN_SECONDS = (1, 5, 10, 30, 60)
RANGE_SECONDS = (1, 30, 60, 300)
COMPLETED = "end of the higher bar"

ROWS = (
    *(_row(f"return_{n}s", "price", 1, n + 1, _return_over(n)) for n in RETURN_SECONDS),
    *(_row(f"log_return_{n}s", "price", 2, n + 1, _log_return_over(n)) for n in RETURN_SECONDS),
    *(_row(f"momentum_{n}m", "price", 3, 60 * n + 1, _log_return_over(60 * n)) for n in (1, 5, 15)),
    *(_row(f"volatility_{n}s", "price", 4, n + 1, _volatility_over(n)) for n in (30, 60, 300)),
    *(_row(f"range_{n}s", "price", 5, n, _range_over(n)) for n in RANGE_SECONDS),
    _row("direction", "microstructure", 6, 1, lambda b: np.sign(b.market.close - b.market.open), "category"),
    _row(
        "upper_wick",
        "microstructure",
        6,
        1,
        _share_of_bar(lambda b: b.market.high - np.maximum(b.market.open, b.market.close)),
    ),
    _row(
        "lower_wick",
        "microstructure",
        6,
        1,
        _share_of_bar(lambda b: np.minimum(b.market.open, b.market.close) - b.market.low),
    ),
    _row("body", "microstructure", 6, 1, _share_of_bar(lambda b: np.abs(b.market.close - b.market.open))),
    _row("volume_delta", "microstructure", 7, lambda s, per_session: s.surprise_n, volume_delta),
    *(_row(f"ema_dev_{n}", "technical", 8, n, _ema_deviation(n)) for n in (9, 21, 50, 200)),
    _row("rsi", "technical", 8, lambda s, per_session: s.indicators.rsi_n + 1, kit.rsi),
    _row("macd_line", "technical", 8, lambda s, per_session: s.indicators.macd_slow_n, _macd(0)),
    _row("macd_signal", "technical", 8, _signal_lookback, _macd(1)),
    _row("macd_histogram", "technical", 8, _signal_lookback, _macd(2)),
    _row("bb_position", "technical", 8, _bollinger_lookback, kit.bollinger_position),
    _row("bb_bandwidth", "technical", 8, _bollinger_lookback, kit.bollinger_bandwidth),
    _row("atr_norm", "technical", 8, lambda s, per_session: s.indicators.atr_n + 1, _share_of_close(kit.atr)),
    _row("vwap_dev", "technical", 8, 1, lambda b: ratio(b.market.close, kit.session_vwap(b), 1.0) - 1.0),
    _row("open_sin", "time", 9, 1, lambda b: np.sin(opening_phase(b)), known="always"),
    _row("open_cos", "time", 9, 1, lambda b: np.cos(opening_phase(b)), known="always"),
    _row("minutes_to_close", "time", 9, 1, minutes_to_close, known="always"),
    *(_row(name, "time", 9, 1, _weekday(i), "category", "always") for i, name in enumerate(MES_WEEKDAY)),
    _row("weekday_sin", "time", 9, 1, lambda b: np.sin(2.0 * np.pi * kit.weekday(b) / 5.0), known="always"),
    _row("weekday_cos", "time", 9, 1, lambda b: np.cos(2.0 * np.pi * kit.weekday(b) / 5.0), known="always"),
    *(_level(name) for name in MES_LEVELS),
    *(
        _row(
            f"trend_{n}min",
            "higher",
            10,
            _higher_lookback(60 * n, lambda s: max(s.higher_fast_n, s.higher_slow_n)),
            _on_higher(60 * n, _trend),
            known=COMPLETED,
        )
        for n in (1, 5)
    ),
    *(
        _row(
            f"higher_momentum_{n}min",
            "higher",
            10,
            _higher_lookback(60 * n, lambda s: s.higher_momentum_n + 1),
            _on_higher(60 * n, _momentum),
            known=COMPLETED,
        )
        for n in (1, 5)
    ),
)
