"""Black-Scholes prices and Greeks of European options on arrays (DATA-18).

Source: Black and Scholes (1973), without dividends. Units: volatility and rate per year, time in years of 365 days,
vega per 1.00 of volatility, theta per year. All arguments broadcast against one another; NaN in gives NaN out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Float = NDArray[np.float64]

SECONDS_PER_YEAR = 365 * 86_400
"""Option time runs on calendar days, 365 to a year, as the sample of DATA-17 does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeks:
    """Sensitivities of one unit of the option: per dollar, per dollar squared, per 1.00 volatility, per year."""

    delta: Float
    gamma: Float
    vega: Float
    theta: Float


def price(
    spot: ArrayLike, strike: ArrayLike, years: ArrayLike, volatility: ArrayLike, rate: ArrayLike, is_call: ArrayLike
) -> Float:
    """Return the price of a European option.

    Args:
        spot: Price of the underlying, above zero.
        strike: Above zero.
        years: Time to expiry; at or below zero gives the payoff.
        volatility: Annualised decimal, at or above zero; zero gives the discounted payoff of the forward.
        rate: Continuously compounded, per year.
        is_call: +1 call, -1 put.

    Returns:
        Prices in the unit of `spot`, of the broadcast shape.
    """
    spot, strike, years, volatility, rate, sign = _floats(spot, strike, years, volatility, rate, is_call)
    left = np.maximum(years, 0.0)
    discounted = strike * np.exp(-rate * left)
    d1, d2 = _d1_d2(spot, discounted, volatility * np.sqrt(left))
    return sign * (spot * ndtr(sign * d1) - discounted * ndtr(sign * d2))


def greeks(
    spot: ArrayLike, strike: ArrayLike, years: ArrayLike, volatility: ArrayLike, rate: ArrayLike, is_call: ArrayLike
) -> Greeks:
    """Return delta, gamma, vega and theta; arguments as in `price`, with `years` and `volatility` above zero.

    They satisfy vega = gamma spot^2 volatility years and, at rate zero, theta = -1/2 volatility^2 spot^2 gamma.
    At expiry, or without volatility, gamma, vega and theta do not exist: NaN.
    """
    spot, strike, years, volatility, rate, sign = _floats(spot, strike, years, volatility, rate, is_call)
    is_alive = (years > 0) & (volatility > 0)
    years, volatility = np.where(is_alive, years, np.nan), np.where(is_alive, volatility, np.nan)
    discounted = strike * np.exp(-rate * years)
    d1, d2 = _d1_d2(spot, discounted, volatility * np.sqrt(years))
    density = np.exp(-0.5 * d1 * d1) / np.sqrt(2 * np.pi)
    gamma = density / (spot * volatility * np.sqrt(years))
    decay = -0.5 * volatility * volatility * spot * spot * gamma
    return Greeks(
        delta=sign * ndtr(sign * d1),
        gamma=gamma,
        vega=gamma * spot * spot * volatility * years,
        theta=decay - sign * rate * discounted * ndtr(sign * d2),
    )


def _d1_d2(spot: Float, discounted: Float, deviation: Float) -> tuple[Float, Float]:
    """Return d1 and d2; without deviation plus or minus infinity, which gives the payoff, and zero at the money."""
    moneyness = np.log(spot / discounted)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = np.where(
            deviation > 0, moneyness / deviation, np.where(moneyness == 0, 0.0, np.inf * np.sign(moneyness))
        )
    return centre + 0.5 * deviation, centre - 0.5 * deviation


def _floats(*values: ArrayLike) -> tuple[Float, ...]:
    return tuple(np.asarray(v, dtype=np.float64) for v in values)
