"""Series beside a market, one value per bar: what was known of each at the bar's end (DATA-27).

    PRICES             <name> -> `<name>`, its value; unknown where too old
    fomc               `fomc_previous_s`, the newest decision, and `fomc_next_s`, the one scheduled after it
    SURPRISES          <name> -> `<name>_surprise`, value - expected of the newest event, and `<name>_surprise_std`, the
                       sample standard deviation of the surprises published before it
    others             <name> -> `<name>`, its value

A surprise is that of an event's first publication with a forecast: revisions do not surprise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trainables.data.config import DataConfig
from trainables.data.external import COLUMNS, ExternalSeries, known_at, read_sources
from trainables.data.zones import NS_PER_SECOND
from trainables.errors import DataError

Float = NDArray[np.float64]
Int = NDArray[np.int64]
PRICES = frozenset({"nq", "ym", "rty", "xlf", "xlk", "xle", "eurusd", "usdjpy"})
SURPRISES = frozenset({"cpi", "nfp", "gdp"})
VALUE, SURPRISE = COLUMNS.index("value"), COLUMNS.index("surprise")


def beside_series(data: DataConfig, known_time: Int) -> dict[str, Float]:
    """Return the series of the sources of `data.series` that have a file; the others are off, logged with the reason.

    Args:
        data: Paths and settings.
        known_time: (n_bars,) ns UTC, not decreasing.

    Returns:
        Name -> (n_bars,), NaN where unknown.

    Raises:
        DataError: A file is there and cannot be used, or one of releases has no forecast.
    """
    sources, _ = read_sources(data.series.paths(), data.timezone)
    joined: dict[str, Float] = {}
    for name, series in sources.items():
        joined |= _joined(name, series, known_time, data.series_max_age_days)
    return joined


def _joined(name: str, series: ExternalSeries, times: Int, max_age_days: float) -> Mapping[str, Float]:
    if name == "fomc":
        return _decisions(series, times)
    if name in SURPRISES:
        prints = first_prints(series)
        if not len(prints.value):
            raise DataError(f"data.series.{name}: expected forecasts in column expected, found none; add them")
        return {
            f"{name}_surprise": known_at(prints, times)[:, SURPRISE],
            f"{name}_surprise_std": known_at(_with_value(prints, deviations(prints)), times)[:, VALUE],
        }
    return {name: known_at(series, times, max_age_days if name in PRICES else None)[:, VALUE]}


def _decisions(series: ExternalSeries, times: Int) -> dict[str, Float]:
    """Return the decisions around each instant; a next one that has passed is unknown, not negative time away."""
    decided = _with_value(series, series.event_time / NS_PER_SECOND)
    following = known_at(series, times)[:, VALUE]
    following[following < times / NS_PER_SECOND] = np.nan
    return {"fomc_previous_s": known_at(decided, times)[:, VALUE], "fomc_next_s": following}


def first_prints(series: ExternalSeries) -> ExternalSeries:
    """Return each event's first row that has a forecast, in order of release."""
    has_forecast = np.flatnonzero(np.isfinite(series.expected))
    _, first = np.unique(series.event_time[has_forecast], return_index=True)
    rows = has_forecast[np.sort(first)]
    return ExternalSeries(
        event_time=series.event_time[rows],
        release_time=series.release_time[rows],
        value=series.value[rows],
        expected=series.expected[rows],
    )


def deviations(prints: ExternalSeries) -> Float:
    """Return for each row the sample standard deviation of the surprises released before it; NaN below two."""
    surprises = prints.value - prints.expected
    n_before = np.searchsorted(prints.release_time, prints.release_time)
    return np.array([np.std(surprises[:n], ddof=1) if n > 1 else np.nan for n in n_before])


def _with_value(series: ExternalSeries, value: Float) -> ExternalSeries:
    return ExternalSeries(
        event_time=series.event_time,
        release_time=series.release_time,
        value=value,
        expected=np.full(len(value), np.nan),
    )
