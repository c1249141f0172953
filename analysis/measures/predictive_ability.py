"""Tests whether any of many trials beats a baseline fixed beforehand, allowing for the choice of the best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.measures.block_bootstrap import Float, matrix, resampled_means, share_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictiveAbility:
    """A test of "no trial is better than the baseline".

    Attributes:
        statistic: Largest advantage; studentised: in standard errors. Zero where no trial is ahead.
        p: Consistent p value (SPA) or that of the reality check.
        p_lower, p_upper: SPA: p values where all inferior trials are taken as equal to what they showed (liberal), or
            to the baseline (conservative).
        best: Column with the largest statistic.
    """

    statistic: float
    p: float
    p_lower: float
    p_upper: float
    best: int


def reality_check(advantage: ArrayLike, *, mean_block: float, n_resamples: int = 1000, seed: int) -> PredictiveAbility:
    """Test the largest mean advantage over a baseline, not studentised.

    Source: White (2000), "A reality check for data snooping", Econometrica 68(5).

    Args:
        advantage: (n_rows, n_trials) baseline loss minus loss of the trial, in time order.
        mean_block: Mean block length, at least the horizon.
        n_resamples: Resamples.
        seed: Of the resampling.

    Raises:
        ValueError: Values are wrong, or the block is shorter than one row.
    """
    x, means, drawn = _resample(advantage, mean_block, n_resamples, seed)
    root = math.sqrt(len(x))
    statistic = root * float(means.max())
    p = share_at_least(root * (drawn - means).max(axis=1), statistic)
    return PredictiveAbility(statistic=statistic, p=p, p_lower=p, p_upper=p, best=int(means.argmax()))


def superior_predictive_ability(
    advantage: ArrayLike, *, mean_block: float, n_resamples: int = 1000, seed: int
) -> PredictiveAbility:
    """Test the largest studentised advantage over a baseline (Hansen 2005, "A test for superior predictive ability").

    Each trial's advantage is divided by its bootstrap standard error, so that one wild trial cannot hide the others.
    Trials that are behind by more than sqrt(2 log log n) standard errors do not weaken the test (consistent p). Trials
    whose advantage never varies say nothing and are left out.

    Args and errors as in `reality_check`.
    """
    x, means, drawn = _resample(advantage, mean_block, n_resamples, seed)
    error, varies = _errors(drawn)
    if not varies.any():
        return PredictiveAbility(statistic=0.0, p=1.0, p_lower=1.0, p_upper=1.0, best=int(means.argmax()))
    t = np.where(varies, means / error, -np.inf)
    statistic = max(0.0, float(t.max()))
    behind = -math.sqrt(2 * math.log(max(math.log(len(x)), math.e)))
    kept = {
        "p": np.where(t >= behind, means, 0.0),
        "p_lower": np.maximum(means, 0.0),
        "p_upper": means,
    }
    values = {}
    for name, centre in kept.items():
        largest = np.where(varies, (drawn - centre) / error, -np.inf).max(axis=1)
        values[name] = share_at_least(np.maximum(largest, 0.0), statistic) if statistic > 0 else 1.0
    return PredictiveAbility(statistic=statistic, best=int(t.argmax()), **values)


def superior_trials(
    advantage: ArrayLike, *, mean_block: float, level: float = 0.05, n_resamples: int = 1000, seed: int
) -> NDArray[np.bool_]:
    """Return which trials beat the baseline, with a chance of at most `level` that any of them does not.

    Source: Romano and Wolf (2005), "Stepwise multiple testing as formalized data snooping" (StepM), studentised: reject
    all above the critical value of the largest statistic, take it again over the rest, until nothing is rejected.

    Args:
        advantage: (n_rows, n_trials) baseline loss minus loss of the trial, in time order.
        mean_block: Mean block length, at least the horizon.
        level: Familywise error rate, in (0, 1).
        n_resamples: Resamples.
        seed: Of the resampling.

    Returns:
        (n_trials,).

    Raises:
        ValueError: Values are wrong, or the block is shorter than one row.
    """
    _, means, drawn = _resample(advantage, mean_block, n_resamples, seed)
    error, varies = _errors(drawn)
    t, resampled = means / error, (drawn - means) / error
    chosen, left = np.zeros(len(means), dtype=np.bool_), varies.copy()
    while left.any():
        critical = np.quantile(resampled[:, left].max(axis=1), 1 - level, method="higher")
        rejected = left & (t > critical)
        if not rejected.any():
            break
        chosen |= rejected
        left &= ~rejected
    return chosen


def _resample(
    advantage: ArrayLike, mean_block: float, n_resamples: int, seed: int
) -> tuple[NDArray[np.floating], Float, Float]:
    x = matrix(advantage, "advantage")
    means = x.mean(axis=0, dtype=np.float64)
    return x, means, resampled_means(x, mean_block=mean_block, n_resamples=n_resamples, seed=seed)


def _errors(drawn: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Return the bootstrap standard error of each mean (1 where nothing varies) and which of them vary."""
    error = drawn.std(axis=0)
    varies = error > 1e-7 * (1e-30 + np.abs(drawn).max(axis=0))
    return np.where(varies, error, 1.0), varies
