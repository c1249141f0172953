"""Implied volatility as a series of values, each known from an instant on: measured, or modelled on past returns.

The model is GARCH(1,1) (Bollerslev 1986) with a constant mean, fitted by the `arch` package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.zones import NS_PER_DAY, local_day
from trainables.errors import DataError

SESSIONS_PER_YEAR = 252
"""Trading days that daily variance is annualised with."""
PERCENT = 100.0
"""Returns are fitted in percent: the optimiser of `arch` wants variances near one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatility:
    """Annual decimals (NaN: unknown) and when they became known, ns UTC, strictly increasing; both (n,)."""

    known_time: NDArray[np.int64]
    value: NDArray[np.float64]

    def at(self, times: NDArray[np.int64], max_age_days: float) -> NDArray[np.float64]:
        """Return the newest value known at each instant, the instant included; NaN where none or too old."""
        if len(self.value) == 0:
            return np.full(len(times), np.nan)
        position = np.searchsorted(self.known_time, times, side="right") - 1
        newest = np.maximum(position, 0)
        is_fresh = (position >= 0) & (times - self.known_time[newest] <= max_age_days * NS_PER_DAY)
        return np.where(is_fresh, self.value[newest], np.nan)

    def daily(self) -> Volatility:
        """Return the last value of each New York day."""
        if len(self.value) == 0:
            return self
        day = local_day(self.known_time)
        is_last = np.append(day[1:] != day[:-1], True)
        return Volatility(known_time=self.known_time[is_last], value=self.value[is_last])


def garch_volatility(
    close: NDArray[np.float64], *, initial_sessions: int, refit_sessions: int, horizon_sessions: int
) -> NDArray[np.float64]:
    """Return at each daily close the volatility that GARCH(1,1) expects over the sessions ahead.

    Fitted on the first `initial_sessions` returns and again after every `refit_sessions` more, always on all returns
    so far; between fits the variance is carried forward with fixed parameters. A value uses closes up to its own only.

    Args:
        close: (n_sessions,) closes above zero.
        initial_sessions: Returns before the first fit.
        refit_sessions: Returns between fits.
        horizon_sessions: Sessions ahead over which the expected variance is averaged.

    Returns:
        (n_sessions,) annual decimals; NaN up to the first fit.

    Raises:
        DataError: A fit fails, as on closes that never change.
    """
    returns = np.diff(np.log(close)) * PERCENT
    volatility = np.full(len(close), np.nan)
    for begin in range(initial_sessions, len(returns) + 1, refit_sessions):
        parameters, newest_variance = _fit(returns[:begin])
        ahead = returns[begin - 1 : begin - 1 + refit_sessions]
        expected = _expected_variance(ahead, newest_variance, parameters, horizon_sessions)
        volatility[begin : begin + refit_sessions] = np.sqrt(expected * SESSIONS_PER_YEAR) / PERCENT
    return volatility


def rank(value: NDArray[np.float64], n_sessions: int) -> NDArray[np.float64]:
    """Return the rank of each daily value between the lowest and highest of the last `n_sessions`, 0 to 100 (DATA-21).

    NaN where there are fewer values, one of them is missing, or all are equal.
    """
    result = np.full(len(value), np.nan)
    if len(value) >= n_sessions:
        trailing = np.lib.stride_tricks.sliding_window_view(value, n_sessions)
        low, high = trailing.min(axis=1), trailing.max(axis=1)
        spread = np.where(high > low, high - low, np.nan)
        result[n_sessions - 1 :] = 100 * ((value[n_sessions - 1 :] - low) / spread)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameters:
    """Mean of returns; constant, weight of the last squared shock and weight of the last variance."""

    mean: float
    omega: float
    alpha: float
    beta: float


def _fit(returns: NDArray[np.float64]) -> tuple[_Parameters, float]:
    """Return parameters, and the variance of the last of the returns."""
    from arch import arch_model

    if np.ptp(returns) == 0:
        raise DataError(
            "data.bars: expected closes that move, found a constant series; volatility cannot be modelled on it"
        )
    fit = arch_model(returns, mean="Constant", vol="GARCH", p=1, q=1, rescale=False).fit(disp="off", show_warning=False)
    if fit.convergence_flag != 0 or not np.isfinite(fit.params).all():
        raise DataError(
            f"data.bars: expected a GARCH(1,1) fit on {len(returns)} returns to converge, found flag "
            f"{fit.convergence_flag}; raise data.iv_initial_sessions or give data.iv"
        )
    names = ("mu", "omega", "alpha[1]", "beta[1]")
    mean, omega, alpha, beta = (float(fit.params[n]) for n in names)
    return _Parameters(mean=mean, omega=omega, alpha=alpha, beta=beta), float(fit.conditional_volatility[-1]) ** 2


def _expected_variance(
    returns: NDArray[np.float64], variance: float, p: _Parameters, horizon: int
) -> NDArray[np.float64]:
    """Return after each return the mean expected variance of the `horizon` sessions that follow.

    `variance` is that of the first return. The recursion is written out, not `arch`'s own filter, whose safety bounds
    look at all returns that it is given, later ones too.
    """
    step = np.arange(horizon)
    persistence = p.alpha + p.beta
    weight = (persistence**step).mean()
    constant = np.cumsum(np.concatenate([[0.0], persistence ** step[:-1]])).mean() * p.omega
    expected = np.empty(len(returns))
    for i, value in enumerate(returns):
        variance = p.omega + p.alpha * (value - p.mean) ** 2 + p.beta * variance
        expected[i] = constant + weight * variance
    return expected
