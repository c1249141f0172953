"""Features of series beside the market: other markets, scheduled releases, breadth (FEAT-SC-7..9).

A series has one value per bar: what was known at the bar's `known_time`, NaN where nothing was or where it is too old
(joined by release time, DATA-27). A feature whose series is not given is off; it is never filled with zeros.

    SERIES of prices   nq, ym, rty, xlf, xlk, xle, eurusd, usdjpy
    of releases        fomc_previous_s, fomc_next_s: seconds since the epoch, UTC, of the decisions before and after
                       cpi_surprise, nfp_surprise, gdp_surprise: actual - expected of the last release, and
                       *_surprise_std: standard deviation of the surprises before it
                       earnings_season: 1 inside, 0 outside
    of breadth         advance_decline: (advancing - declining)/all; fund_flow: net flow as a share of assets
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from trainables.data.zones import NS_PER_SECOND
from trainables.features import bars as kit
from trainables.features.bars import Bars
from trainables.features.indicators import DEGENERATE, change, ratio
from trainables.features.memory import windowed
from trainables.features.rolling import Float, Int, lagged
from trainables.features.row import FeatureRow, Kind, Lookback, bars_needed
from trainables.features.schemas import BESIDE_PRICES, BESIDE_RELEASES


@windowed(2, lambda n: n)
@numba.njit(cache=True, nogil=True)
def rolling_correlation(x: Float, y: Float, first: Int, n: int) -> Float:
    """Return Pearson's correlation of the last n pairs, by two passes over each window; 0 where one does not vary.

    Args:
        x: (n_bars,) values; NaN makes its windows NaN.
        y: (n_bars,) values; the same.
        first: (n_bars,) start of each bar's run.
        n: Window in bars.

    Returns:
        (n_bars,) correlations.
    """
    out = np.full(len(x), np.nan)
    for i in range(len(x)):
        if i - first[i] + 1 < n:
            continue
        x0, y0, mean_x, mean_y = x[i], y[i], 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            mean_x += (x[j] - x0) / n
            mean_y += (y[j] - y0) / n
        xx, yy, xy = 0.0, 0.0, 0.0
        for j in range(i - n + 1, i + 1):
            dx, dy = x[j] - x0 - mean_x, y[j] - y0 - mean_y
            xx += dx * dx
            yy += dy * dy
            xy += dx * dy
        scale = np.sqrt(xx * yy)
        out[i] = 0.0 if scale < DEGENERATE**2 else xy / scale
    return out


def correlation_with(name: str) -> Callable[[Bars], Float]:
    """Return the feature: correlation of log returns with those of another market, over `intermarket_n` bars."""

    def values(bars: Bars) -> Float:
        other = change(np.log(bars.series[name]), bars.first)
        return rolling_correlation(kit.log_return(bars), other, bars.first, bars.settings.intermarket_n)

    return values


def return_over(name: str) -> Callable[[Bars], Float]:
    """Return the feature: log return over `intermarket_n` bars, less that of another market."""

    def values(bars: Bars) -> Float:
        price = np.log(bars.market.close / bars.series[name])
        return price - lagged(price, bars.first, bars.settings.intermarket_n)

    return values


def minutes_between(name: str, sign: float) -> Callable[[Bars], Float]:
    """Return the feature: minutes from the bar's end to an instant (sign 1), or from it (sign -1)."""

    def values(bars: Bars) -> Float:
        return sign * (bars.series[name] - bars.market.known_time / NS_PER_SECOND) / 60.0

    return values


def surprise(name: str) -> Callable[[Bars], Float]:
    """Return the feature: (actual - expected)/deviation of a release, 0 where surprises never varied (FEAT-SC-8)."""
    return lambda bars: ratio(bars.series[f"{name}_surprise"], bars.series[f"{name}_surprise_std"], 0.0)


def _as_given(name: str) -> Callable[[Bars], Float]:
    return lambda bars: bars.series[name]


def _row(
    name: str,
    requirement: int,
    function: Callable[[Bars], Float],
    series: tuple[str, ...],
    lookback: Lookback | None = None,
    kind: Kind = "number",
) -> FeatureRow:
    return FeatureRow(
        name=name,
        family="scaling",
        group={7: "intermarket", 8: "calendar", 9: "breadth"}[requirement],
        lookback=lookback or bars_needed(1),
        source="scaling document, Phase 3",
        requirement=f"FEAT-SC-{requirement}",
        function=function,
        known="release of the series",
        kind=kind,
        series=series,
    )


ROWS = (
    *(
        _row(f"correlation_{name}", 7, correlation_with(name), (name,), lambda s, per_session: s.intermarket_n + 1)
        for name in BESIDE_PRICES
    ),
    *(
        _row(f"return_over_{name}", 7, return_over(name), (name,), lambda s, per_session: s.intermarket_n + 1)
        for name in BESIDE_PRICES
    ),
    _row("minutes_to_fomc", 8, minutes_between("fomc_next_s", 1.0), ("fomc_next_s",)),
    _row("minutes_since_fomc", 8, minutes_between("fomc_previous_s", -1.0), ("fomc_previous_s",)),
    *(
        _row(f"{name}_surprise", 8, surprise(name), (f"{name}_surprise", f"{name}_surprise_std"))
        for name in BESIDE_RELEASES
    ),
    _row("earnings_season", 8, _as_given("earnings_season"), ("earnings_season",), kind="category"),
    _row("advance_decline", 9, _as_given("advance_decline"), ("advance_decline",)),
    _row("fund_flow", 9, _as_given("fund_flow"), ("fund_flow",)),
)
