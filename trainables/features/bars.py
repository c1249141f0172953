"""A market while its features are computed: intermediates that several features need are computed once.

Runs. A window, a recursion or a return may not look across the start of its run (DATA-10):

- `bars.first`: a run is a segment, cut at sessions too where a session has several bars. The rule for features of scope
  `session` (`row.Scope`). Where a session is one bar (daily bars), sessions do not cut.
- `bars.segment_first`: a run is a segment (cut at rolls and holes only): for features of scope `segment`. They pass
  over the first bar of a session, which has no return, with `rolling.over_finite`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numba
import numpy as np

from trainables.data.market import Market
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, local_time
from trainables.features import indicators
from trainables.features.memory import active, in_batch, last_finite, remembered, run_starts
from trainables.features.rolling import Float, Int, lagged, over_finite, rolling_mean
from trainables.features.settings import FeatureSettings

P = ParamSpec("P")
R = TypeVar("R")

NS_PER_MINUTE = 60 * NS_PER_SECOND


class Bars:
    """A market, the settings, and what was computed from them so far.

    Attributes:
        market: The input.
        settings: Numbers from the documents.
        series: Series beside the market, (n_bars,) float64 each, as known at `known_time`; NaN where not known.
        recent: While streaming, these bars and those of the sessions before them; none in batch.
        first: (n_bars,) position of the first bar of each bar's run, sessions cut where they have several bars.
        segment_first: (n_bars,) the same for segments alone.
        session_first: (n_bars,) position of the first bar of each bar's session, segments cut.
    """

    def __init__(
        self,
        market: Market,
        settings: FeatureSettings,
        series: Mapping[str, Float] | None = None,
        recent: Bars | None = None,
    ) -> None:
        self.market = market
        self.settings = settings
        self.series = dict(series or {})
        self.recent = recent
        self.session_first = run_starts(market.segment, market.session)
        self.segment_first = run_starts(market.segment)
        self.first = self.segment_first if market.bars_per_session == 1 else self.session_first
        self._memo: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.market)

    def once(self, key: Hashable, function: Callable[[], Any]) -> Any:
        """Return what `function` returned when it was first called with this key."""
        if key not in self._memo:
            self._memo[key] = function()
        return self._memo[key]


def shared(function: Callable[Concatenate[Bars, P], R]) -> Callable[Concatenate[Bars, P], R]:
    """Make a function of bars run once per `Bars` and arguments."""

    @wraps(function)
    def once(bars: Bars, *args: P.args, **kwargs: P.kwargs) -> R:
        return bars.once((function, args, tuple(kwargs.items())), lambda: function(bars, *args, **kwargs))

    return once


def over_recent(function: Callable[Concatenate[Bars, P], R]) -> Callable[Concatenate[Bars, P], R]:
    """Make a function of whole sessions work while streaming: on `bars.recent`, computed anew for every block."""

    @wraps(function)
    def on_recent(bars: Bars, *args: P.args, **kwargs: P.kwargs) -> R:
        if active() is None:
            return function(bars, *args, **kwargs)
        if bars.recent is None:
            raise RuntimeError(f"{function.__name__}: expected the sessions before these bars, found none")
        with in_batch():
            return function(bars.recent, *args, **kwargs)[-len(bars) :]  # type: ignore[index]

    return on_recent


@shared
def log_return(bars: Bars) -> Float:
    """Return ln(C_t/C_{t-1}), NaN at the first bar of a run."""
    return indicators.change(np.log(bars.market.close), bars.first)


@shared
def chained_log_price(bars: Bars) -> Float:
    """Return the sum of the segment's log returns so far: a log price without the jumps between sessions.

    Cross-session; 0 at the first bar of a segment, the previous value at the first bar of a session.
    """
    return _chained(log_return(bars), bars.segment_first, remembered(1))


@numba.njit(cache=True, nogil=True)
def _chained(returns: Float, first: Int, state: Float) -> Float:
    out = np.empty(len(returns))
    total = state[0]
    for i in range(len(returns)):
        if first[i] == i:
            total = 0.0
        elif not np.isnan(returns[i]):
            total += returns[i]
        out[i] = total
    state[0] = total
    return out


@shared
def typical_price(bars: Bars) -> Float:
    """Return (H + L + C)/3."""
    return indicators.typical_price(bars.market.high, bars.market.low, bars.market.close)


@shared
def sma(bars: Bars, n: int) -> Float:
    """Return the mean close of n bars."""
    return indicators.simple_average(bars.market.close, bars.first, n)


@shared
def ema(bars: Bars, n: int) -> Float:
    """Return the exponential average of the close with span n."""
    return indicators.exponential_average(bars.market.close, bars.first, n)


@shared
def rsi(bars: Bars) -> Float:
    """Return the relative strength index."""
    return indicators.relative_strength(bars.market.close, bars.first, bars.settings.indicators.rsi_n)


@shared
def atr(bars: Bars) -> Float:
    """Return the average true range, in price units."""
    m = bars.market
    return indicators.average_true_range(m.high, m.low, m.close, bars.first, bars.settings.indicators.atr_n)


@shared
def directional_index(bars: Bars) -> tuple[Float, Float, Float]:
    """Return +DI, -DI and ADX."""
    m = bars.market
    return indicators.directional_index(m.high, m.low, m.close, bars.first, bars.settings.indicators.adx_n)


@shared
def macd(bars: Bars) -> tuple[Float, Float, Float]:
    """Return MACD line, signal and histogram, in price units."""
    s = bars.settings.indicators
    return indicators.moving_average_convergence(
        bars.market.close, bars.first, s.macd_fast_n, s.macd_slow_n, s.macd_signal_n
    )


@shared
def bollinger(bars: Bars) -> tuple[Float, Float, Float]:
    """Return lower, middle and upper band."""
    s = bars.settings.indicators
    return indicators.bollinger(bars.market.close, bars.first, s.bollinger_n, s.bollinger_width)


def bollinger_position(bars: Bars) -> Float:
    """Return (C - lower)/(upper - lower), 0.5 where the bands coincide."""
    lower, _, upper = bollinger(bars)
    return indicators.ratio(bars.market.close - lower, upper - lower, 0.5)


def bollinger_bandwidth(bars: Bars) -> Float:
    """Return (upper - lower)/middle."""
    lower, middle, upper = bollinger(bars)
    return indicators.ratio(upper - lower, middle, 0.0)


@shared
def stochastic_k(bars: Bars) -> Float:
    """Return %K."""
    m = bars.market
    return indicators.stochastic(m.high, m.low, m.close, bars.first, bars.settings.indicators.stochastic_n)


def stochastic_d(bars: Bars) -> Float:
    """Return %D, the mean of %K."""
    return indicators.simple_average(stochastic_k(bars), bars.first, bars.settings.indicators.stochastic_d_n)


@shared
def psar(bars: Bars) -> Float:
    """Return the parabolic stop, in price units."""
    s = bars.settings.indicators
    return indicators.parabolic_stop(bars.market.high, bars.market.low, bars.first, s.psar_step, s.psar_max)


@shared
def session_vwap(bars: Bars) -> Float:
    """Return the volume-weighted average price since the session's (or segment's) first bar.

    On daily bars, where a session is one bar, it is that bar's typical price.
    """
    return indicators.anchored_vwap(typical_price(bars), bars.market.volume, bars.session_first)


@shared
def realised_volatility(bars: Bars) -> Float:
    """Return the root mean square of the latest log returns, per year; cross-session, without overnight returns."""
    s, per_session = bars.settings, bars.market.bars_per_session
    squares = log_return(bars) ** 2
    mean = over_finite(rolling_mean, squares, bars.segment_first, realised_n(s, per_session))
    annualised = np.sqrt(np.maximum(mean, 0.0) * s.sessions_per_year * per_session)
    return last_finite(annualised, bars.segment_first)


def realised_n(settings: FeatureSettings, bars_per_session: int) -> int:
    """Return the number of returns in `realised_volatility`."""
    return settings.realised_n or max(bars_per_session, settings.realised_min_n)


def previous_bar(x: Float, bars: Bars) -> Float:
    """Return the segment's value one bar earlier (cross-session)."""
    return lagged(x, bars.segment_first, 1)


@shared
def local_clock(bars: Bars) -> Int:
    """Return what New York's clock shows at the start of each bar, in ns since its 1970-01-01 (DATA-8)."""
    return local_time(bars.market.event_time)


@shared
def local_minute(bars: Bars) -> Float:
    """Return minutes since New York's midnight at the start of each bar, fractions included."""
    return (local_clock(bars) % NS_PER_DAY) / NS_PER_MINUTE


@shared
def trading_day(bars: Bars) -> Int:
    """Return the day that each bar is traded for, in days since 1970-01-01; 18:00 begins the next day."""
    return (local_clock(bars) + 6 * 60 * NS_PER_MINUTE) // NS_PER_DAY


@shared
def weekday(bars: Bars) -> Int:
    """Return the day of the week of `trading_day`, 0 for Monday; 1970-01-01 was a Thursday."""
    return (trading_day(bars) + 3) % 7


@shared
def minutes_since_open(bars: Bars) -> Float:
    """Return minutes from the start of the session's first bar to the start of this one."""
    return _minutes_since_open(bars.market.event_time, bars.market.session, remembered(3, dtype=np.int64))


@numba.njit(cache=True, nogil=True)
def _minutes_since_open(event_time: Int, session: Int, state: Int) -> Float:
    out = np.empty(len(event_time))
    has_begun, current, opening = state
    for i in range(len(event_time)):
        if not has_begun or session[i] != current:
            has_begun, current, opening = 1, session[i], event_time[i]
        out[i] = (event_time[i] - opening) / NS_PER_MINUTE
    state[0], state[1], state[2] = has_begun, current, opening
    return out
