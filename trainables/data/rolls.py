"""Contracts of a future as one series: which contract is traded in which session, decided by volume (DATA-2, C-12).

A session is traded in the contract that the sessions completed before it point to: as soon as a later contract has
traded more than the current one in a whole session, the next session trades the later one. It never rolls back. The
first session of the data points to its busiest contract and is left out itself: its volume was not known before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.bars import PRICES, Bars
from trainables.data.sessions import SessionRows
from trainables.errors import DataError

Int = NDArray[np.int64]
Adjust = Literal["per_contract", "ratio_back_adjust", "none"]
MONTHS = "FGHJKMNQUVXZ"
"""Letters of delivery months, January to December."""
CODE = re.compile(rf"(?P<root>.+?)(?P<month>[{MONTHS}])(?P<year>\d{{1,2}}|\d{{4}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One contract's clean bars and where its kept ones lie in sessions."""

    symbol: str
    bars: Bars
    rows: SessionRows


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBars:
    """One series out of contracts, (n_bars,) arrays in time order.

    Attributes:
        bars: Prices, adjusted as asked for.
        rows: Their sessions, all kept.
        contract: Position of each bar's contract in `symbols`.
        symbols: Contracts in order of delivery.
        ratio: What the contract's prices were multiplied by.
    """

    bars: Bars
    rows: SessionRows
    contract: Int
    symbols: tuple[str, ...]
    ratio: NDArray[np.float64]


def delivery(symbol: str, year_near: int, where: str) -> tuple[str, int]:
    """Return the root of a contract's symbol and its delivery month, counted in months from the year 0.

    One or two digits of a year mean the year of that ending nearest to `year_near`, the later of two equally near.

    Raises:
        DataError: The symbol has no month letter and year at its end.
    """
    match = CODE.fullmatch(symbol)
    if match is None:
        raise DataError(f"{where}: expected contracts such as ESZ24 to roll, found {symbol!r}; unset data.roll")
    digits = match["year"]
    year = int(digits)
    if len(digits) < 4:
        cycle = 10 ** len(digits)
        candidates = [year + cycle * k for k in range((year_near - cycle) // cycle, year_near // cycle + 2)]
        year = min(candidates, key=lambda y: (abs(y - year_near), -y))
    return match["root"], 12 * year + MONTHS.index(match["month"])


def traded_contract(volume: NDArray[np.float64]) -> Int:
    """Return which contract each session trades, from volumes of sessions completed before; -1 in the first.

    Args:
        volume: (n_sessions, n_contracts) in order of time and of delivery; 0 where nothing was traded.
    """
    traded = np.full(len(volume), -1, dtype=np.int64)
    current = -1
    for session in range(1, len(volume)):
        completed = volume[session - 1]
        if current < 0:
            current = int(np.argmax(completed))
        later = current + int(np.argmax(completed[current:]))
        if completed[later] > completed[current]:
            current = later
        traded[session] = current
    return traded


def roll(contracts: Mapping[str, Contract], adjust: Adjust, where: str) -> RolledBars:
    """Return the series of the traded contracts.

    `ratio_back_adjust` makes contracts meet by the ratio of their last closes at one instant of the sessions before the
    roll. Ratios multiply the later contract and the ones after it, not the ones before: the same returns, and nothing
    that happens later changes an earlier price.

    Args:
        contracts: By symbol.
        adjust: `per_contract` and `none` leave prices as they are.
        where: File name for messages.

    Raises:
        DataError: Symbols are no contracts of one future; there is no volume; no bar is left; two contracts that
            follow one another have no bar in common.
    """
    symbols = _in_order(contracts, where)
    numbers = np.unique(np.concatenate([contracts[s].rows.number for s in symbols]))
    volume = np.stack([_session_volume(contracts[s], numbers) for s in symbols], axis=1)
    if not volume.any():
        raise DataError(f"{where}: expected volumes to roll contracts by, found none; unset data.roll, set data.symbol")
    traded = traded_contract(volume)
    ratios = _ratios(contracts, symbols, traded, numbers, where) if adjust == "ratio_back_adjust" else {}
    parts = []
    for code, symbol in enumerate(symbols):
        item = contracts[symbol]
        rows = np.flatnonzero(traded[np.searchsorted(numbers, item.rows.number)] == code)
        parts.append((item.bars.take(item.rows.kept).take(rows), _take(item.rows, rows), code, ratios.get(code, 1.0)))
    if not any(len(part[0]) for part in parts):
        raise DataError(f"{where}: expected bars after the first session to roll contracts, found none; give more data")
    return _join(parts, symbols)


def _in_order(contracts: Mapping[str, Contract], where: str) -> tuple[str, ...]:
    first = min(int(item.bars.timestamp[0]) for item in contracts.values())
    year = 1970 + int(first // (365.25 * 86_400 * 10**9))
    parsed = {symbol: delivery(symbol, year, where) for symbol in contracts}
    roots = sorted({root for root, _ in parsed.values()})
    if len(roots) > 1:
        raise DataError(f"{where}: expected contracts of one future, found {', '.join(roots)}; set data.symbol to one")
    return tuple(sorted(contracts, key=lambda symbol: parsed[symbol][1]))


def _session_volume(contract: Contract, numbers: Int) -> NDArray[np.float64]:
    volume = np.nan_to_num(contract.bars.volume[contract.rows.kept])
    return np.bincount(np.searchsorted(numbers, contract.rows.number), weights=volume, minlength=len(numbers))


def _ratios(
    contracts: Mapping[str, Contract], symbols: tuple[str, ...], traded: Int, numbers: Int, where: str
) -> dict[int, float]:
    """Return what each traded contract is multiplied by to meet the one before it."""
    sessions = np.flatnonzero(traded >= 0)
    factor, ratios = 1.0, {int(traded[sessions[0]]): 1.0} if len(sessions) else {}
    for before, after in pairwise(sessions):
        old, new = int(traded[before]), int(traded[after])
        if old == new:
            continue
        old_time, old_close = _closes(contracts[symbols[old]], numbers[after])
        new_time, new_close = _closes(contracts[symbols[new]], numbers[after])
        shared, i, j = np.intersect1d(old_time, new_time, return_indices=True)
        if len(shared) == 0:
            raise DataError(
                f"{where}: expected a bar of both {symbols[old]} and {symbols[new]} before the roll, found none; "
                "set data.roll.adjust: per_contract"
            )
        factor *= old_close[i[-1]] / new_close[j[-1]]
        ratios[new] = factor
    return ratios


def _closes(contract: Contract, session: int) -> tuple[Int, NDArray[np.float64]]:
    """Return times and closes of a contract before a session."""
    is_before = contract.rows.number < session
    return contract.rows.event_time[is_before], contract.bars.close[contract.rows.kept][is_before]


def _take(rows: SessionRows, positions: Int) -> SessionRows:
    return SessionRows(
        kept=np.ones(len(positions), dtype=bool),
        event_time=rows.event_time[positions],
        known_time=rows.known_time[positions],
        number=rows.number[positions],
    )


def _join(parts: list[tuple[Bars, SessionRows, int, float]], symbols: tuple[str, ...]) -> RolledBars:
    order = np.argsort(np.concatenate([rows.event_time for _, rows, _, _ in parts]), kind="stable")
    ratio = np.concatenate([np.full(len(bars), factor) for bars, _, _, factor in parts])[order]
    columns = {
        name: np.concatenate([getattr(bars, name) for bars, _, _, _ in parts])[order]
        for name in ("timestamp", *PRICES, "volume")
    }
    sessions = {
        name: np.concatenate([getattr(rows, name) for _, rows, _, _ in parts])[order]
        for name in ("kept", "event_time", "known_time", "number")
    }
    return RolledBars(
        bars=Bars(**{name: values * ratio if name in PRICES else values for name, values in columns.items()}),
        rows=SessionRows(**sessions),
        contract=np.concatenate([np.full(len(bars), code) for bars, _, code, _ in parts])[order],
        symbols=symbols,
        ratio=ratio,
    )
