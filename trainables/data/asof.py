"""Backward as-of join in one compiled pass: to each instant the newest record that was known by then (DATA-15).

Both sides are in time order and are walked once, side by side; what is remembered is the newest record of each key.
Measured in `benchmarks/asof.py` against polars and pandas, whose results it equals.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.int64]
NO_ROW = -1
"""Position where no record was known, and code of a key that is missing."""


def asof_join(
    times: Int,
    known_time: Int,
    values: NDArray[np.floating],
    *,
    keys: NDArray[np.integer] | None = None,
    known_keys: NDArray[np.integer] | None = None,
    event_time: Int | None = None,
    max_age_ns: int | None = None,
    is_valid: NDArray[np.bool_] | None = None,
    allow_exact: bool = True,
) -> NDArray[np.floating]:
    """Return at each instant the values of the newest record of its key that was known by then.

    Of records known at the same instant the last wins, as in pandas. A record that is too old hides the ones before it;
    an invalid one does not. A publication lag is the difference of `known_time` and `event_time`.

    Args:
        times: (n,) ns UTC, not decreasing: the moments of decision.
        known_time: (m,) ns UTC, not decreasing: from when on each record may be used.
        values: (m, k) floats, contiguous rows; NaN is a value like any other.
        keys: (n,) codes from 0, see `key_codes`; negative: no match. None: everything has one key.
        known_keys: (m,) codes of the records.
        event_time: (m,) ns UTC: when a record was true, which its age counts from; none: `known_time`.
        max_age_ns: Older records are not used; none: no limit. An age equal to it is not too old.
        is_valid: (m,) bool; records to look past are False.
        allow_exact: Whether a record known at the very instant counts.

    Returns:
        (n, k) of the dtype of `values`; NaN where no record is known.

    Raises:
        ValueError: Shapes differ, times decrease, or one side only has keys.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"values: expected floats (n_records, n_columns), found {values.dtype} {values.shape}")
    joined = np.empty((len(times), values.shape[1]), dtype=values.dtype)
    _run(times, known_time, values, keys, known_keys, event_time, max_age_ns, is_valid, allow_exact, joined, np.nan)
    return joined


def asof_rows(
    times: Int,
    known_time: Int,
    *,
    keys: NDArray[np.integer] | None = None,
    known_keys: NDArray[np.integer] | None = None,
    event_time: Int | None = None,
    max_age_ns: int | None = None,
    is_valid: NDArray[np.bool_] | None = None,
    allow_exact: bool = True,
) -> Int:
    """Return the positions of the records that `asof_join` takes values from, (n,); `NO_ROW` where there is none."""
    rows = np.empty((len(times), 1), dtype=np.int64)
    own = np.arange(len(known_time))[:, None]
    _run(times, known_time, own, keys, known_keys, event_time, max_age_ns, is_valid, allow_exact, rows, NO_ROW)
    return rows[:, 0]


def key_codes(*pairs: tuple[ArrayLike, ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return one code per row of two tables, equal where all key columns are equal.

    Args:
        pairs: For each key column its values in the first and in the second table: numbers, dates or text.

    Returns:
        Codes from 0 of both tables; `NO_ROW` where a value is missing (None, NaN, NaT).

    Raises:
        ValueError: There is no column.
    """
    import pandas as pd

    if not pairs:
        raise ValueError("pairs: expected at least one key column, found none")
    n_first = len(np.asarray(pairs[0][0]))
    codes = np.zeros(n_first + len(np.asarray(pairs[0][1])), dtype=np.int64)
    is_missing = np.zeros(len(codes), dtype=bool)
    for first, second in pairs:
        column, levels = pd.factorize(np.concatenate([np.asarray(first), np.asarray(second)]))
        is_missing |= column < 0
        codes = pd.factorize(codes * (len(levels) + 1) + column)[0].astype(np.int64)
    codes[is_missing] = NO_ROW
    return codes[:n_first], codes[n_first:]


def _run(  # type: ignore[no-untyped-def]
    times, known_time, values, keys, known_keys, event_time, max_age_ns, is_valid, allow_exact, out, missing
) -> None:
    if (keys is None) != (known_keys is None):
        raise ValueError("keys, known_keys: expected both or neither, found one")
    n_keys = 1 if known_keys is None else int(known_keys.max(initial=NO_ROW)) + 1
    keys = _one_key(len(times)) if keys is None else keys
    known_keys = _one_key(len(known_time)) if known_keys is None else known_keys
    event_time = known_time if event_time is None else event_time
    is_valid = np.broadcast_to(True, len(known_time)) if is_valid is None else is_valid
    for name, array, n in (
        ("keys", keys, len(times)),
        ("values", values, len(known_time)),
        ("known_keys", known_keys, len(known_time)),
        ("event_time", event_time, len(known_time)),
        ("is_valid", is_valid, len(known_time)),
    ):
        if len(array) != n:
            raise ValueError(f"{name}: expected {n} rows, found {len(array)}")
    limit = np.iinfo(np.int64).max if max_age_ns is None else max_age_ns
    newest = np.full(max(n_keys, 1), NO_ROW, dtype=np.int64)
    late = _walk(
        times, keys, known_time, known_keys, event_time, is_valid, values, newest, limit, allow_exact, out, missing
    )
    if late >= 0:
        side, row = ("times", late) if late < len(times) else ("known_time", late - len(times))
        raise ValueError(f"{side}: expected instants that do not decrease, found row {row + 1} earlier")


def _one_key(n: int) -> NDArray[np.int32]:
    return np.broadcast_to(np.int32(0), n)


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(  # type: ignore[no-untyped-def]
    times, keys, known_time, known_keys, event_time, is_valid, values, newest, max_age, allow_exact, out, missing
):
    """Fill `out`; return -1, or the first row out of order: of `times`, or len(times) + that of `known_time`."""
    n_columns = values.shape[1]
    record = 0
    for i in range(len(times)):
        now = times[i]
        if i > 0 and now < times[i - 1]:
            return i
        while record < len(known_time) and (known_time[record] < now or (allow_exact and known_time[record] == now)):
            if record > 0 and known_time[record] < known_time[record - 1]:
                return len(times) + record
            if is_valid[record] and known_keys[record] >= 0:
                newest[known_keys[record]] = record
            record += 1
        key = keys[i]
        row = newest[key] if 0 <= key < len(newest) else -1
        if row >= 0 and now - event_time[row] > max_age:
            row = -1
        if row >= 0:
            for column in range(n_columns):
                out[i, column] = values[row, column]
        else:
            for column in range(n_columns):
                out[i, column] = missing
    return -1
