"""The statistics of fold racing: is one trial worse than another on the same timestamps? Pure functions of arrays.

Two sources of doubt, and a difference must stand out against the larger. Within a fold, losses of neighbouring
timestamps depend on each other: the long-run variance of block means by equal-weighted cosines (Lazarus, Lewis, Stock &
Watson 2018, J. Bus. Econ. Stat. 36). Between folds, two configs differ by more than noise: a random effect, whose
variance from a handful of folds is moderated by that of other pairs of trials (Smyth 2004, Stat. Appl. Genet. Mol.
Biol. 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, stdtr, zeta

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VariancePrior:
    """What other pairs of trials say about the variance of a paired fold difference.

    Attributes:
        variance: Typical variance, s0 squared.
        dof: Degrees of freedom that it is worth, d0.
    """

    variance: float
    dof: float


def fit_prior(variances: Sequence[float], dofs: Sequence[float]) -> VariancePrior:
    """Fit the scaled inverse chi-square prior to sample variances by the moments of their logarithms.

    Source: Smyth (2004), section 6.2. Its d0 may come out infinite; here it is worth no more than all the data are.

    Args:
        variances: Sample variances, above zero, at least two.
        dofs: Degrees of freedom of each, at least 1.
    """
    logs, halves = np.log(variances), np.asarray(dofs, dtype=float) / 2
    centred = logs - digamma(halves) + np.log(halves)
    excess = float(np.var(centred, ddof=1) - np.mean(zeta(2, halves)))
    most = float(np.sum(dofs))
    half = min(_trigamma_inverse(excess), most / 2) if excess > 0 else most / 2
    return VariancePrior(float(np.exp(centred.mean() + digamma(half) - math.log(half))), 2 * half)


def between_folds(
    differences: Floats, weights: Floats, prior: VariancePrior | None
) -> tuple[Floats, Floats, Floats] | None:
    """Return mean difference, its variance and degrees of freedom for several pairs, from the spread over folds.

    Args:
        differences: (n_pairs, n_folds) paired differences of fold losses.
        weights: (n_folds,) summing to 1: share of the scored timestamps.
        prior: From other pairs; None where there is none.

    Returns:
        Three (n_pairs,) arrays; None where a single fold stands without a prior.
    """
    n_pairs, n_folds = differences.shape
    own = float(n_folds - 1)
    spread = np.var(differences, axis=1, ddof=1) if n_folds > 1 else np.zeros(n_pairs)
    if prior is not None:
        spread = (prior.dof * prior.variance + own * spread) / (prior.dof + own)
        own += prior.dof
    if own == 0:
        return None
    return differences @ weights, spread * float(np.sum(weights**2)), np.full(n_pairs, own)


def within_folds(blocks: Floats, weights: Floats, n_scored: Sequence[int]) -> tuple[Floats, Floats]:
    """Return variance and degrees of freedom of mean differences, from the dependence of losses inside the folds.

    Folds are joined by Welch and Satterthwaite's rule.

    Args:
        blocks: (n_pairs, n_folds, n_blocks) paired differences of block means.
        weights: (n_folds,) summing to 1.
        n_scored: Scored timestamps of each fold.
    """
    variances, dofs = zip(*(mean_variance(blocks[:, k], n) for k, n in enumerate(n_scored)), strict=True)
    parts = weights**2 * np.stack(variances, axis=1)
    total = parts.sum(axis=1)
    shares = np.divide(parts, total[:, None], out=np.full_like(parts, 1 / len(n_scored)), where=total[:, None] > 0)
    return total, 1 / (shares**2 / np.asarray(dofs, dtype=float)).sum(axis=1)


def mean_variance(blocks: Floats, n_scored: int) -> tuple[Floats, int]:
    """Return the variance of the mean of a dependent series, and its degrees of freedom, from block means.

    Equal-weighted cosines: 0.4 n^(2/3) of the lowest ones, of `n_scored` timestamps, but no more than half as many as
    there are blocks; a block mean knows nothing of faster ones.

    Args:
        blocks: (..., n_blocks) block means, at least 2.
        n_scored: Timestamps that they summarise.
    """
    n_blocks = blocks.shape[-1]
    n_terms = max(1, min(math.floor(0.4 * n_scored ** (2 / 3)), n_blocks // 2))
    weights = blocks @ _cosines(n_blocks, n_terms)
    return np.mean(weights**2, axis=-1) / n_blocks, n_terms


@lru_cache
def _cosines(n_blocks: int, n_terms: int) -> Floats:
    angles = np.pi * np.outer(np.arange(n_blocks) + 0.5, np.arange(1, n_terms + 1)) / n_blocks
    return math.sqrt(2 / n_blocks) * np.cos(angles)


def p_worse(mean: Floats, variance: Floats, dof: Floats) -> Floats:
    """Return the one-sided p-values of "not worse" by Student's t. Without variance: 0 above zero, else 1."""
    certain = np.where(mean > 0, np.inf, -np.inf)
    ratio = np.divide(mean, np.sqrt(variance), out=certain, where=variance > 0)
    p: Floats = stdtr(dof, -ratio)
    return p


def _trigamma_inverse(value: float) -> float:
    """Solve trigamma(x) = value for x by Newton's steps on 1/trigamma (Smyth 2004, appendix).

    Trigamma is zeta(2, x), its derivative -2 zeta(3, x) (Abramowitz & Stegun 6.4.10).
    """
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(zeta(2, x))
        step = trigamma * (1 - trigamma / value) / (-2 * float(zeta(3, x)))
        x += step
        if -step / x < 1e-8:
            break
    return x
