"""The reference option of each bar, from a chain modelled by Black-Scholes at the bar's implied volatility (DATA-19).

The modelled chain has an expiry at 16:00 New York of every Friday, also where the Friday is a holiday (listed options
then expire the day before: one day in thirty at most), and strikes at every multiple of the strike step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time

import numpy as np
from numpy.typing import NDArray

from trainables.data.zones import NS_PER_SECOND, instants, local_day
from trainables.trading.black_scholes import SECONDS_PER_YEAR, greeks

Float = NDArray[np.float64]
EXPIRY_CLOCK = time(16)
FRIDAY = 1
"""Day 1 after 1970-01-01, a Thursday."""
PUT = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOption:
    """The put nearest the money of the expiry nearest to the wanted days, (n_bars,); units as in `Market`."""

    strike: Float
    years: Float
    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    iv: Float
    spread_ratio: Float


def reference_option(
    known_time: NDArray[np.int64],
    close: Float,
    iv: Float,
    *,
    rate_ann: float,
    option_days: float,
    strike_step: float,
    spread_frac: float,
) -> ReferenceOption:
    """Choose and price the reference option of each bar at the moment at which the bar is known.

    Args:
        known_time: (n_bars,) ns UTC.
        close: (n_bars,) prices.
        iv: (n_bars,) annual decimal; NaN gives NaN Greeks.
        rate_ann: Per year, continuously compounded.
        option_days: Calendar days that the expiry is nearest to.
        strike_step: Distance of strikes; a close half-way between two takes the even multiple.
        spread_frac: Bid-ask spread as a share of the option's price.
    """
    years = (friday_expiry(known_time, option_days) - known_time) / (SECONDS_PER_YEAR * NS_PER_SECOND)
    strike = np.maximum(np.round(close / strike_step), 1.0) * strike_step
    g = greeks(close, strike, years, iv, rate_ann, PUT)
    return ReferenceOption(
        strike=strike,
        years=years,
        delta=g.delta,
        gamma=g.gamma,
        vega=g.vega,
        theta=g.theta,
        iv=iv,
        spread_ratio=np.where(np.isfinite(iv), spread_frac, np.nan),
    )


def friday_expiry(known_time: NDArray[np.int64], option_days: float) -> NDArray[np.int64]:
    """Return the expiry, ns UTC, of the Friday nearest to `option_days` calendar days after each instant."""
    target = local_day(known_time) + option_days
    friday = FRIDAY + 7 * np.round((target - FRIDAY) / 7).astype(np.int64)
    return instants(friday, EXPIRY_CLOCK)
