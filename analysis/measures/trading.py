"""Measures of a series of returns and of the positions behind it (ANALYSIS-9)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def sharpe(returns: ArrayLike, *, periods_per_year: float = 252.0) -> float | None:
    """Return the annualised ratio of mean to standard deviation (ddof 1), without a risk-free rate.

    Annualising by a square root assumes that returns do not overlap and are not serially dependent (Lo 2002).

    Args:
        returns: (n,) net returns per period, or P&L in any unit.
        periods_per_year: 252 for daily returns.

    Returns:
        None below two rows or without spread.

    Raises:
        ValueError: A return is not finite.
    """
    r = _finite(returns)
    spread = float(r.std(ddof=1)) if len(r) > 1 else 0.0
    return float(r.mean()) / spread * math.sqrt(periods_per_year) if spread > 0 else None


def max_drawdown(equity: ArrayLike) -> float:
    """Return the largest fall from an earlier high, in the unit of the equity, zero or more.

    Args:
        equity: (n,) equity or cumulated P&L; the first value is the starting point.

    Raises:
        ValueError: Empty, or not finite.
    """
    path = _finite(equity)
    if not len(path):
        raise ValueError("equity: expected at least one value, found none")
    return float((np.maximum.accumulate(path) - path).max())


def turnover(positions: ArrayLike) -> float:
    """Return the mean absolute change of position per period, from a flat start (n periods, n changes).

    Raises:
        ValueError: Empty, or not finite.
    """
    held = _finite(positions)
    if not len(held):
        raise ValueError("positions: expected at least one value, found none")
    return float(np.abs(np.diff(held, prepend=0.0)).mean())


def win_rate(pnl: ArrayLike) -> float | None:
    """Return the share of trades with a gain among those that are not exactly flat; None where all are.

    Raises:
        ValueError: A value is not finite.
    """
    p = _finite(pnl)
    decided = p[p != 0]
    return float((decided > 0).mean()) if len(decided) else None


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"expected finite values of shape (n,), found shape {array.shape}")
    return array
