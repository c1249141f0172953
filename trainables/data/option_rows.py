"""Rows keyed by time and contract: at each bar the contracts nearest to the money, one possible trade each (DATA-16).

The stream is made block by block of bars from the chain, in time order; nothing is held but the newest quote of each
contract. Of the expiries that are quoted the one nearest to the wanted days is taken, of it so many strikes of each
type (DATA-14): with 50, a day of minutes gives 39,000 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trainables.data.asof import NO_ROW, key_codes
from trainables.data.chain import PUT
from trainables.data.config import DataConfig
from trainables.data.listed_option import CheckedChain, option_values
from trainables.data.options import Chain
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND
from trainables.errors import DataError

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionRows:
    """Options of some bars, (n_rows,) each, by bar and within it by contract; units as in `Market`.

    Attributes:
        bar: Position of the bar. contract: Number of (expiry, strike, type), in that order.
        is_reference: Whether it is the put nearest to the money: one row of a bar at most.
        strike, delta, gamma, vega, theta, option_iv, spread_ratio: As of its newest good quote.
        is_call: +1 call, -1 put.
    """

    bar: Int
    contract: Int
    is_reference: NDArray[np.bool_]
    strike: Float
    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    option_iv: Float
    spread_ratio: Float
    is_call: Float

    def __len__(self) -> int:
        return len(self.bar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contracts:
    """A chain, its contracts numbered by expiry, strike and type (put first), and which rows of it may be used."""

    chain: Chain
    number: NDArray[np.int32]
    is_usable: NDArray[np.bool_]


def contracts_of(checked: CheckedChain, data: DataConfig) -> Contracts:
    """Number the contracts of a chain, and leave out rows without a good quote or with too little volume.

    Raises:
        DataError: No row is left.
    """
    settings, chain = data.chain, checked.chain
    assert settings is not None
    columns = (chain.expiry, chain.strike, chain.is_call)
    codes, _ = key_codes(*((column, column[:0]) for column in columns))
    _, first = np.unique(codes, return_index=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.lexsort(tuple(column[first] for column in reversed(columns)))] = np.arange(len(first), dtype=np.int32)
    is_usable = checked.is_good & ((chain.volume >= settings.min_volume) | (settings.min_volume == 0))
    if not is_usable.any():
        raise DataError(
            f"{settings.path}: expected rows with a good quote and a volume of {settings.min_volume:g} contracts, "
            "found none; lower data.chain.min_volume (0 asks for no volume)"
        )
    return Contracts(chain=chain, number=rank[codes], is_usable=is_usable)


def option_rows(
    contracts: Contracts, known_time: Int, close: Float, data: DataConfig, *, bars_at_once: int = 64
) -> Iterator[OptionRows]:
    """Yield the rows of all bars, a block of bars at a time.

    Args:
        contracts: The numbered chain.
        known_time: (n_bars,) ns UTC, increasing: the moments of decision.
        close: (n_bars,) prices known then, times `data.price_scale`.
        data: Days to expiry, age, lag, number of strikes and scale.
        bars_at_once: Bars of a block; memory grows with it.
    """
    settings, chain = data.chain, contracts.chain
    assert settings is not None
    lag = round(settings.lag_s * NS_PER_SECOND)
    n_contracts = int(contracts.number.max()) + 1
    newest, listed = np.full(n_contracts, NO_ROW), np.zeros(n_contracts, dtype=np.int64)
    is_listed, progress = np.zeros(n_contracts, dtype=np.bool_), np.zeros(2, dtype=np.int64)
    for start in range(0, len(known_time), bars_at_once):
        times = known_time[start : start + bars_at_once]
        bar, row, is_reference = _nearest_contracts(
            times,
            close[start : start + bars_at_once] / data.price_scale,
            chain.timestamp,
            lag,
            contracts.number,
            contracts.is_usable,
            chain.expiry,
            chain.strike,
            chain.is_call,
            round(data.option_days * NS_PER_DAY),
            round(settings.max_age_minutes * 60 * NS_PER_SECOND),
            settings.n_strikes,
            newest,
            listed,
            is_listed,
            progress,
        )
        chosen = chain.take(row)
        values = option_values(chosen, data)
        yield OptionRows(
            bar=bar + start,
            contract=contracts.number[row].astype(np.int64),
            is_reference=is_reference,
            option_iv=values.pop("iv"),
            is_call=chosen.is_call,
            **values,
        )


@njit(cache=True, nogil=True)
def _nearest_contracts(  # type: ignore[no-untyped-def]
    known_time, close, stamp, lag, number, is_usable, expiry, strike, is_call, wanted_ns, max_age_ns, n_strikes,
    newest, listed, is_listed, progress,
):  # fmt: skip
    """Return bar, chain row and whether it is the reference of each row; what is listed is carried from block to block.

    Contracts without a fresh quote leave the list, as in `listed_option`.
    """
    bars = np.empty(len(known_time) * 2 * n_strikes, dtype=np.int64)
    rows, is_reference = np.empty_like(bars), np.zeros(len(bars), dtype=np.bool_)
    n_listed, quote, n_rows = progress[0], progress[1], 0
    for bar in range(len(known_time)):
        now = known_time[bar]
        while quote < len(stamp) and stamp[quote] + lag <= now:
            code = number[quote]
            if is_usable[quote]:
                newest[code] = quote
                if not is_listed[code]:
                    is_listed[code] = True
                    listed[n_listed] = code
                    n_listed += 1
            quote += 1
        nearest_days, i = np.int64(-1), 0
        while i < n_listed:
            row = newest[listed[i]]
            if now - stamp[row] > max_age_ns or expiry[row] <= now:
                is_listed[listed[i]] = False
                n_listed -= 1
                listed[i] = listed[n_listed]
                continue
            days = abs(expiry[row] - now - wanted_ns)
            nearest_days = days if nearest_days < 0 else min(days, nearest_days)
            i += 1
        first = n_rows
        for side in (-1.0, 1.0):
            found = np.array(
                [
                    newest[code]
                    for code in listed[:n_listed]
                    if is_call[newest[code]] == side and abs(expiry[newest[code]] - now - wanted_ns) == nearest_days
                ],
                dtype=np.int64,
            )
            found = found[np.argsort(strike[found], kind="mergesort")]
            found = found[np.argsort(np.abs(strike[found] - close[bar]), kind="mergesort")[:n_strikes]]
            if side == PUT and len(found):
                is_reference[n_rows] = True
            rows[n_rows : n_rows + len(found)] = found
            n_rows += len(found)
        bars[first:n_rows] = bar
        by_contract = first + np.argsort(number[rows[first:n_rows]], kind="mergesort")
        rows[first:n_rows], is_reference[first:n_rows] = rows[by_contract], is_reference[by_contract]
    progress[0], progress[1] = n_listed, quote
    return bars[:n_rows], rows[:n_rows], is_reference[:n_rows]
