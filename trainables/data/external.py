"""Series from elsewhere (macro releases, other markets), joined by when they were published (DATA-27).

A file has the columns event_time (what the value is about), release_time (when it was published) and value, and
optionally expected (what was forecast for it). A revision is another row with a later release_time: before that instant
it does not exist. No network: files are local, and a source without a file is off, with a reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.asof import asof_join
from trainables.data.config import absent
from trainables.data.readers import existing, numbers, read_table
from trainables.data.timestamps import read_times
from trainables.data.zones import NS_PER_DAY
from trainables.errors import DataError

Float = NDArray[np.float64]
Int = NDArray[np.int64]
COLUMNS = ("value", "expected", "surprise", "age_days")
"""What `known_at` gives each row: the newest value, its forecast, their difference, and days since its event."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSeries:
    """Rows in order of publication, arrays (n_rows,): times in ns UTC, `expected` NaN where the file has none."""

    event_time: Int
    release_time: Int
    value: Float
    expected: Float


def read_external(path: Path, timezone: str | None = None) -> ExternalSeries:
    """Read one series.

    Raises:
        DataError: The file is no table or lacks a column; a value is not finite; a release lies before its event; an
            event was released twice at one instant.
    """
    table = read_table(path, ("event_time", "release_time", "value"), ("expected",))
    now = time.time_ns()
    event, release = (
        read_times(table[name], zone=timezone, where=f"{path}, {name}", now_ns=now)
        for name in ("event_time", "release_time")
    )
    value = numbers(table, "value", path)
    has_forecast = "expected" in table.column_names
    expected = numbers(table, "expected", path) if has_forecast else np.full(len(value), np.nan)
    for bad, what in ((~np.isfinite(value), "a finite value"), (release < event, "a release at or after its event")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"{path}: row {row + 1}: expected {what}, found none ({int(bad.sum())} rows); correct them")
    order = np.lexsort((event, release))
    series = ExternalSeries(
        event_time=event[order], release_time=release[order], value=value[order], expected=expected[order]
    )
    twice = (np.diff(series.event_time) == 0) & (np.diff(series.release_time) == 0)
    if twice.any():
        row = int(order[np.flatnonzero(twice)[0] + 1])
        raise DataError(f"{path}: row {row + 1}: expected one row per event and release, found two; take one out")
    return series


def known_at(series: ExternalSeries, times: Int, max_age_days: float | None = None) -> Float:
    """Return what was known of a series at each instant, (n_times, 4) as `COLUMNS`; NaN where nothing or too old.

    Of everything released by then the newest event counts, in its latest release: the revision of an older event does
    not replace a newer one.

    Args:
        series: Rows in order of release.
        times: ns UTC, not decreasing.
        max_age_days: Events older than this are not used; none: no limit.
    """
    newest = np.maximum.accumulate(series.event_time) if len(series.event_time) else series.event_time
    day = series.event_time / NS_PER_DAY
    rows = np.stack([series.value, series.expected, series.value - series.expected, day], axis=1)
    joined = asof_join(
        times,
        series.release_time,
        rows,
        event_time=series.event_time,
        max_age_ns=None if max_age_days is None else round(max_age_days * NS_PER_DAY),
        is_valid=series.event_time >= newest,
    )
    joined[:, 3] = times / NS_PER_DAY - joined[:, 3]
    return joined


def read_sources(
    sources: Mapping[str, str], timezone: str | None = None
) -> tuple[dict[str, ExternalSeries], dict[str, str]]:
    """Read all sources whose file is there; one that has none is off, logged with the reason.

    Args:
        sources: Name -> path.
        timezone: IANA zone of naive timestamps.

    Returns:
        The series by name, and for each source that is off the reason.

    Raises:
        DataError: A file is there and cannot be used: that is never taken for an absent source.
    """
    off = absent(sources)
    for source, reason in off.items():
        log.warning("external series %s is off: %s", source, reason)
    present = {source: existing(path, f"data.series.{source}") for source, path in sources.items() if source not in off}
    return {source: read_external(path, timezone) for source, path in present.items()}, off
