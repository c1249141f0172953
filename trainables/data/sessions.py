"""Trading sessions of bars: which rows lie in which session, and where windows may not cross (DATA-8 to 10)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import time

import numpy as np
from numpy.typing import NDArray

from trainables.data.config import DataConfig
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, instants, local_day
from trainables.errors import DataError

EXTENDED_HOURS = (time(4), time(20))
"""Extended hours of US equities in New York: what `session: all` keeps with the XNYS calendar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Sessions in time order: calendar day (days since 1970), opening and closing instants in ns UTC, (n_sessions,)."""

    day: NDArray[np.int64]
    open: NDArray[np.int64]
    close: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRows:
    """Bars placed in sessions.

    Attributes:
        kept: (n_bars,) bool. Whether the bar starts within a session.
        event_time, known_time: (n_kept,) start and end of the kept bars, ns UTC.
        number: (n_kept,) position of the session in the schedule; a number that is left out is a missing session.
    """

    kept: NDArray[np.bool_]
    event_time: NDArray[np.int64]
    known_time: NDArray[np.int64]
    number: NDArray[np.int64]


def schedule(data: DataConfig, first_ns: int, last_ns: int) -> Schedule:
    """Return the sessions from a week before `first_ns` to a week after `last_ns`, half days and holidays included.

    `rth` means the regular hours of the New York Stock Exchange, also for futures (DATA-9); a market that never
    closes has all its hours.
    """
    import exchange_calendars
    import pandas as pd

    name = "XNYS" if data.session == "rth" and data.calendar != "24/7" else data.calendar
    start, end = (pd.Timestamp(t, tz="UTC").tz_localize(None).normalize() for t in (first_ns, last_ns))
    week = pd.Timedelta(days=7)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Series.values returning")  # exchange_calendars 4.13 on pandas 3.1
        calendar = exchange_calendars.get_calendar(name, start=start - week, end=end + week)
    day = calendar.schedule.index.to_numpy().astype("datetime64[D]").astype(np.int64)
    if name == "XNYS" and data.session == "all":
        return Schedule(day=day, open=instants(day, EXTENDED_HOURS[0]), close=instants(day, EXTENDED_HOURS[1]))
    opens, closes = (calendar.schedule[name].dt.tz_convert(None).to_numpy() for name in ("open", "close"))
    opens, closes = (times.astype("datetime64[ns]").astype(np.int64) for times in (opens, closes))
    return Schedule(day=day, open=opens, close=closes)


def place(times: NDArray[np.int64], bar_seconds: int, data: DataConfig, where: str) -> SessionRows:
    """Put bars into sessions.

    A bar of a day or longer belongs to the session of its date and lasts from that session's open to its close; its
    date is the one it shows in UTC where it is stamped at midnight UTC, else in New York. A shorter bar belongs to the
    session that it starts in, and lasts `bar_seconds`.

    Args:
        times: (n_bars,) ns UTC as stamped, increasing.
        bar_seconds: Length of a bar.
        data: Calendar, session and bar label.
        where: File name for messages.

    Raises:
        DataError: No bar lies in a session.
    """
    plan = schedule(data, int(times[0]), int(times[-1]))
    if bar_seconds * NS_PER_SECOND >= NS_PER_DAY:
        number, kept = _by_day(times, plan)
        event, known = plan.open[number[kept]], plan.close[number[kept]]
    else:
        start = times - bar_seconds * NS_PER_SECOND if data.bar_label == "right" else times
        number = np.searchsorted(plan.open, start, side="right") - 1
        kept = (number >= 0) & (start < plan.close[number])
        event, known = start[kept], start[kept] + bar_seconds * NS_PER_SECOND
    if not kept.any():
        raise DataError(
            f"{where}: expected bars in sessions of {data.calendar} ({data.session}), found none of {len(times)}; "
            "check data.calendar, data.session and data.timezone"
        )
    return SessionRows(kept=kept, event_time=event, known_time=known, number=number[kept])


def segments(rows: SessionRows, bar_seconds: int, max_gap_bars: int) -> NDArray[np.int64]:
    """Number the runs of rows without a missing session or more than `max_gap_bars` missing bars in a session."""
    skipped = np.diff(rows.number) > 1
    gap_ns = np.diff(rows.event_time) - bar_seconds * NS_PER_SECOND
    is_hole = (np.diff(rows.number) == 0) & (gap_ns > max_gap_bars * bar_seconds * NS_PER_SECOND)
    return np.concatenate([[0], np.cumsum(skipped | is_hole)])


def usual_step_s(times: NDArray[np.int64], where: str) -> int:
    """Return the most frequent distance of bars in whole seconds.

    Raises:
        DataError: There are fewer than two bars.
    """
    if len(times) < 2:
        raise DataError(f"{where}: expected at least 2 bars, found {len(times)}; give more data")
    steps, counts = np.unique(np.diff(times) // NS_PER_SECOND, return_counts=True)
    return int(max(steps[np.argmax(counts)], 1))


def _by_day(times: NDArray[np.int64], plan: Schedule) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    day = np.where(times % NS_PER_DAY == 0, times // NS_PER_DAY, local_day(times))
    number = np.minimum(np.searchsorted(plan.day, day), len(plan.day) - 1)
    return number, plan.day[number] == day
