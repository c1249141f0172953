"""Model confidence set: the trials that cannot be told apart from the best one (Hansen, Lunde and Nason 2011)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.measures.block_bootstrap import Float, matrix, resampled_means, share_at_least

Statistic = Literal["range", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceSet:
    """Trials among which the best one is, with the probability `level`.

    Attributes:
        p: (n_trials,) the trial is in every set whose level is 1 - p or higher; 1 for the best.
        is_member: (n_trials,) p is at least 1 - level.
        level: Such as 0.9.
        statistic: What was compared: `range`, all pairs; `max`, each trial with the mean of all; `max, then range`, the
            first to thin out, the second among the survivors, each at half the error.
        n_distinct: Trials with different losses; copies share their p.
    """

    p: Float
    is_member: NDArray[np.bool_]
    level: float
    statistic: str
    n_distinct: int


def confidence_set(
    losses: ArrayLike,
    *,
    mean_block: float,
    seed: int,
    level: float = 0.9,
    n_resamples: int = 1000,
    most_in_pairs: int = 60,
) -> ConfidenceSet:
    """Return the trials that cannot be told apart from the best.

    Up to `most_in_pairs` trials are compared pair by pair. That is cubic in their number, so more are first thinned out
    by the `max` statistic; both stages then get half of the error (Bonferroni), so that the level holds for the whole.

    Args:
        losses: (n_rows, n_trials) finite losses at the same timestamps, in time order.
        mean_block: Mean block length of the stationary bootstrap, at least the horizon.
        seed: Of the resampling.
        level: Probability of holding the best trial, in (0, 1).
        n_resamples: Resamples.
        most_in_pairs: Trials compared pair by pair; 0: the `max` statistic alone.

    Raises:
        ValueError: Losses are wrong, the block is shorter than one row, or the level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number inside (0, 1), found {level}")
    x = matrix(losses)
    first, group = _distinct(x)
    own = x[:, first] - x[:, first].mean(axis=1, keepdims=True, dtype=np.float64).astype(x.dtype)
    means = own.mean(axis=0, dtype=np.float64)
    drawn = resampled_means(own, mean_block=mean_block, n_resamples=n_resamples, seed=seed) - means
    if len(first) <= most_in_pairs:
        p, name = _eliminate(means, drawn, "range"), "range"
    elif most_in_pairs < 2:
        p, name = _eliminate(means, drawn, "max"), "max"
    else:
        p, name = _two_stages(means, drawn, 1 - level, most_in_pairs)
    whole = p[group]
    return ConfidenceSet(p=whole, is_member=whole >= 1 - level, level=level, statistic=name, n_distinct=len(first))


def _two_stages(means: Float, drawn: Float, error: float, most_in_pairs: int) -> tuple[Float, str]:
    p = np.minimum(1.0, 2 * _eliminate(means, drawn, "max"))
    left = np.flatnonzero(p >= error)
    if len(left) > most_in_pairs:
        return np.minimum(1.0, p / 2), "max"
    again = 2 * _eliminate(means[left], drawn[:, left], "range")
    p[left] = np.minimum(p[left], again)
    p[left[np.argmin(means[left])]] = 1.0
    return p, "max, then range"


def _eliminate(means: Float, drawn: Float, statistic: Statistic) -> Float:
    """Drop the worst of those left until one is left; its p is the largest test p seen so far."""
    p, left = np.ones(len(means)), np.arange(len(means))
    worst_so_far = 0.0
    spread = _pair_errors(drawn) if statistic == "range" else None
    while len(left) > 1:
        if spread is not None:
            test_p, worst = _range_test(means[left], drawn[:, left], spread[np.ix_(left, left)])
        else:
            test_p, worst = _max_test(means[left], drawn[:, left])
        worst_so_far = max(worst_so_far, test_p)
        p[left[worst]] = worst_so_far
        if worst_so_far >= 1.0:
            break
        left = np.delete(left, worst)
    return p


def _range_test(means: Float, drawn: Float, error: Float) -> tuple[float, int]:
    """Test that all are equal by the largest studentised difference; return p and the worst trial."""
    t = (means[:, None] - means) / error
    observed = float(np.abs(t).max())
    largest = np.zeros(len(drawn))
    for k in range(len(means) - 1):
        pairs = np.abs(drawn[:, k + 1 :] - drawn[:, k, None]) / error[k, k + 1 :]
        np.maximum(largest, pairs.max(axis=1), out=largest)
    return share_at_least(largest, observed), int(t.max(axis=1).argmax())


def _max_test(means: Float, drawn: Float) -> tuple[float, int]:
    """Test that all are equal by the largest studentised distance from their mean; return p and the worst trial."""
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    error = _positive(centred.std(axis=0))
    t = (means - means.mean()) / error
    return share_at_least((centred / error).max(axis=1), float(t.max())), int(t.argmax())


def _pair_errors(drawn: Float) -> Float:
    """Return the bootstrap standard error of every difference of two means."""
    covariance = np.cov(drawn, rowvar=False, ddof=0).reshape(drawn.shape[1], drawn.shape[1])
    variance = np.diag(covariance)[:, None] + np.diag(covariance) - 2 * covariance
    return _positive(np.sqrt(np.maximum(variance, 0.0)))


def _positive(error: Float) -> Float:
    """Keep a difference that hardly varies from dividing by nothing; float32 losses resolve no smaller one."""
    return np.maximum(error, max(1e-6 * float(error.max(initial=0.0)), 1e-30))


def _distinct(x: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first column of each kind, and for every column the position of its kind."""
    kinds: dict[bytes, int] = {}
    first, group = [], []
    for k in range(x.shape[1]):
        key = np.ascontiguousarray(x[:, k]).tobytes()
        if key not in kinds:
            kinds[key] = len(first)
            first.append(k)
        group.append(kinds[key])
    return np.asarray(first, dtype=np.int64), np.asarray(group, dtype=np.int64)
