"""Rows keyed by time and contract: at each bar the contracts nearest to the money, one possible trade each (DATA-16).

The stream is made block by block of bars from the chain, in time order; nothing is held but the newest quote of each
contract (`nearest_contracts`). With 50 strikes of each type (DATA-14) a day of minutes gives 39,000 rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.asof import key_codes
from trainables.data.config import DataConfig
from trainables.data.listed_option import CheckedChain, option_values
from trainables.data.nearest_contracts import NearestContracts
from trainables.data.options import Chain
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
    nearest = NearestContracts(chain, contracts.number, contracts.is_usable, data, settings.n_strikes)
    for start in range(0, len(known_time), bars_at_once):
        block = slice(start, start + bars_at_once)
        bar, row, is_reference = nearest.at(known_time[block], close[block] / data.price_scale)
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
