"""The best iron condor of each row, found afterwards: the compiled pass behind the policy labels (DATA-23).

For every row the candidates are all (call offset, put offset, wing width, days to expiry). Their call and put spreads
share nothing but the underlying, so 2 x 30 option prices a mark value all 144 condors of an expiry. Prices follow
Black and Scholes (1973), as `trainables.trading.black_scholes`, which is the judge of this file in tests.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

N_POLICY = 8
SMALLEST_RISK = 1e-6
"""Share of the wing width below which risk capital is not believed: it divides."""
NS_PER_YEAR = 365 * 86_400 * 1e9


@njit(cache=True, nogil=True, error_model="numpy")
def best_condors(
    close: NDArray[np.float64],
    iv: NDArray[np.float64],
    spread_ratio: NDArray[np.float64],
    known_time: NDArray[np.int64],
    marks: NDArray[np.int64],
    next_mark: NDArray[np.int64],
    expiry: NDArray[np.int64],
    settle: NDArray[np.int64],
    offsets: NDArray[np.float64],
    widths: NDArray[np.float64],
    dtes: NDArray[np.float64],
    rate_ann: float,
    strike_step: float,
    temperature: float,
    drawdown_weight: float,
    is_soft: bool,
) -> NDArray[np.float64]:
    """Return the policy targets of each row, (n_rows, 8); NaN where an expiry has no settlement or a price is missing.

    Args:
        close: (n_rows,) prices of the underlying.
        iv: (n_rows,) annual decimal.
        spread_ratio: (n_rows,) bid-ask spread of an option as a share of its mid; each leg pays half at entry.
        known_time: (n_rows,) ns UTC, when a row's close and iv are known.
        marks: (n_marks,) positions of rows at which open condors are valued, increasing: session closes.
        next_mark: (n_rows,) position in `marks` of the first mark after the row.
        expiry: (n_rows, n_dtes) ns UTC.
        settle: (n_rows, n_dtes) position of the last row known at expiry; -1: none.
        offsets: Distances of short strikes in expected moves.
        widths: Distances of long from short strikes, in points.
        dtes: Nominal days to expiry, which also set the expected move.
        rate_ann: Per year, continuously compounded.
        strike_step: Distance of strikes, in points.
        temperature: Of the softmax over utilities.
        drawdown_weight: Of the drawdown in the utility.
        is_soft: Average over candidates by softmax, or take the best (the first of equals).
    """
    n_offsets, n_widths, n_dtes = len(offsets), len(widths), len(dtes)
    n_pairs = n_offsets * n_offsets * n_widths
    result = np.full((len(close), N_POLICY), np.nan)
    roi, drawdown = np.empty((n_dtes, n_pairs)), np.empty((n_dtes, n_pairs))
    strikes = np.empty((2, n_offsets, n_widths + 1))
    values = np.empty((2, n_offsets, n_widths))
    credits = np.empty((2, n_offsets, n_widths))
    peak, worst, profit = np.empty(n_pairs), np.empty(n_pairs), np.empty(n_pairs)
    for row in range(len(close)):
        is_complete = True
        for d in range(n_dtes):
            last = settle[row, d]
            if last <= row or not (close[row] > 0 and iv[row] > 0):
                is_complete = False
                break
            move = close[row] * iv[row] * math.sqrt(dtes[d] / 365)
            _place_strikes(strikes, close[row], move, offsets, widths, strike_step)
            years = (expiry[row, d] - known_time[row]) / NS_PER_YEAR
            _value_spreads(values, strikes, close[row], iv[row], years, rate_ann, 0.0)
            _value_spreads(credits, strikes, close[row], iv[row], years, rate_ann, 0.5 * spread_ratio[row])
            peak[:] = 0.0
            worst[:] = 0.0
            m = next_mark[row]
            while m < len(marks) and marks[m] < last:
                at = marks[m]
                left = (expiry[row, d] - known_time[at]) / NS_PER_YEAR
                _value_spreads(values, strikes, close[at], iv[at], left, rate_ann, 0.0)
                _mark(profit, peak, worst, credits, values)
                m += 1
            _value_spreads(values, strikes, close[last], iv[last], 0.0, rate_ann, 0.0)
            _mark(profit, peak, worst, credits, values)
            _returns(roi[d], drawdown[d], profit, worst, credits, widths)
        if is_complete:
            _combine(result[row], roi, drawdown, offsets, widths, dtes, temperature, drawdown_weight, is_soft)
    return result


@njit(cache=True, nogil=True, error_model="numpy")
def _place_strikes(strikes, spot, move, offsets, widths, step):  # type: ignore[no-untyped-def]
    """Write calls (0) and puts (1): short strike, then the long strikes of each width, rounded to the chain."""
    for k in range(len(offsets)):
        strikes[0, k, 0] = max(round((spot + offsets[k] * move) / step), 1) * step
        strikes[1, k, 0] = max(round((spot - offsets[k] * move) / step), 1) * step
        for w in range(len(widths)):
            strikes[0, k, w + 1] = strikes[0, k, 0] + widths[w]
            strikes[1, k, w + 1] = strikes[1, k, 0] - widths[w]


@njit(cache=True, nogil=True, error_model="numpy")
def _value_spreads(values, strikes, spot, iv, years, rate, half_spread):  # type: ignore[no-untyped-def]
    """Write what selling each vertical spread brings; `half_spread` is the share of each leg's price paid for it."""
    for side in range(2):
        sign = 1.0 if side == 0 else -1.0
        for k in range(values.shape[1]):
            short = _price(spot, strikes[side, k, 0], iv, years, rate, sign)
            for w in range(values.shape[2]):
                long = _price(spot, strikes[side, k, w + 1], iv, years, rate, sign)
                values[side, k, w] = short * (1 - half_spread) - long * (1 + half_spread)


@njit(cache=True, nogil=True, error_model="numpy")
def _price(spot, strike, iv, years, rate, sign):  # type: ignore[no-untyped-def]
    """Return the Black-Scholes price; the payoff at expiry; a put whose strike is not above zero is worth nothing."""
    if strike <= 0:
        return 0.0 if sign < 0 else spot - strike
    if years <= 0:
        return max(sign * (spot - strike), 0.0)
    discounted = strike * math.exp(-rate * years)
    deviation = iv * math.sqrt(years)
    d1 = math.log(spot / discounted) / deviation + 0.5 * deviation
    half = sign / math.sqrt(2.0)
    return 0.5 * sign * (spot * math.erfc(-half * d1) - discounted * math.erfc(-half * (d1 - deviation)))


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(profit, peak, worst, credits, values):  # type: ignore[no-untyped-def]
    """Update profit, its peak (zero at entry) and the deepest fall from it, in points."""
    i = 0
    for c in range(credits.shape[1]):
        for p in range(credits.shape[1]):
            for w in range(credits.shape[2]):
                profit[i] = credits[0, c, w] + credits[1, p, w] - values[0, c, w] - values[1, p, w]
                peak[i] = max(peak[i], profit[i])
                worst[i] = max(worst[i], peak[i] - profit[i])
                if math.isnan(profit[i]):
                    worst[i] = math.nan
                i += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _returns(roi, drawdown, profit, worst, credits, widths):  # type: ignore[no-untyped-def]
    """Write return and drawdown as shares of the risk capital, wing width less credit (C-103, C-109)."""
    i = 0
    for c in range(credits.shape[1]):
        for p in range(credits.shape[1]):
            for w in range(len(widths)):
                risk = max(widths[w] - credits[0, c, w] - credits[1, p, w], SMALLEST_RISK * widths[w])
                roi[i] = min(max(profit[i] / risk, -1.0), 1.0)
                drawdown[i] = min(worst[i] / risk, 1.0)
                if math.isnan(worst[i]):
                    drawdown[i] = math.nan
                i += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(out, roi, drawdown, offsets, widths, dtes, temperature, drawdown_weight, is_soft):  # type: ignore[no-untyped-def]
    """Write the targets of one row: averages under softmax(utility / temperature), or those of the best candidate."""
    best = -math.inf
    for d in range(len(dtes)):
        for i in range(roi.shape[1]):
            utility = roi[d, i] - drawdown_weight * drawdown[d, i]
            if math.isnan(utility):
                return
            best = max(best, utility)
    total = 0.0
    out[:] = 0.0
    for d in range(len(dtes)):
        i = 0
        for c in range(len(offsets)):
            for p in range(len(offsets)):
                for w in range(len(widths)):
                    utility = roi[d, i] - drawdown_weight * drawdown[d, i]
                    if is_soft:
                        weight = math.exp((utility - best) / temperature)
                    else:
                        weight = 1.0 if utility == best and total == 0.0 else 0.0
                    total += weight
                    out[0] += weight * offsets[c]
                    out[1] += weight * offsets[p]
                    out[2] += weight * widths[w]
                    out[3] += weight * dtes[d]
                    out[4] += weight * (1.0 if roi[d, i] > 0 else 0.0)
                    out[5] += weight * roi[d, i]
                    out[6] += weight * drawdown[d, i]
                    i += 1
    out[:] = out / total
    out[7] = 1.0 if out[5] > 0 else 0.0
