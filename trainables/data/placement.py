"""Bars of a `data` section, checked and placed in time: what is known of a market before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time

import numpy as np
from numpy.typing import NDArray

from trainables.data import arch_source
from trainables.data.bars import Bars, digest
from trainables.data.config import DataConfig
from trainables.data.grid import regular_grid
from trainables.data.placed_bars import PlacedBars
from trainables.data.rolls import Contract, roll
from trainables.data.sessions import SessionRows, place, segments, usual_step_s
from trainables.data.validation import JUMP, clean
from trainables.data.zones import day_of, instant
from trainables.errors import DataError


def place_bars(data: DataConfig) -> PlacedBars:
    """Return the bars of a `data` section.

    Raises:
        DataError: They cannot be used.
    """
    places = {"files": _place_files, "synthetic": _place_synthetic}
    placed = places.get(data.source, _place_daily)(data)
    if data.grid == "regular":
        placed = regular_grid(placed)
    return _within(placed, data)


def _place_daily(data: DataConfig) -> PlacedBars:
    _refuse_file_settings(data)
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
    from trainables.data.readers import read_bars, read_contracts  # pyarrow: the default source needs none of it

    where = str(data.bars)
    rolls = data.roll is not None
    raw = read_contracts(data, keep=True) if rolls else {data.symbol or "": read_bars(data, keep=True)}
    cleaned = {name: _clean(bars, name, where, data) for name, bars in raw.items()}
    bars = {name: kept for name, (kept, _) in cleaned.items()}
    n_dropped, n_all = sum(n for _, n in cleaned.values()), sum(map(len, raw.values()))
    longest = max(bars.values(), key=len)
    bar_seconds = data.bar_seconds or usual_step_s(longest.timestamp, where)
    if data.roll is not None:
        placed = _place_contracts(bars, bar_seconds, data, where)
    else:
        placed = _place_series(longest, bar_seconds, data, where)
    marks = {"defects": f"dropped {n_dropped} of {n_all} rows"} if n_dropped else {}
    return replace(placed, marks={**marks, **_jumps(placed), **placed.marks}, digests=(digest(where),))


def _jumps(placed: PlacedBars) -> dict[str, str]:
    """Say where prices jump overnight as they do at a split that nobody adjusted for (B25); rolls are no jumps."""
    if placed.n_rolls:
        return {}
    is_jump = (np.abs(np.diff(np.log(placed.bars.close))) > JUMP) & (np.diff(placed.session) != 0)
    if not is_jump.any():
        return {}
    day = day_of(int(placed.event_time[1:][is_jump][0]))
    return {"jumps": f"{int(is_jump.sum())} over 40 % between sessions, the first on {day}: a split, or an error"}


def _refuse_missing_sessions(number: NDArray[np.int64], data: DataConfig, where: str) -> None:
    """Refuse bars that lack too many sessions of the calendar (B24)."""
    n_found = len(np.unique(number))
    n_expected = int(number.max() - number.min()) + 1
    if n_expected - n_found > data.max_missing_sessions_frac * n_expected:
        raise DataError(
            f"{where}: expected bars in at least {1 - data.max_missing_sessions_frac:.0%} of {n_expected} sessions of "
            f"{data.calendar}, found {n_found}; complete the file, or raise data.max_missing_sessions_frac"
        )


def _clean(bars: Bars, symbol: str, where: str, data: DataConfig) -> tuple[Bars, int]:
    name = f"{where}, {symbol}" if symbol else where
    return clean(bars, name, data.defects, price_tolerance_frac=data.price_tolerance_frac)


def _place_synthetic(data: DataConfig) -> PlacedBars:
    from trainables.data.synthetic import VERSION, make_market  # numba

    _refuse_file_settings(data)
    made = make_market(data)
    bar_seconds = data.bar_seconds or made.bar_seconds
    if data.roll is not None:
        placed = _place_contracts(made.contracts(), bar_seconds, data, "data.synthetic")
    else:
        placed = _place_series(made.bars(), bar_seconds, data, "data.synthetic")
    marks = {**placed.marks, **made.marks}
    return replace(placed, marks=marks, volatility=made.volatility, digests=(f"generator {VERSION}",))


def _refuse_file_settings(data: DataConfig) -> None:
    for name in ("bars", "iv", "symbol", "timezone"):
        if getattr(data, name) is not None:
            raise DataError(f"data.{name}: expected none with data.source: {data.source}, found one; set source: files")


def _place_series(bars: Bars, bar_seconds: int, data: DataConfig, where: str) -> PlacedBars:
    rows = place(bars.timestamp, bar_seconds, data, where)
    _refuse_missing_sessions(rows.number, data, where)
    n_outside = int((~rows.kept).sum())
    outside = f"left out {n_outside} of {len(bars)} rows outside of {data.calendar} {data.session}"
    return PlacedBars(
        bars=bars.take(rows.kept),
        event_time=rows.event_time,
        known_time=rows.known_time,
        session=np.unique(rows.number, return_inverse=True)[1],
        segment=segments(rows, bar_seconds, data.max_gap_bars),
        marks={"sessions": outside} if n_outside else {},
        digests=(),
    )


def _place_contracts(contracts: dict[str, Bars], bar_seconds: int, data: DataConfig, where: str) -> PlacedBars:
    """Place bars of several contracts and make one series of them (DATA-2)."""
    assert data.roll is not None
    rolled = roll(_contracts_in_sessions(contracts, bar_seconds, data, where), data.roll.adjust, where)
    is_roll = np.append(0, np.diff(rolled.contract) != 0)
    segment = segments(rolled.rows, bar_seconds, data.max_gap_bars)
    n_holes = int(segment[-1] - segment[0])
    if data.roll.adjust == "per_contract":
        segment = np.cumsum(np.append(0, np.diff(segment) != 0) | is_roll)
    used = [rolled.symbols[code] for code in np.unique(rolled.contract)]
    marks = {"rolls": f"{int(is_roll.sum())} by volume over {', '.join(used)}; prices {data.roll.adjust}"}
    return PlacedBars(
        bars=rolled.bars,
        event_time=rolled.rows.event_time,
        known_time=rolled.rows.known_time,
        session=np.unique(rolled.rows.number, return_inverse=True)[1],
        segment=segment,
        marks=marks,
        digests=(),
        n_rolls=int(segment[-1] - segment[0]) - n_holes,
    )


def _contracts_in_sessions(
    contracts: dict[str, Bars], bar_seconds: int, data: DataConfig, where: str
) -> dict[str, Contract]:
    """Place all contracts by one schedule, so that a session has one number for all."""
    times = np.concatenate([bars.timestamp for bars in contracts.values()])
    owner = np.repeat(np.arange(len(contracts)), [len(bars) for bars in contracts.values()])
    order = np.argsort(times, kind="stable")
    rows = place(times[order], bar_seconds, data, where)
    _refuse_missing_sessions(rows.number, data, where)
    placed = {}
    for code, (symbol, bars) in enumerate(contracts.items()):
        is_own = owner[order] == code
        own = is_own[rows.kept]
        placed[symbol] = Contract(
            symbol=symbol,
            bars=bars,
            rows=SessionRows(
                kept=rows.kept[is_own],
                event_time=rows.event_time[own],
                known_time=rows.known_time[own],
                number=rows.number[own],
            ),
        )
    return placed


def _within(placed: PlacedBars, data: DataConfig) -> PlacedBars:
    """Keep `[data.start, data.end)`, days in New York."""
    low = _day_start(data.start, "start", default=int(placed.event_time[0]))
    high = _day_start(data.end, "end", default=int(placed.known_time[-1]) + 1)
    keep = (placed.event_time >= low) & (placed.event_time < high)
    if not keep.any():
        raise DataError(
            f"data.start, data.end: expected bars in [{data.start}, {data.end}), found none; widen the range"
        )
    return placed.rows(keep)


def _day_start(text: str | None, setting: str, default: int) -> int:
    if text is None:
        return default
    try:
        return instant(date.fromisoformat(text), time())
    except ValueError:
        raise DataError(f"data.{setting}: expected a day such as 2024-01-31, found {text!r}") from None
