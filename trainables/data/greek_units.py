"""Units of the Greeks of an option chain: found by comparison with Black-Scholes, converted to ours (DATA-18).

Ours: delta per dollar, gamma per dollar squared, vega per 1.00 of volatility, theta per year of 365 days. Vendors quote
vega per point of volatility, theta per day, or one or the other times a hundred; which, their files do not say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from trainables.data.options import Chain
from trainables.errors import DataError
from trainables.trading.black_scholes import greeks

Float = NDArray[np.float64]
FACTORS = {
    "delta": {"per dollar": 1.0, "per dollar x 100": 100.0},
    "gamma": {"per dollar": 1.0, "x 100": 100.0, "per percent": None},
    "vega": {"per 1.00 of volatility": 1.0, "per point of volatility": 0.01, "per 1.00 x 100": 100.0},
    "theta": {
        "per year": 1.0,
        "per day": 1 / 365,
        "per trading day": 1 / 252,
        "per day x 100": 100 / 365,
        "per trading day x 100": 100 / 252,
    },
}
"""What the file's number is, divided by ours. `per percent` of gamma is spot / 100: it differs from row to row."""
MIN_ROWS = 20
"""Rows near the money that a detection needs."""
NEAR_DELTA = (0.25, 0.75)
"""Rows with |delta| in between decide: further out rate, dividends and rounding matter more than the unit."""
WIDE_DELTA = (0.02, 0.98)
"""Rows that decide in a file with too few near the money."""
MIN_YEARS, MAX_IV = 5 / 365, 3.0
"""Rows nearer to expiry, or with a volatility above it, do not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GreekUnits:
    """What a file's Greeks are multiples of; one name of `FACTORS` for each, None where the column is empty."""

    delta: str | None
    gamma: str | None
    vega: str | None
    theta: str | None

    @classmethod
    def declared(cls, names: tuple[str, ...]) -> GreekUnits:
        """Return the units of delta, gamma, vega and theta by their names.

        Raises:
            DataError: A name is not one of `FACTORS`.
        """
        for greek, name in zip(FACTORS, names, strict=True):
            if name not in FACTORS[greek]:
                raise DataError(
                    f"data.chain.greek_units: expected {greek} in one of {', '.join(FACTORS[greek])}, found {name!r}"
                )
        return cls(**dict(zip(FACTORS, names, strict=True)))

    def __str__(self) -> str:
        found = ((name, getattr(self, name)) for name in FACTORS)
        return ", ".join(f"{name} {unit}" for name, unit in found if unit) or "none"


def detect_units(chain: Chain, rate_ann: float, where: str, *, tolerance: float = 0.15) -> GreekUnits:
    """Return the units whose Greeks are nearest to Black-Scholes at each row's own iv.

    Args:
        chain: Rows with iv and the underlying's price (see `with_spot`).
        rate_ann: Per year.
        where: File name for messages.
        tolerance: How far, as a logarithm, the median ratio may be from the unit; twice that from any other.

    Raises:
        DataError: A column is there, but too few rows can be compared, or no unit or more than one fits.
    """
    rows, expected = _comparable(chain, rate_ann)
    units: dict[str, str | None] = {}
    for name, factors in FACTORS.items():
        column = getattr(chain, name)
        if np.isnan(column).all():
            units[name] = None
            continue
        if len(rows) < MIN_ROWS:
            raise DataError(
                f"{where}: expected {MIN_ROWS} rows near the money with iv and {name} to tell its unit by, found "
                f"{len(rows)}; declare data.chain.greek_units"
            )
        ratio = column[rows] / getattr(expected, name)
        distances = {unit: _distance(ratio, factor, chain.underlying_price[rows]) for unit, factor in factors.items()}
        unit, nearest = min(distances.items(), key=lambda pair: pair[1])
        if not nearest <= tolerance:
            raise DataError(
                f"{where}: expected {name} in one of the units {', '.join(factors)}, found a median of "
                f"{np.nanmedian(ratio):.4g} times Black-Scholes; declare data.chain.greek_units or take the column out"
            )
        units[name] = unit
    return GreekUnits(**units)


def convert_greeks(chain: Chain, units: GreekUnits) -> Chain:
    """Return the chain with its Greeks in our units."""
    columns = {}
    for name in FACTORS:
        unit = getattr(units, name)
        if unit is not None:
            factor = FACTORS[name][unit]
            columns[name] = getattr(chain, name) / (chain.underlying_price / 100 if factor is None else factor)
    return chain.replace(**columns)


def with_spot(chain: Chain, rate_ann: float) -> tuple[Chain, int]:
    """Return the chain with missing prices of the underlying inferred from delta and iv, and in how many rows.

    Delta has one unit only, so it can be inverted: ln(S / K) = d1 v sqrt(T) - (r + v^2 / 2) T (Black and Scholes 1973).
    The median over the contracts of an instant with |delta| within `NEAR_DELTA` is taken.
    """
    missing = np.isnan(chain.underlying_price)
    near = missing & (np.abs(chain.delta) > NEAR_DELTA[0]) & (np.abs(chain.delta) < NEAR_DELTA[1])
    near &= (chain.years > MIN_YEARS) & (chain.iv > 0) & (chain.iv < MAX_IV)
    if not near.any():
        return chain, 0
    part = chain.take(near)
    deviation = part.iv * np.sqrt(part.years)
    d1 = part.is_call * ndtri(np.abs(part.delta))
    spot = part.strike * np.exp(d1 * deviation - (rate_ann + 0.5 * part.iv**2) * part.years)
    times = np.unique(part.timestamp)
    medians = np.array([np.median(spot[part.timestamp == t]) for t in times])
    position = np.minimum(np.searchsorted(times, chain.timestamp), len(times) - 1)
    is_known = missing & (times[position] == chain.timestamp)
    price = np.where(is_known, medians[position], chain.underlying_price)
    return chain.replace(underlying_price=price), int(is_known.sum())


def _comparable(chain: Chain, rate_ann: float):  # type: ignore[no-untyped-def]
    usable = (chain.years > MIN_YEARS) & (chain.iv > 0) & (chain.iv < MAX_IV) & (chain.underlying_price > 0)
    rows = np.flatnonzero(usable)
    part = chain.take(rows)
    expected = greeks(part.underlying_price, part.strike, part.years, part.iv, rate_ann, part.is_call)
    delta = np.abs(expected.delta)
    near = (delta > NEAR_DELTA[0]) & (delta < NEAR_DELTA[1])
    if near.sum() < MIN_ROWS:
        near = (delta > WIDE_DELTA[0]) & (delta < WIDE_DELTA[1])
    rows = rows[near]
    part = chain.take(rows)
    return rows, greeks(part.underlying_price, part.strike, part.years, part.iv, rate_ann, part.is_call)


def _distance(ratio: Float, factor: float | None, spot: Float) -> float:
    """Return how far, as a logarithm, the median of found / expected is from a factor; infinite if not above zero."""
    median = float(np.nanmedian(ratio / (spot / 100 if factor is None else factor)))
    return abs(np.log(median)) if median > 0 else np.inf
