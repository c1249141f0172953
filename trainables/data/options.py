"""Option chains from files: quotes and Greeks of many contracts at many instants, checked row by row (B32-B35).

Columns, in Parquet or CSV: timestamp, underlying, expiry, strike, type (call or put), bid, ask, last, volume,
open_interest, iv, delta, gamma, theta, vega, underlying_price. All but timestamp, expiry, strike, type may be absent.
A bad quote is masked with a reason and counted; nothing is ever filled in.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import time as clock
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainables.data.config import ChainConfig
from trainables.data.readers import existing, numbers, read_table
from trainables.data.timestamps import read_times
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, instants
from trainables.errors import DataError
from trainables.trading.black_scholes import SECONDS_PER_YEAR

Float = NDArray[np.float64]
Int = NDArray[np.int64]
REQUIRED = ("timestamp", "expiry", "strike", "type")
NUMBERS = (
    "bid",
    "ask",
    "last",
    "volume",
    "open_interest",
    "iv",
    "delta",
    "gamma",
    "theta",
    "vega",
    "underlying_price",
)
EXPIRY_CLOCK = clock(16)
"""When an expiry given as a date ends on a full session, New York; on a half day it is that session's close."""
SIGNS = {"call": 1.0, "c": 1.0, "put": -1.0, "p": -1.0}
PARITY_RANGE = 0.05
"""Strikes further from the money, as a share, do not count in put-call parity: their spreads are wide."""
PARITY_PAIRS = 3
"""Fewer strikes do not make a forward: the quote to be judged could be one of them."""
REASONS = (
    "good",
    "expired",
    "no bid or no ask",
    "negative bid or ask",
    "zero bid",
    "crossed",
    "locked",
    "outside no-arbitrage bounds",
)
"""What is wrong with a quote; a row has the first that holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Rows in time order; arrays (n_rows,), numbers NaN where the file has none.

    Attributes:
        timestamp: ns UTC, not decreasing, as stamped.
        expiry: ns UTC: the moment at which the contract ends.
        strike: Above zero. is_call: +1 call, -1 put.
        bid, ask, last, underlying_price: Prices. volume, open_interest: contracts. iv: annual decimal.
        delta, gamma, theta, vega: As the file has them; see `greek_units` for their conversion.
    """

    timestamp: Int
    expiry: Int
    strike: Float
    is_call: Float
    bid: Float
    ask: Float
    last: Float
    volume: Float
    open_interest: Float
    iv: Float
    delta: Float
    gamma: Float
    theta: Float
    vega: Float
    underlying_price: Float

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def years(self) -> Float:
        """Time to expiry of each row, in years of 365 days; at or below zero where it has expired."""
        return (self.expiry - self.timestamp) / (SECONDS_PER_YEAR * NS_PER_SECOND)

    @property
    def mid(self) -> Float:
        return 0.5 * (self.bid + self.ask)

    def take(self, rows: NDArray[Any]) -> Chain:
        """Return the given rows, by position or by mask."""
        return Chain(**{name: getattr(self, name)[rows] for name in self.__slots__})

    def replace(self, **columns: NDArray[Any]) -> Chain:
        """Return the chain with other columns."""
        return replace(self, **columns)


def read_chain(settings: ChainConfig, timezone: str | None) -> Chain:
    """Read a file of option rows.

    Args:
        settings: Path, underlying, and what a date of expiry means.
        timezone: IANA zone of naive timestamps.

    Raises:
        DataError: The file is no table, lacks a column, holds several underlyings and none is chosen, a strike is not
            above zero, a type is neither call nor put, an expiry lies on no session's date or before, or a contract
            is there twice at an instant.
    """
    path = existing(settings.path, "data.chain.path")
    table = _one_underlying(read_table(path, REQUIRED, ("underlying", *NUMBERS)), settings.underlying, path)
    times = read_times(table["timestamp"], zone=timezone, where=str(path), now_ns=time.time_ns())
    none = np.full(len(times), np.nan)
    columns = {name: numbers(table, name, path) if name in table.column_names else none for name in NUMBERS}
    strike = numbers(table, "strike", path)
    _refuse(~(np.isfinite(strike) & (strike > 0)), path, "a strike above zero", strike)
    rows = {
        "timestamp": times,
        "expiry": _expiries(table["expiry"], timezone, path),
        "strike": strike,
        "is_call": _signs(table["type"], path),
        **columns,
    }
    order = np.lexsort((rows["is_call"], rows["strike"], rows["expiry"], rows["timestamp"]))
    chain = Chain(**{name: column[order] for name, column in rows.items()})
    _refuse_duplicates(chain, order, path)
    return chain


def quote_reasons(chain: Chain, rate_ann: float, tolerance_frac: float = 1e-3) -> NDArray[np.int8]:
    """Return for each row the position in `REASONS` of what is wrong with its quote; 0: nothing (B32-B34).

    Bounds are those of European options on the forward (Merton 1973): no option may be offered below its discounted
    payoff at the forward, no call be bid above the discounted forward, no put above the discounted strike. The forward
    is that of put-call parity, which knows of dividends; without a pair of quotes it is the underlying's price carried
    at the rate, and without that price bounds are not looked at.

    Args:
        chain: Rows in the order of `read_chain`.
        rate_ann: Per year, continuously compounded.
        tolerance_frac: Share of the underlying's price by which bounds may be missed: its price and the quotes are
            not of the same instant.
    """
    years, bid, ask = chain.years, chain.bid, chain.ask
    discount = np.exp(-rate_ann * np.maximum(years, 0.0))
    forward = implied_forward(chain, rate_ann)
    forward = np.where(np.isnan(forward), chain.underlying_price / discount, forward)
    tolerance = tolerance_frac * forward
    lowest = discount * np.maximum(chain.is_call * (forward - chain.strike), 0.0) - tolerance
    highest = discount * np.where(chain.is_call > 0, forward, chain.strike) + tolerance
    conditions = (
        years <= 0,
        np.isnan(bid) | np.isnan(ask),
        (bid < 0) | (ask < 0),
        bid == 0,
        bid > ask,
        bid == ask,
        (ask < lowest) | (bid > highest),
    )
    return np.select(conditions, range(1, len(REASONS)), default=0).astype(np.int8)


def implied_forward(chain: Chain, rate_ann: float) -> Float:
    """Return for each row the forward price of its instant and expiry by put-call parity, (n_rows,); NaN without pairs.

    F = K + (C - P) e^{rT} (Stoll 1969), the median over the strikes within `PARITY_RANGE` of the one with the smallest
    |C - P|, of mid prices with bid below ask and above zero; NaN from fewer than `PARITY_PAIRS`. Rows in the order of
    `read_chain`.
    """
    import pandas as pd

    is_put = np.flatnonzero(chain.is_call[:-1] < 0)
    same = [
        getattr(chain, name)[is_put] == getattr(chain, name)[is_put + 1] for name in ("timestamp", "expiry", "strike")
    ]
    quoted = (chain.bid > 0) & (chain.bid < chain.ask)
    put = is_put[np.logical_and.reduce([*same, quoted[is_put], quoted[is_put + 1]])]
    gap = chain.mid[put + 1] - chain.mid[put]
    keys = ["timestamp", "expiry"]
    pairs = pd.DataFrame({"timestamp": chain.timestamp[put], "expiry": chain.expiry[put], "strike": chain.strike[put]})
    pairs["forward"] = chain.strike[put] + gap * np.exp(rate_ann * np.maximum(chain.years[put], 0.0))
    nearest = pairs.loc[pairs.assign(gap=np.abs(gap)).groupby(keys)["gap"].idxmin(), [*keys, "strike"]]
    pairs = pairs.merge(nearest.rename(columns={"strike": "centre"}), on=keys)
    pairs = pairs[np.abs(pairs["strike"] / pairs["centre"] - 1) <= PARITY_RANGE]
    medians = pairs.groupby(keys)["forward"].agg(["median", "size"]).reset_index()
    medians["forward"] = medians["median"].where(medians["size"] >= PARITY_PAIRS)
    rows = pd.DataFrame({"timestamp": chain.timestamp, "expiry": chain.expiry})
    return rows.merge(medians[[*keys, "forward"]], on=keys, how="left")["forward"].to_numpy()


def count_reasons(reasons: NDArray[np.int8]) -> dict[str, int]:
    """Return how many rows have each reason that occurs, good ones left out."""
    counts = np.bincount(reasons, minlength=len(REASONS))
    return {name: int(n) for name, n in zip(REASONS[1:], counts[1:], strict=True) if n}


def nearest_strikes(
    chain: Chain, spot: Float, *, n_strikes: int = 50, min_volume: float = 1.0, keep_far_strikes: bool = False
) -> NDArray[np.bool_]:
    """Return which rows are among the strikes nearest to the price of the underlying (DATA-14).

    At each instant, for each expiry and type, the `n_strikes` contracts with the smallest |strike - spot| are kept,
    the lower of two at equal distance; before that, contracts with too little volume are left out.

    Args:
        chain: Rows.
        spot: (n_rows,) price of the underlying known before each row's instant: the lagged one.
        n_strikes: Of each type.
        min_volume: Contracts traded; 0 keeps rows without volume too.
        keep_far_strikes: Keep every strike with that volume (C-3).
    """
    is_traded = chain.volume >= min_volume if min_volume > 0 else np.ones(len(chain), dtype=bool)
    if keep_far_strikes:
        return is_traded
    rows = np.flatnonzero(is_traded)
    part = chain.take(rows)
    distance = np.abs(part.strike - spot[rows])
    order = np.lexsort((part.strike, distance, part.is_call, part.expiry, part.timestamp))
    group = np.stack([part.timestamp[order], part.expiry[order], part.is_call[order].astype(np.int64)])
    is_first = np.append(True, (np.diff(group, axis=1) != 0).any(axis=0)) if len(rows) else np.empty(0, bool)
    position = np.arange(len(rows))
    rank = position - np.maximum.accumulate(np.where(is_first, position, 0))
    kept = np.zeros(len(chain), dtype=bool)
    kept[rows[order[rank < n_strikes]]] = True
    return kept


def _one_underlying(table: pa.Table, underlying: str | None, path: Path) -> pa.Table:
    if "underlying" not in table.column_names:
        return table
    present = sorted(str(name) for name in table["underlying"].unique().to_pylist())
    if underlying is None and len(present) > 1:
        raise DataError(f"{path}: expected one underlying, found {', '.join(present)}; set data.chain.underlying")
    if underlying is not None and underlying not in present:
        raise DataError(f"data.chain.underlying: expected one of {', '.join(present)}, found {underlying!r}")
    return table if len(present) == 1 else table.filter(pc.equal(table["underlying"], underlying))


def _signs(column: pa.ChunkedArray, path: Path) -> Float:
    texts = pc.utf8_lower(column.cast(pa.string())).combine_chunks().dictionary_encode()
    names = [str(name) for name in texts.dictionary.to_pylist()]
    signs = np.array([SIGNS.get(name, np.nan) for name in names] + [np.nan])
    values = signs[texts.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
    _refuse(np.isnan(values), path, "type call or put", np.asarray(column.to_numpy(), dtype=object))
    return values


def _expiries(column: pa.ChunkedArray, timezone: str | None, path: Path) -> Int:
    """Return the instants of a column of dates, or of timestamps with a time of day, which are taken as they are."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            column = column.cast(pa.date32())
        except pa.ArrowInvalid:
            return read_times(column, zone=timezone, where=f"{path}, expiry", now_ns=2**62)
    if not pa.types.is_date(column.type):
        return read_times(column, zone=timezone, where=f"{path}, expiry", now_ns=2**62)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(
            f"{path}: row {row + 1}: expected an expiry, found none ({column.null_count} rows); take them out"
        )
    days = column.cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64)
    unique, where = np.unique(days, return_inverse=True)
    return _session_closes(unique)[where]


def _session_closes(days: Int) -> Int:
    """Return when the session of each day, or the last one before it, ends (B35); beyond the calendar 16:00.

    Listed options of a Saturday or of a holiday end with the session before.
    """
    from trainables.data.config import DataConfig
    from trainables.data.sessions import schedule

    plain = instants(days, EXPIRY_CLOCK)
    plan = schedule(DataConfig(), int(plain.min()) - 7 * NS_PER_DAY, int(plain.max()))
    position = np.searchsorted(plan.day, days, side="right") - 1
    return np.where(days > plan.day[-1], plain, plan.close[np.maximum(position, 0)])


def _refuse(is_bad: NDArray[np.bool_], path: Path, expected: str, values: NDArray[Any]) -> None:
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise DataError(
            f"{path}: row {row + 1}: expected {expected}, found {values[row]} ({int(is_bad.sum())} rows); correct them"
        )


def _refuse_duplicates(chain: Chain, order: Int, path: Path) -> None:
    names = ("timestamp", "expiry", "strike", "is_call")
    same = np.logical_and.reduce([np.diff(getattr(chain, name)) == 0 for name in names])
    if same.any():
        rows = order[np.flatnonzero(same) + 1]
        raise DataError(
            f"{path}: row {int(rows.min()) + 1}: expected one row per timestamp, expiry, strike and type, found "
            f"another ({len(rows)} rows); take them out"
        )
