"""Dynamics of returns: volatility, curvature and energy, and indicators that they modulate (FEAT-CB-32..36)."""

from __future__ import annotations

import numba
import numpy as np

from trainables.features import bars as shared_values
from trainables.features.bars import Bars, shared
from trainables.features.indicators import DEGENERATE, change, exponential_average, ratio
from trainables.features.memory import keep_rows, remembered
from trainables.features.rolling import Float, Int, lagged, rolling_mean
from trainables.features.settings import FeatureSettings


def ewma_variance(returns: Float, first: Int, alpha: float, seed_n: int) -> Float:
    """Return v_t = alpha r_t^2 + (1 - alpha) v_{t-1} per run, v_0 being the mean of the first seed_n squares.

    v_0 stands at the seed_n-th return of the run. NaN returns give NaN and leave the state as it was.

    Args:
        returns: (n,) returns.
        first: (n,) start of each bar's run.
        alpha: Weight of the newest square.
        seed_n: Squares in the starting mean.

    Returns:
        (n,) variances, NaN in warm-up.
    """
    return _ewma_variance(returns, first, alpha, seed_n, remembered(2))


@numba.njit(cache=True, nogil=True)
def _ewma_variance(returns: Float, first: Int, alpha: float, seed_n: int, memory: Float) -> Float:
    out = np.full(len(returns), np.nan)
    seen, state = memory
    for i in range(len(returns)):
        if first[i] == i:
            seen, state = 0.0, 0.0
        if np.isnan(returns[i]):
            continue
        seen += 1
        square = returns[i] * returns[i]
        if seen <= seed_n:
            state += square
            if seen < seed_n:
                continue
            state /= seed_n
        else:
            state = alpha * square + (1.0 - alpha) * state
        out[i] = state
    memory[0], memory[1] = seen, state
    return out


def curvature_proxy(returns: Float, volatility: Float, first: Int, *, order: str, span: int, epsilon: float) -> Float:
    """Return EMA_span(acceleration)/(volatility + epsilon) (FEAT-CB-33).

    The documented order, the second difference of returns, telescopes to (2/(span+1))(r_t - r_{t-1})/volatility with
    correlation 0.9999 (C-26): it is raw noise. `first_diff_of_return` averages the first difference. `low_pass` is the
    acceleration of a smoothed price: the change of the averaged return over one span, per bar.

    Args:
        returns: (n,) log returns.
        volatility: (n,) their standard deviation.
        first: (n,) start of each bar's run.
        order: `second_diff_of_return`, `first_diff_of_return` or `low_pass`.
        span: Span of the average.
        epsilon: Added to the volatility.

    Returns:
        (n,) curvature, NaN in warm-up.
    """
    if order == "low_pass":
        smooth = exponential_average(returns, first, span)
        return (smooth - lagged(smooth, first, span)) / span / (volatility + epsilon)
    acceleration = change(returns, first)
    if order == "second_diff_of_return":
        acceleration = change(acceleration, first)
    return exponential_average(acceleration, first, span) / (volatility + epsilon)


def menger_documented(returns: Float, first: Int, epsilon: float) -> Float:
    """Return the expression printed as Menger curvature (FEAT-CB-36).

    It is not Menger's (which is 0 for numbers on a line), scales as the inverse square of the returns, and its size is
    set by epsilon (C-24).
    """
    r1, r2 = lagged(returns, first, 1), lagged(returns, first, 2)
    squares = (r1 - r2) ** 2 + (returns - r1) ** 2 + (returns - r2) ** 2
    return 2.0 * np.abs(r2 - 2.0 * r1 + returns) / (squares**1.5 + epsilon)


def menger_true(scaled_returns: Float, first: Int) -> Float:
    """Return Menger's curvature 4 area/(product of sides) of three consecutive points (t, scaled return).

    Points one bar apart: area = |r_2 - 2 r_1 + r|/2. Source: Menger (1930); 0 for collinear points.
    """
    r1, r2 = lagged(scaled_returns, first, 1), lagged(scaled_returns, first, 2)
    twice_area = np.abs(r2 - 2.0 * r1 + scaled_returns)
    sides = np.hypot(1.0, r1 - r2) * np.hypot(1.0, scaled_returns - r1) * np.hypot(2.0, scaled_returns - r2)
    return 2.0 * twice_area / sides


def energy(curvature: Float, alpha: float) -> Float:
    """Return ln(1 + alpha |curvature|) (FEAT-CB-34)."""
    return np.log1p(alpha * np.abs(curvature))


@shared
def volatility(bars: Bars) -> Float:
    """Return the exponentially weighted standard deviation of log returns, per bar (FEAT-CB-32)."""
    s = bars.settings
    returns = shared_values.log_return(bars)
    return np.sqrt(ewma_variance(returns, bars.first, s.ewma_alpha, s.ewma_seed_n))


def volatility_column(bars: Bars) -> Float:
    """Return `volatility`, or its square where `ewma_output` asks for the variance (C-25)."""
    return volatility(bars) if bars.settings.ewma_output == "std" else volatility(bars) ** 2


@shared
def kappa_proxy(bars: Bars) -> Float:
    """Return the curvature proxy, whatever the setting `curvature` says."""
    s = bars.settings
    returns = shared_values.log_return(bars)
    return curvature_proxy(
        returns, volatility(bars), bars.first, order=s.kappa_order, span=s.kappa_span, epsilon=s.kappa_epsilon
    )


@shared
def kappa(bars: Bars) -> Float:
    """Return the curvature that the setting `curvature` names."""
    s, returns = bars.settings, shared_values.log_return(bars)
    if s.curvature == "proxy":
        return kappa_proxy(bars)
    if s.curvature == "menger_documented":
        return menger_documented(returns, bars.first, s.menger_epsilon)
    scaled = ratio(returns, volatility(bars), 0.0)
    if s.curvature == "menger_scaled":
        return menger_documented(scaled, bars.first, s.menger_epsilon)
    return menger_true(scaled, bars.first)


@shared
def volatility_energy(bars: Bars) -> Float:
    """Return the energy of `kappa`, with the factor that belongs to its definition (C-24)."""
    s = bars.settings
    return energy(kappa(bars), s.energy_alpha if s.curvature == "proxy" else s.menger_energy_alpha)


def dynamic_rsi(bars: Bars) -> Float:
    """Return RSI (1 + beta x driver) (FEAT-CB-35, C-93)."""
    driver = kappa(bars) if bars.settings.rsi_dyn_driver == "kappa" else volatility_energy(bars)
    return shared_values.rsi(bars) * (1.0 + bars.settings.rsi_beta * driver)


def adaptive_adx(bars: Bars) -> Float:
    """Return ADX/(1 + gamma x energy) (FEAT-CB-35)."""
    return shared_values.directional_index(bars)[2] / (1.0 + bars.settings.adx_gamma * volatility_energy(bars))


def adaptive_psar(bars: Bars) -> Float:
    """Return (C - PSAR)/ATR, 0 where the range is degenerate (FEAT-CB-35)."""
    return ratio(bars.market.close - shared_values.psar(bars), shared_values.atr(bars), 0.0)


HURST_LAGS = (1, 2, 4, 8, 16)
"""Lags in bars of the mean squares whose growth gives the exponent (P009)."""


@shared
def hurst(bars: Bars) -> Float:
    """Return half the slope of log2 mean-square k-lag difference on log2 k, clipped to [0, 1]; 0.5 where flat (P009).

    Cross-session: differences are of `chained_log_price`, so that no overnight jump counts. All differences that lie
    inside the last `hurst_window` bars are taken, their mean not removed.
    Source: Mandelbrot and van Ness (1968), self-similarity of increments.
    """
    path, first, window = shared_values.chained_log_price(bars), bars.segment_first, bars.settings.hurst_window
    squares = [rolling_mean(squared_change(path, first, k), first, window - k) for k in HURST_LAGS]
    return np.clip(0.05 * np.log2(_growth(*squares)), 0.0, 1.0)


def squared_change(x: Float, first: Int, n: int) -> Float:
    """Return (x_t - x_{t-n})^2, NaN where the run has no value so early."""
    return _squared_change(x, first, n, remembered(n))


@numba.njit(cache=True, nogil=True)
def _squared_change(x: Float, first: Int, n: int, earlier: Float) -> Float:
    out = np.empty(len(x))
    for i in range(len(x)):
        j = i - n
        out[i] = (x[i] - (x[j] if j >= 0 else earlier[n + j])) ** 2 if j >= first[i] else np.nan
    keep_rows(x, earlier)
    return out


@numba.njit(cache=True, nogil=True)
def _growth(m1: Float, m2: Float, m4: Float, m8: Float, m16: Float) -> Float:
    """Return two to the power of ten slopes; 2^10, of a slope of 1, where one mean square is degenerate.

    The x of the slope are 0 to 4: it is (2 y16 + y8 - y2 - 2 y1)/10, of which one logarithm is enough.
    """
    out = np.empty(len(m1))
    for i in range(len(m1)):
        is_flat = min(min(m1[i], m2[i]), min(m4[i], min(m8[i], m16[i]))) < DEGENERATE**2
        out[i] = 1024.0 if is_flat else m16[i] * m16[i] * m8[i] / (m2[i] * m1[i] * m1[i])
    return out


def proxy_lookback(settings: FeatureSettings) -> int:
    """Return the bars that `kappa_proxy` needs before its first value."""
    order = {"first_diff_of_return": 1, "second_diff_of_return": 2, "low_pass": settings.kappa_span}[
        settings.kappa_order
    ]
    return max(1 + order + settings.kappa_span, settings.ewma_seed_n + 1)


def kappa_lookback(settings: FeatureSettings) -> int:
    """Return the bars that `kappa` needs before its first value."""
    if settings.curvature == "proxy":
        return proxy_lookback(settings)
    returns = 1 if settings.curvature == "menger_documented" else settings.ewma_seed_n
    return returns + 3
