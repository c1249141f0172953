"""The effect of a change between two forecasters on the same rows, with an interval, against a claim (chapter 7.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.measures.block_bootstrap import block_length, resampled_means

Kind = Literal["reduction", "gain", "difference", "loss_of_gain"]
"""How two means are compared, `base` being the form that the claim favours: `reduction` 1 - base / other, for scores
that are to be small; `gain` base / other - 1, for measures that are to be large; `difference` base - other;
`loss_of_gain` 1 - other / base: what of a large measure is lost without the thing."""
Verdict = Literal["supported", "not_supported", "inconclusive"]
N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """An effect with its interval; NaN where it is not defined.

    Attributes:
        value: Of the means over all rows.
        low, high: Ends of the interval of the resampled effect.
        level: Of the interval.
        n_rows: Rows compared.
    """

    value: float
    low: float
    high: float
    level: float
    n_rows: int


def effect(
    base: ArrayLike, other: ArrayLike, kind: Kind, *, horizon_rows: int = 1, level: float = 0.9, seed: int = 0
) -> Effect:
    """Compare two series of the same rows, in time order, by their means.

    The interval is that of the percentiles of the stationary bootstrap (Politis and Romano 1994): both series are
    resampled by the same blocks, so that what rows have in common cancels.

    Args:
        base: (n,) scores or signals of the form that the claim favours; rows with a NaN on either side are left out.
        other: (n,) those of the form without it.
        kind: How the means are compared.
        horizon_rows: Rows that one target spans: the least length of a block.
        level: Of the interval.
        seed: Of the resampling.

    Raises:
        ValueError: Shapes differ.
    """
    x, y = np.asarray(base, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"base, other: expected equal shapes (n,), found {x.shape} and {y.shape}")
    known = np.isfinite(x) & np.isfinite(y)
    pair = np.column_stack([x[known], y[known]])
    if len(pair) < 2:
        return Effect(value=math.nan, low=math.nan, high=math.nan, level=level, n_rows=len(pair))
    block = max(block_length(column, horizon_rows=horizon_rows) for column in pair.T)
    means = resampled_means(pair, mean_block=block, n_resamples=N_RESAMPLES, seed=seed)
    drawn = _compared(means[:, 0], means[:, 1], kind)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if np.isfinite(drawn).all() else (math.nan,) * 2
    value = _compared(*pair.mean(axis=0, keepdims=True).T, kind)[0]
    return Effect(value=float(value), low=float(low), high=float(high), level=level, n_rows=len(pair))


def verdict(found: Effect | None, threshold: float) -> Verdict:
    """Judge a claim: an interval that holds the threshold, or is not known, says nothing.

    Otherwise `supported` where the effect reaches the threshold, `not_supported` where it does not.
    """
    if found is None or not all(map(math.isfinite, (found.value, found.low, found.high))):
        return "inconclusive"
    if found.low < threshold < found.high:
        return "inconclusive"
    return "supported" if found.value >= threshold else "not_supported"


def _compared(base: np.ndarray, other: np.ndarray, kind: Kind) -> np.ndarray:
    """Return the effect; NaN where a ratio has no positive denominator."""
    if kind == "difference":
        return base - other
    top, bottom = (other, base) if kind == "loss_of_gain" else (base, other)
    ratio = np.divide(top, bottom, out=np.full(np.shape(top), math.nan), where=bottom > 0)
    return ratio - 1 if kind == "gain" else 1 - ratio
