"""What can be wrong with bars, and what is done about it (DATA-31, faults B01-B19): refused, or dropped and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.bars import PRICES, Bars
from trainables.errors import DataError

JUMP = np.log(1.4)
"""Overnight moves beyond 40 % look like a split that was not adjusted for (B25)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One kind of bad rows.

    Attributes:
        expected: What every row should be.
        rows: Positions of the bad rows, increasing.
        example: The first of them, in words.
        can_drop: Whether leaving the rows out is safe; where it is not, somebody must look.
    """

    expected: str
    rows: NDArray[np.int64]
    example: str
    can_drop: bool

    def __str__(self) -> str:
        return f"row {self.rows[0] + 1}: expected {self.expected}, found {self.example} ({len(self.rows)} rows)"


def find_defects(bars: Bars, *, price_tolerance_frac: float = 1e-6) -> tuple[Defect, ...]:
    """Return every kind of defect that bars have; rows must be in the order of the file.

    Args:
        bars: (n_bars,) arrays.
        price_tolerance_frac: How far, as a share of the close, open and close may lie outside of [low, high].
    """
    found = (*_time_defects(bars), *_price_defects(bars, price_tolerance_frac))
    return tuple(defect for defect in found if len(defect.rows))


def clean(bars: Bars, where: str, policy: Literal["error", "drop"], *, price_tolerance_frac: float) -> tuple[Bars, int]:
    """Return bars without a defect, and how many rows were left out for it.

    Raises:
        DataError: There is a defect and `policy` is `error`; or one that no policy may drop; or no row is left.
    """
    defects = find_defects(bars, price_tolerance_frac=price_tolerance_frac)
    refused = [d for d in defects if policy == "error" or not d.can_drop]
    if refused:
        all_droppable = all(d.can_drop for d in refused)
        remedy = "correct them, or set data.defects: drop to leave them out" if all_droppable else "correct the file"
        raise DataError(f"{where}: {'; '.join(str(d) for d in refused)}; {remedy}")
    if not defects:
        return bars, 0
    bad = np.unique(np.concatenate([d.rows for d in defects]))
    if len(bad) == len(bars):
        raise DataError(f"{where}: expected good rows, found none of {len(bars)}: {defects[0]}; replace the file")
    return bars.take(np.delete(np.arange(len(bars)), bad)), len(bad)


def _time_defects(bars: Bars) -> tuple[Defect, ...]:
    times = bars.timestamp
    step = np.diff(times)
    unsorted = np.flatnonzero(step < 0) + 1
    identical, conflicting = _duplicates(bars)
    return (
        Defect(
            expected="timestamps that increase",
            rows=unsorted,
            example=_text(f"{_stamp(times, r)} after {_stamp(times, r - 1)}" for r in unsorted),
            can_drop=False,
        ),
        Defect(
            expected="one row per timestamp",
            rows=identical,
            example=_text(f"a copy of the row at {_stamp(times, r)}" for r in identical),
            can_drop=True,
        ),
        Defect(
            expected="one row per timestamp",
            rows=conflicting,
            example=_text(f"{_stamp(times, r)} again with other values, close {bars.close[r]:g}" for r in conflicting),
            can_drop=False,
        ),
    )


def _duplicates(bars: Bars) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return later rows of a timestamp: those equal to its first row, and those that disagree with it."""
    order = np.argsort(bars.timestamp, kind="stable")
    times = bars.timestamp[order]
    is_again = np.zeros(len(order), dtype=bool)
    is_again[1:] = times[1:] == times[:-1]
    if not is_again.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = order[np.maximum.accumulate(np.where(is_again, 0, np.arange(len(order))))]
    again, original = order[is_again], first[is_again]
    same = np.ones(len(again), dtype=bool)
    for name in (*PRICES, "volume"):
        values = getattr(bars, name)
        a, b = values[again], values[original]
        same &= (a == b) | (np.isnan(a) & np.isnan(b))
    return np.sort(again[same]), np.sort(again[~same])


def _price_defects(bars: Bars, tolerance_frac: float) -> tuple[Defect, ...]:
    prices = np.stack([getattr(bars, name) for name in PRICES])
    is_finite = np.isfinite(prices).all(axis=0)
    is_positive = (prices > 0).all(axis=0)
    good = is_finite & is_positive
    tolerance = tolerance_frac * np.abs(bars.close)
    is_crossed = good & (bars.high < bars.low)
    body_high, body_low = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    is_outside = good & ~is_crossed & ((body_high > bars.high + tolerance) | (body_low < bars.low - tolerance))
    kinds = (
        ("finite prices", ~is_finite),
        ("prices above zero (returns are logarithms)", is_finite & ~is_positive),
        ("high at or above low", is_crossed),
        ("open and close within low and high", is_outside),
    )
    volume = bars.volume
    found = [_defect(expected, bad, lambda r: _prices(prices[:, r])) for expected, bad in kinds]
    bad_volume = (volume < 0) | np.isinf(volume)
    return (*found, _defect("volume at or above zero", bad_volume, lambda r: f"volume {volume[r]:g}"))


def _defect(expected: str, bad: NDArray[np.bool_], describe: Callable[[int], str]) -> Defect:
    rows = np.flatnonzero(bad)
    return Defect(expected=expected, rows=rows, example=describe(rows[0]) if len(rows) else "", can_drop=True)


def _prices(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in zip(PRICES, values, strict=True))


def _stamp(times: NDArray[np.int64], row: int) -> str:
    return f"{np.datetime64(int(times[row]), 'ns').astype('datetime64[ms]')}Z"


def _text(lines: Iterator[str]) -> str:
    return next(iter(lines), "")
