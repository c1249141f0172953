"""Implied volatility from option prices, where a chain has none (B34)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize.elementwise import find_root

from trainables.trading.black_scholes import price

LOWEST, HIGHEST = 1e-3, 10.0
"""Volatilities that are looked between; neither is ever returned."""


def implied_volatility(
    option_price: ArrayLike, spot: ArrayLike, strike: ArrayLike, years: ArrayLike, rate: ArrayLike, is_call: ArrayLike
) -> NDArray[np.float64]:
    """Return the volatility at which the Black-Scholes price is the given one, annual decimal.

    Chandrupatla's (1997) bracketing method, from SciPy. Arguments broadcast and have the units of
    `black_scholes.price`. NaN where there is no such volatility between `LOWEST` and `HIGHEST`, as for a price at or
    outside of the no-arbitrage bounds, or after expiry.
    """
    arrays = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (option_price, spot, strike, years, rate)))
    wanted, spot, strike, years, rate = arrays
    sign = np.broadcast_to(np.asarray(is_call, dtype=np.float64), wanted.shape)
    result = np.full(wanted.shape, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        ends = [price(spot, strike, years, v, rate, sign) for v in (LOWEST, HIGHEST)]
        inside = (years > 0) & (strike > 0) & (spot > 0) & (ends[0] < wanted) & (wanted < ends[1])
    if not inside.any():
        return result
    arguments = tuple(a[inside] for a in (wanted, spot, strike, years, rate, sign))

    def excess(volatility, wanted, *contract):  # type: ignore[no-untyped-def]
        spot, strike, years, rate, sign = contract
        return price(spot, strike, years, volatility, rate, sign) - wanted

    found = find_root(excess, (LOWEST, HIGHEST), args=arguments)
    result[inside] = np.where(found.success, found.x, np.nan)
    return result
