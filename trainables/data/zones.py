"""Calendar days in a zone, and their midnights as ns UTC."""

from __future__ import annotations

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

NEW_YORK = "America/New_York"
"""Zone of every session decision (DATA-8)."""
NS_PER_SECOND = 1_000_000_000
NS_PER_DAY = 86_400 * NS_PER_SECOND


def instant(day: date, clock: time, zone: str = NEW_YORK) -> int:
    """Return ns UTC of a wall-clock time on a day: the first where the clock shows it twice, an hour on where never."""
    return round(datetime.combine(day, clock, ZoneInfo(zone)).timestamp()) * NS_PER_SECOND


def day_of(time_ns: int, zone: str = NEW_YORK) -> date:
    """Return the zone's calendar day at an instant."""
    return datetime.fromtimestamp(time_ns // NS_PER_SECOND, ZoneInfo(zone)).date()


def local_time(times: NDArray[np.int64], zone: str = NEW_YORK) -> NDArray[np.int64]:
    """Return what the zone's clock shows at ns UTC, as ns since 1970-01-01 00:00 of that clock."""
    import pyarrow as pa  # here, because the planner needs midnights only, at once
    import pyarrow.compute as pc

    stamps = pa.array(times, pa.timestamp("ns", tz="UTC")).cast(pa.timestamp("ns", tz=zone))
    return pc.local_timestamp(stamps).cast(pa.int64()).to_numpy(zero_copy_only=False)


def local_day(times: NDArray[np.int64], zone: str = NEW_YORK) -> NDArray[np.int64]:
    """Return the zone's calendar day at ns UTC, as days since 1970-01-01 (a Thursday)."""
    return local_time(times, zone) // NS_PER_DAY


def instants(days: NDArray[np.int64], clock: time, zone: str = NEW_YORK) -> NDArray[np.int64]:
    """Return ns UTC of a wall-clock time on each of many days, given as days since 1970-01-01."""
    unique, where = np.unique(days, return_inverse=True)
    first = date(1970, 1, 1).toordinal()
    values = [instant(date.fromordinal(first + int(d)), clock, zone) for d in unique]
    return np.asarray(values, dtype=np.int64)[where]
