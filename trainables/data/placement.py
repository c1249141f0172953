"""Bars of a `data` section, checked and placed in time: what is known of a market before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time

import numpy as np
from numpy.typing import NDArray

from trainables.data import arch_source
from trainables.data.bars import Bars, digest
from trainables.data.config import DataConfig
from trainables.data.sessions import place, segments, usual_step_s
from trainables.data.validation import clean
from trainables.data.volatility import Volatility
from trainables.data.zones import instant
from trainables.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedBars:
    """Clean bars in time order, all arrays (n_bars,).

    Attributes:
        bars: Prices and volume as the file has them.
        event_time, known_time: Start and end of each bar, ns UTC.
        session, segment: As in `Market`.
        marks: What was left out.
        digests: Hashes of the files that were read.
        volatility: Implied volatility that comes with the bars; None: none does.
    """

    bars: Bars
    event_time: NDArray[np.int64]
    known_time: NDArray[np.int64]
    session: NDArray[np.int64]
    segment: NDArray[np.int64]
    marks: dict[str, str]
    digests: tuple[str, ...]
    volatility: Volatility | None = None

    def before(self, end: int) -> PlacedBars:
        """Return the rows known before an instant."""
        n = int(np.searchsorted(self.known_time, end))
        return PlacedBars(
            bars=self.bars.take(np.arange(n)),
            event_time=self.event_time[:n],
            known_time=self.known_time[:n],
            session=self.session[:n],
            segment=self.segment[:n],
            marks=self.marks,
            digests=self.digests,
            volatility=self.volatility,
        )


def place_bars(data: DataConfig) -> PlacedBars:
    """Return the bars of a `data` section.

    Raises:
        DataError: They cannot be used.
    """
    placed = _place_files(data) if data.source == "files" else _place_daily(data)
    return _within(placed, data)


def _place_daily(data: DataConfig) -> PlacedBars:
    for name in ("bars", "iv", "symbol", "timezone"):
        if getattr(data, name) is not None:
            raise DataError(f"data.{name}: expected none with data.source: {data.source}, found one; set source: files")
    bars, known_time, file_digest = arch_source.read_daily_bars(data.source)
    clean(bars, data.source, "error", price_tolerance_frac=data.price_tolerance_frac)
    n = len(bars)
    return PlacedBars(
        bars=bars,
        event_time=bars.timestamp,
        known_time=known_time,
        session=np.arange(n),
        segment=np.zeros(n, dtype=np.int64),
        marks={},
        digests=(file_digest,),
    )


def _place_files(data: DataConfig) -> PlacedBars:
    from trainables.data.readers import read_bars  # pyarrow: the default source needs none of it

    where = str(data.bars)
    raw = read_bars(data)
    bars, n_dropped = clean(raw, where, data.defects, price_tolerance_frac=data.price_tolerance_frac)
    bar_seconds = data.bar_seconds or usual_step_s(bars.timestamp, where)
    rows = place(bars.timestamp, bar_seconds, data, where)
    marks = {"defects": f"dropped {n_dropped} of {len(raw)} rows"} if n_dropped else {}
    n_outside = int((~rows.kept).sum())
    if n_outside:
        marks["sessions"] = f"left out {n_outside} of {len(bars)} rows outside of {data.calendar} {data.session}"
    return PlacedBars(
        bars=bars.take(rows.kept),
        event_time=rows.event_time,
        known_time=rows.known_time,
        session=np.unique(rows.number, return_inverse=True)[1],
        segment=segments(rows, bar_seconds, data.max_gap_bars),
        marks=marks,
        digests=(digest(where),),
    )


def _within(placed: PlacedBars, data: DataConfig) -> PlacedBars:
    """Keep `[data.start, data.end)`, days in New York."""
    low = _day_start(data.start, "start", default=int(placed.event_time[0]))
    high = _day_start(data.end, "end", default=int(placed.known_time[-1]) + 1)
    keep = (placed.event_time >= low) & (placed.event_time < high)
    if not keep.any():
        raise DataError(
            f"data.start, data.end: expected bars in [{data.start}, {data.end}), found none; widen the range"
        )
    return PlacedBars(
        bars=placed.bars.take(keep),
        event_time=placed.event_time[keep],
        known_time=placed.known_time[keep],
        session=np.unique(placed.session[keep], return_inverse=True)[1],
        segment=placed.segment[keep],
        marks=placed.marks,
        digests=placed.digests,
        volatility=placed.volatility,
    )


def _day_start(text: str | None, setting: str, default: int) -> int:
    if text is None:
        return default
    try:
        return instant(date.fromisoformat(text), time())
    except ValueError:
        raise DataError(f"data.{setting}: expected a day such as 2024-01-31, found {text!r}") from None
