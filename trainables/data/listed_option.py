"""The reference option of each bar from a listed chain (DATA-15, DATA-19): measured where `chain` models one.

At each bar it is the put with a good quote, known and not too old, that `nearest_contracts` finds nearest to the money.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.asof import NO_ROW, key_codes
from trainables.data.chain import PUT, ReferenceOption
from trainables.data.config import DataConfig
from trainables.data.greek_units import GreekUnits, convert_greeks, detect_units, with_spot
from trainables.data.implied_volatility import implied_volatility
from trainables.data.nearest_contracts import NearestContracts
from trainables.data.options import Chain, count_reasons, quote_reasons, read_chain
from trainables.data.zones import NS_PER_DAY
from trainables.errors import DataError
from trainables.trading.black_scholes import greeks

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedChain:
    """A chain with its Greeks in our units, where its quotes are good, and in words what was found."""

    chain: Chain
    is_good: NDArray[np.bool_]
    mark: str


def checked_chain(data: DataConfig) -> CheckedChain:
    """Read the file of `data.chain` and check every row of it.

    Raises:
        DataError: See `read_chain` and `detect_units`; or too few rows have a good quote.
    """
    settings = data.chain
    assert settings is not None
    chain, n_inferred = with_spot(read_chain(settings, data.timezone), data.rate_ann)
    reasons = quote_reasons(chain, data.rate_ann, settings.bounds_tolerance_frac)
    counts = "; ".join(f"{n} {reason}" for reason, n in count_reasons(reasons).items())
    coverage = float((reasons == 0).mean())
    if coverage < settings.min_coverage:
        raise DataError(
            f"{settings.path}: expected good quotes in {settings.min_coverage:.0%} of {len(chain)} rows, found "
            f"{coverage:.1%} (masked: {counts}); give quotes or lower data.chain.min_coverage"
        )
    names = settings.greek_units
    units = GreekUnits.declared(names) if names else detect_units(chain, data.rate_ann, settings.path)
    mark = (
        f"measured, {coverage:.1%} of {len(chain)} rows with a good quote (masked: {counts or 'none'}); Greeks: {units}"
    )
    if n_inferred:
        mark += f"; price of the underlying inferred from delta in {n_inferred} rows"
    return CheckedChain(chain=convert_greeks(chain, units), is_good=reasons == 0, mark=mark)


def listed_option(checked: CheckedChain, known_time: Int, close: Float, data: DataConfig) -> ReferenceOption:
    """Return the reference option of each bar; NaN where no good quote is known.

    Args:
        checked: Chain and its good rows.
        known_time: (n_bars,) ns UTC, increasing.
        close: (n_bars,) prices times `data.price_scale`.
        data: Days to expiry, age, lag, rate and scale.

    Raises:
        DataError: No bar has an option.
    """
    settings = data.chain
    assert settings is not None
    puts = checked.chain.take(checked.is_good & (checked.chain.is_call == PUT))
    rows = _choose_rows(puts, known_time, close / data.price_scale, data)
    if (rows == NO_ROW).all():
        raise DataError(
            f"{settings.path}: expected quotes at most {settings.max_age_minutes:g} minutes old at some bar, found "
            "none; raise data.chain.max_age_minutes (an end-of-day chain needs 5760), or check the dates of both files"
        )
    has_option = rows != NO_ROW
    chosen = puts.take(np.maximum(rows, 0))
    years = chosen.years - (known_time - chosen.timestamp) / (365 * NS_PER_DAY)
    values = {"years": years, **option_values(chosen, data)}
    return ReferenceOption(**{name: np.where(has_option, column, np.nan) for name, column in values.items()})


def option_values(rows: Chain, data: DataConfig) -> dict[str, Float]:
    """Return strike, delta, gamma, vega, theta, iv and spread_ratio of rows with a good quote, in the market's units.

    Where the chain has no volatility it is solved from the mid price, where it has no Greek Black-Scholes gives it.
    """
    solved = implied_volatility(rows.mid, rows.underlying_price, rows.strike, rows.years, data.rate_ann, rows.is_call)
    iv = np.where(rows.iv > 0, rows.iv, solved)
    own = greeks(rows.underlying_price, rows.strike, rows.years, iv, data.rate_ann, rows.is_call)
    scale = data.price_scale
    units = {"delta": 1.0, "gamma": 1.0 / scale, "vega": scale, "theta": scale}
    measured = {
        name: np.where(np.isnan(getattr(rows, name)), getattr(own, name), getattr(rows, name)) * unit
        for name, unit in units.items()
    }
    return {"strike": rows.strike * scale, **measured, "iv": iv, "spread_ratio": (rows.ask - rows.bid) / rows.mid}


def _choose_rows(puts: Chain, known_time: Int, close: Float, data: DataConfig) -> Int:
    """Return for each bar the row of its option, or NO_ROW."""
    number, _ = key_codes((puts.expiry, puts.expiry[:0]), (puts.strike, puts.strike[:0]))
    nearest = NearestContracts(puts, number, np.ones(len(puts), dtype=np.bool_), data, n_strikes=1)
    bar, row, _ = nearest.at(known_time, close)
    chosen = np.full(len(known_time), NO_ROW)
    chosen[bar] = row
    return chosen
