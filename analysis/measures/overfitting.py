"""How much of the best score is luck of having tried many: deflation, overfitting by selection, optimism, shrinkage."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from analysis.measures.block_bootstrap import Float, matrix

EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True, kw_only=True)
class Overfitting:
    """How the trial that is best in one half of the time does in the other (Bailey, Borwein, Lopez de Prado, Zhu 2015).

    Attributes:
        probability: Share of the splits in which it is at or below the median of the other half (PBO). Around 0.5 there
            is nothing to choose by; in one sample without any skill 0.3 to 0.8 is common.
        logits: (n_splits,) log odds of its relative rank in the other half; positive is above the median.
        n_blocks: Blocks of time.
    """

    probability: float
    logits: Float
    n_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimism:
    """What choosing the best adds to its score (Tsamardinos, Greasidou and Borboudakis 2018, BBC-CV, on time blocks).

    Attributes:
        naive: Loss of the winner on the rows that chose it.
        corrected: Mean loss, on rows that did not choose it, of the winner of a resample.
        optimism: `corrected` minus `naive`; expect the winner to do this much worse.
        low, high: Central 90 % of the loss on the other rows.
    """

    naive: float
    corrected: float
    optimism: float
    low: float
    high: float


def expected_maximum(n_trials: float) -> float:
    """Return about the expected largest of n independent standard normal values; zero for one.

    Source: Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio", eq. 1:
    (1 - g) z(1 - 1/n) + g z(1 - 1/(n e)), g Euler's constant. Good from about five on.

    Args:
        n_trials: 1 or more; an effective number need not be whole.

    Raises:
        ValueError: Below 1.
    """
    if not n_trials >= 1:
        raise ValueError(f"n_trials: expected 1 or more, found {n_trials}")
    if n_trials == 1:
        return 0.0
    return float((1 - EULER) * ndtri(1 - 1 / n_trials) + EULER * ndtri(1 - 1 / (n_trials * math.e)))


def probability_above(
    ratio: float, benchmark: float, *, n_rows: int, skewness: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Return the probability that a true Sharpe ratio is above a benchmark (PSR).

    Source: Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier", eq. 9. Takes
    returns as independent.

    Args:
        ratio: Measured Sharpe ratio per period, not annualised.
        benchmark: In the same unit.
        n_rows: Periods, 2 or more.
        skewness: Of the returns.
        kurtosis: Raw: 3 for the normal.
    """
    return float(ndtr((ratio - benchmark) * math.sqrt(n_rows - 1) / math.sqrt(_shape(ratio, skewness, kurtosis))))


def probabilistic_sharpe(returns: ArrayLike, *, benchmark: float = 0.0) -> float | None:
    """Return `probability_above` of a series of returns, its moments with divisor n.

    Args:
        returns: (n,) returns of one period each.
        benchmark: Sharpe ratio per period, not annualised.

    Returns:
        None below three returns or without spread.

    Raises:
        ValueError: A return is not finite.
    """
    found = _moments(returns)
    if found is None:
        return None
    ratio, skewness, kurtosis, n = found
    return probability_above(ratio, benchmark, n_rows=n, skewness=skewness, kurtosis=kurtosis)


def deflated_sharpe(returns: ArrayLike, *, trial_sharpes: ArrayLike, n_effective: float) -> float | None:
    """Return the probability that a Sharpe ratio is above that of the luckiest of n trials without skill.

    Source: Bailey and Lopez de Prado (2014), eq. 2. One half is "as good as luck"; 0.95 is far stricter than a test at
    5 %, as the benchmark is the *expected* largest value.

    Args:
        returns: (n,) returns of the chosen trial, one period each.
        trial_sharpes: (n_trials,) Sharpe ratios per period of all trials; their variance scales the benchmark.
        n_effective: Effective number of trials ever started, 1 or more.

    Returns:
        None where `probabilistic_sharpe` is.

    Raises:
        ValueError: As in `probabilistic_sharpe` and `expected_maximum`.
    """
    ratios = np.asarray(trial_sharpes, dtype=np.float64)
    spread = float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0
    return probabilistic_sharpe(returns, benchmark=spread * expected_maximum(n_effective))


def minimum_track_record(returns: ArrayLike, *, benchmark: float = 0.0, level: float = 0.95) -> float | None:
    """Return how many periods it takes to be sure at `level` that the Sharpe ratio is above the benchmark (MinTRL).

    Source: Bailey and Lopez de Prado (2012), eq. 11. Arguments and errors as in `probabilistic_sharpe`.

    Returns:
        None where the ratio is not above the benchmark, or is not known.
    """
    found = _moments(returns)
    if found is None or found[0] <= benchmark:
        return None
    ratio, skewness, kurtosis, _ = found
    return float(1 + _shape(ratio, skewness, kurtosis) * (ndtri(level) / (ratio - benchmark)) ** 2)


def deflated_z(scores: ArrayLike, errors: ArrayLike, *, n_effective: float) -> float | None:
    """Return by how many standard errors the best score is above the expected best of n trials without skill.

    The idea of the deflated Sharpe ratio for any score; 0 is "as good as luck". Luck spreads scores by their sampling
    error and no more, so of the spread of the scores and their typical error the smaller one counts; distances are
    taken from the median: otherwise a few very bad trials would make the best one look lucky.

    Args:
        scores: (n_trials,) the larger the better.
        errors: (n_trials,) their standard errors, zero or more.
        n_effective: Effective number of trials ever started, 1 or more.

    Returns:
        None where the error of the best score is zero.

    Raises:
        ValueError: No score, shapes differ, or the number is below 1.
    """
    s, e = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if s.ndim != 1 or s.shape != e.shape or not len(s):
        raise ValueError(f"scores, errors: expected equal shapes (n,), found {s.shape} and {e.shape}")
    best = int(s.argmax())
    spread = min(float(s.std(ddof=1)), float(np.median(e))) if len(s) > 1 else 0.0
    luck = spread * expected_maximum(n_effective)
    return float((s[best] - np.median(s) - luck) / e[best]) if e[best] > 0 else None


def effective_trials(losses: ArrayLike) -> float:
    """Return how many independent trials the losses are worth, from 1 to their number.

    Source: Galwey (2009), "A new measure of the effective number of tests": (sum of root eigenvalues)^2 / sum of
    eigenvalues of the correlation matrix. What all trials have in common at a time is taken out first: it cancels in
    every comparison, and left in it would hide how many there are. Copies count once, constant columns not at all.

    Args:
        losses: (n_rows, n_trials) finite losses.

    Raises:
        ValueError: Losses are wrong.
    """
    x = matrix(losses).astype(np.float64)
    if x.shape[1] < 3:
        return float(x.shape[1]) if len(np.unique(x, axis=1).T) == x.shape[1] else 1.0
    own = x - x.mean(axis=1, keepdims=True)
    spread = own.std(axis=0)
    varies = spread > 1e-12 * max(1.0, float(np.abs(x).max()))
    if varies.sum() < 2:
        return 1.0
    correlation = np.corrcoef(own[:, varies], rowvar=False)
    values = np.clip(np.linalg.eigvalsh(correlation), 0.0, None)
    return float(np.clip(np.sqrt(values).sum() ** 2 / values.sum(), 1.0, varies.sum()))


def backtest_overfitting(losses: ArrayLike, *, n_blocks: int = 16, gap_rows: int = 0) -> Overfitting:
    """Return the probability of backtest overfitting by combinatorially symmetric cross-validation (CSCV).

    Time is cut into blocks; for every choice of half of them the trial with the lowest mean loss there is ranked among
    all by its loss on the other half, ties by their average. Its relative rank w = rank / (n_trials + 1), 1 being worst
    here turned so that n is best; the logit is log(w / (1 - w)), and PBO the share of splits with a logit of zero or
    less. Of several trials equal in the first half the first is taken.

    Args:
        losses: (n_rows, n_trials) finite losses at the same timestamps, in time order; two trials or more.
        n_blocks: Even; 16 give 12,870 splits.
        gap_rows: Rows left out at the start of each block, so that targets do not reach from one into the next:
            horizon - 1.

    Raises:
        ValueError: Losses are wrong, or there are too few rows or trials.
    """
    x = matrix(losses)
    n_rows, n_trials = x.shape
    if n_blocks < 2 or n_blocks % 2 or n_rows // n_blocks <= gap_rows or n_trials < 2:
        raise ValueError(
            f"expected two trials or more and an even n_blocks of more than {gap_rows} rows each, found {n_trials} "
            f"trials, {n_blocks} blocks and {n_rows} rows; take fewer blocks"
        )
    blocks = [rows[gap_rows:] for rows in np.array_split(np.arange(n_rows), n_blocks)]
    sums = np.array([x[rows].sum(axis=0, dtype=np.float64) for rows in blocks])
    sizes = np.array([len(rows) for rows in blocks], dtype=np.float64)
    halves = np.array(list(itertools.combinations(range(n_blocks), n_blocks // 2)))
    logits = np.concatenate(
        [_logits(part, sums, sizes) for part in np.array_split(halves, max(1, len(halves) // 2000))]
    )
    return Overfitting(probability=float(np.mean(logits <= 0)), logits=logits, n_blocks=n_blocks)


def selection_optimism(losses: ArrayLike, *, block_rows: int, n_resamples: int = 1000, seed: int) -> Optimism:
    """Return what the winner's loss owes to having been chosen by it.

    Blocks of time are drawn with replacement; the trial with the lowest mean loss on those drawn is scored on those not
    drawn (about a third). Losses are taken against the mean of all trials at each time, as blocks differ far more than
    trials do; the mean of all is added again at the end.

    Args:
        losses: (n_rows, n_trials) finite losses at the same timestamps, in time order.
        block_rows: Length of a block, at least the horizon.
        n_resamples: Resamples.
        seed: Of the resampling.

    Raises:
        ValueError: Losses are wrong, or there are fewer than four blocks.
    """
    x = matrix(losses).astype(np.float64)
    n_blocks = len(x) // max(1, block_rows)
    if n_blocks < 4:
        raise ValueError(f"losses: expected four blocks of {block_rows} rows or more, found {len(x)} rows")
    level = float(x.mean())
    own = x - x.mean(axis=1, keepdims=True)
    parts = np.array_split(np.arange(len(x)), n_blocks)
    sums = np.array([own[rows].sum(axis=0) for rows in parts])
    sizes = np.array([len(rows) for rows in parts], dtype=np.float64)
    drawn = np.random.default_rng(seed).multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), n_resamples)
    inside, outside = drawn.astype(np.float64), (drawn == 0).astype(np.float64)
    usable = outside.any(axis=1)
    inside, outside = inside[usable], outside[usable]
    chosen = ((inside @ sums) / (inside @ sizes)[:, None]).argmin(axis=1)
    scored = ((outside @ sums) / (outside @ sizes)[:, None])[np.arange(len(chosen)), chosen] + level
    naive, corrected = float(own.mean(axis=0).min()) + level, float(scored.mean())
    low, high = np.quantile(scored, (0.05, 0.95))
    return Optimism(naive=naive, corrected=corrected, optimism=corrected - naive, low=float(low), high=float(high))


def shrink(scores: ArrayLike, errors: ArrayLike) -> Float:
    """Return scores drawn towards their mean by as much as their spread is noise (empirical Bayes).

    Source: Efron and Morris (1975) with the moment estimate of the prior variance, max(0, var(s) - mean se^2).

    Args:
        scores: (n,) values.
        errors: (n,) their standard errors, zero or more.

    Raises:
        ValueError: Shapes differ, or there is no score.
    """
    s, e = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if s.ndim != 1 or s.shape != e.shape or not len(s):
        raise ValueError(f"scores, errors: expected equal shapes (n,), found {s.shape} and {e.shape}")
    if len(s) == 1:
        return s.copy()
    prior = max(0.0, float(s.var(ddof=1)) - float(np.mean(e**2)))
    total = e**2 + prior
    keep = np.divide(prior, total, out=np.ones_like(total), where=total > 0)
    return s.mean() + keep * (s - s.mean())


def _logits(halves: NDArray[np.int64], sums: Float, sizes: Float) -> Float:
    inside = np.zeros((len(halves), len(sizes)))
    np.put_along_axis(inside, halves, 1.0, axis=1)
    first = (inside @ sums) / (inside @ sizes)[:, None]
    second = ((1 - inside) @ sums) / ((1 - inside) @ sizes)[:, None]
    winner = second[np.arange(len(halves)), first.argmin(axis=1)][:, None]
    worse, equal = (second > winner).sum(axis=1), (second == winner).sum(axis=1)
    share = (worse + (equal + 1) / 2) / (sums.shape[1] + 1)
    return np.log(share / (1 - share))


def _shape(ratio: float, skewness: float, kurtosis: float) -> float:
    """Return the factor 1 - g3 SR + (g4 - 1)/4 SR^2 by which the variance of a Sharpe ratio exceeds 1/n."""
    return 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2


def _moments(returns: ArrayLike) -> tuple[float, float, float, int] | None:
    """Return ratio per period (ddof 1), skewness, raw kurtosis and length; None without spread or below three rows."""
    r = np.asarray(returns, dtype=np.float64)
    if r.ndim != 1 or not np.isfinite(r).all():
        raise ValueError(f"returns: expected finite values of shape (n,), found shape {r.shape}")
    spread = float(r.std(ddof=1)) if len(r) > 2 else 0.0
    if not spread > 0:
        return None
    z = (r - r.mean()) / r.std()
    return float(r.mean()) / spread, float(np.mean(z**3)), float(np.mean(z**4)), len(r)
