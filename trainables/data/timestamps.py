"""A column of timestamps as ns UTC: integer nanoseconds, Arrow timestamps or ISO-8601 text; zones are never guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainables.data.zones import NS_PER_DAY, local_time
from trainables.errors import DataError

EARLIEST_NS = round(datetime(1900, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
"""Older timestamps are mistakes of unit."""
COARSE_NS = 4 * 10**15
"""Integers this near to 1970 (46 days) are seconds, milliseconds or microseconds of any time up to the year 2096."""
UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3}
ZONE_SUFFIX = r"(?P<offset>Z|[+-]\d{2}:?\d{2})$"


def read_times(column: pa.ChunkedArray, *, zone: str | None, where: str, now_ns: int) -> NDArray[np.int64]:
    """Return the instants of a column.

    Args:
        column: Integers (ns since the epoch), Arrow timestamps, or text.
        zone: IANA zone of timestamps without a zone; also allows text whose offsets change as that zone's do.
        where: File name for messages.
        now_ns: The present; bars from more than a day later are refused.

    Raises:
        DataError: Missing, unreadable or out-of-range timestamps; naive ones without `zone`; mixed offsets; wall-clock
            times that the zone's clock never or twice shows. Names the first row.
    """
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(
            f"{where}: row {row + 1}: expected a timestamp, found none ({column.null_count} rows); take them out"
        )
    if zone is not None:
        _check_zone(zone)
    kind = column.type
    if pa.types.is_integer(kind):
        times = column.cast(pa.int64()).to_numpy()
        _check_unit(times, where, now_ns)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = _stamps(column, zone, where)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        times = _texts(column.cast(pa.string()).combine_chunks(), zone, where, now_ns)
    else:
        raise DataError(
            f"{where}: expected timestamps as int64 ns, Arrow timestamps or ISO text, found {kind}; convert them"
        )
    _check_range(times, where, now_ns)
    return times


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise DataError(f"data.timezone: expected an IANA zone such as America/New_York, found {zone!r}") from None


def _check_unit(times: NDArray[np.int64], where: str, now_ns: int) -> None:
    coarse = np.flatnonzero(np.abs(times) < COARSE_NS)
    if len(coarse) == 0:
        return
    value = int(times[coarse[0]])
    likely = [name for name, factor in UNITS.items() if EARLIEST_NS + 85 * 365 * NS_PER_DAY < value * factor <= now_ns]
    meaning = f"it looks like {likely[0]}: multiply by {UNITS[likely[0]]:,}" if likely else "convert the column"
    raise DataError(
        f"{where}: row {coarse[0] + 1}: expected nanoseconds since 1970, found {value} ({len(coarse)} rows); {meaning}"
    )


def _check_range(times: NDArray[np.int64], where: str, now_ns: int) -> None:
    outside = np.flatnonzero((times < EARLIEST_NS) | (times > now_ns + NS_PER_DAY))
    if len(outside):
        value = np.datetime64(int(times[outside[0]]), "ns")
        raise DataError(
            f"{where}: row {outside[0] + 1}: expected a timestamp in [1900, now + 1 day], found {value}Z "
            f"({len(outside)} rows); correct the unit or the rows"
        )


def _stamps(column: pa.ChunkedArray, zone: str | None, where: str) -> NDArray[np.int64]:
    """Turn Arrow timestamps and dates into ns UTC."""
    try:
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            return column.cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64()).to_numpy()
        return _from_wall_clock(column.cast(pa.timestamp("ns")).combine_chunks(), zone, where)
    except pa.ArrowInvalid as problem:
        raise DataError(f"{where}: expected timestamps between 1900 and now, found: {_first_line(problem)}") from None


def _texts(texts: pa.StringArray, zone: str | None, where: str, now_ns: int) -> NDArray[np.int64]:
    if pc.all(pc.match_substring_regex(texts, r"^-?\d+$")).as_py():
        times = texts.cast(pa.int64()).to_numpy()
        _check_unit(times, where, now_ns)
        return times
    suffixes = pc.struct_field(pc.extract_regex(texts, ZONE_SUFFIX), "offset")
    if suffixes.null_count == len(texts):
        return _from_wall_clock(_parse(texts, pa.timestamp("ns"), where), zone, where)
    if suffixes.null_count:
        is_naive = suffixes.is_null().to_numpy(zero_copy_only=False)
        row = int(np.flatnonzero(is_naive != is_naive[0])[0])
        raise DataError(
            f"{where}: row {row + 1}: expected all timestamps with a zone or all without, found {texts[row].as_py()!r} "
            f"after {texts[0].as_py()!r}; write one form"
        )
    times = _parse(texts, pa.timestamp("ns", tz="UTC"), where).cast(pa.int64()).to_numpy(zero_copy_only=False)
    _check_offsets(texts, suffixes, times, zone, where)
    return times


def _check_offsets(
    texts: pa.StringArray, suffixes: pa.StringArray, times: NDArray[np.int64], zone: str | None, where: str
) -> None:
    """Refuse offsets that differ from row to row, unless they are the declared zone's at their instants (B04)."""
    plain = pc.replace_substring(pc.replace_substring(suffixes, "Z", "+0000"), ":", "")
    if len(pc.unique(plain)) == 1:
        return
    if zone is None:
        first = texts[0].as_py()
        other = pc.not_equal(plain, plain[0]).index(True).as_py()
        raise DataError(
            f"{where}: row {other + 1}: expected one offset, found {texts[other].as_py()!r} after {first!r}; "
            "if both are one zone's summer and winter time, set data.timezone"
        )
    wall = _parse(pc.replace_substring_regex(texts, ZONE_SUFFIX, ""), pa.timestamp("ns"), where)
    strange = np.flatnonzero(wall.cast(pa.int64()).to_numpy() != local_time(times, zone))
    if len(strange):
        row = int(strange[0])
        raise DataError(
            f"{where}: row {row + 1}: expected the offset of data.timezone {zone}, found {texts[row].as_py()!r} "
            f"({len(strange)} rows); correct the rows or the zone"
        )


def _parse(texts: pa.StringArray, kind: pa.DataType, where: str) -> pa.Array:
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        row = _first_unreadable(texts, kind)
        raise DataError(
            f"{where}: row {row + 1}: expected ISO-8601 such as 2024-01-02T09:30:00, found {texts[row].as_py()!r}; "
            "day and month are not guessed, write year-month-day"
        ) from None


def _first_unreadable(texts: pa.StringArray, kind: pa.DataType) -> int:
    """Return the first row that does not convert, by bisection: all before `good` do, one of `[good, bad)` not."""
    good, bad = 0, len(texts)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            texts.slice(good, middle - good).cast(kind)
            good = middle
        except pa.ArrowInvalid:
            bad = middle
    return good


def _from_wall_clock(naive: pa.Array, zone: str | None, where: str) -> NDArray[np.int64]:
    """Turn wall-clock times of a declared zone into ns UTC."""
    if zone is None:
        raise DataError(
            f"{where}: expected timestamps with a zone, found {naive[0].as_py()} without; set data.timezone"
        )
    try:
        return pc.assume_timezone(naive, zone).cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        raise DataError(_unclear_clock(naive, zone, where)) from None


def _unclear_clock(naive: pa.Array, zone: str, where: str) -> str:
    """Say which wall-clock times the zone never shows, or shows twice (B07, B08)."""
    early = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="earliest")
    late = pc.assume_timezone(naive, zone, ambiguous="latest", nonexistent="latest")
    rows = np.flatnonzero(pc.not_equal(early, late).to_numpy(zero_copy_only=False))
    row = int(rows[0])
    gap = (late[row].value - early[row].value) < 10**9
    kind = "that the clock never shows" if gap else "that the clock shows twice"
    return (
        f"{where}: row {row + 1}: expected a clear time in {zone}, found {naive[row].as_py()} {kind} "
        f"({len(rows)} rows); write UTC or the offset"
    )


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0]
