"""Evidence of made-up searches over a market of which the truth is known: no signal, or one that a family can see."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter
from scipy.stats import rankdata

from analysis.evidence import CommonEvidence, LeftOut


def returns(generator: np.random.Generator, n_rows: int) -> np.ndarray:
    """Daily returns with clustered volatility and fat tails: GARCH(1,1) with Student t of 5 degrees."""
    shocks = generator.standard_t(5, n_rows) / np.sqrt(5 / 3)
    found, variance = np.empty(n_rows), 1e-4
    for t, shock in enumerate(shocks):
        found[t] = np.sqrt(variance) * shock
        variance = 1e-4 * 0.03 + 0.09 * found[t] ** 2 + 0.88 * variance
    return found


def forecasts(generator: np.random.Generator, n_rows: int, n_trials: int) -> np.ndarray:
    """(n_rows, n_trials) unit-variance forecasts that know nothing: persistent, and alike within families."""
    n_families = max(1, n_trials // 8)
    persistence = generator.choice([0.0, 0.6, 0.95, 0.99], n_trials + n_families)
    noise = generator.standard_normal((n_rows, n_trials + n_families))
    slow = np.column_stack([lfilter([1.0], [1.0, -p], noise[:, k]) for k, p in enumerate(persistence)])
    slow /= slow.std(axis=0)
    family = generator.integers(0, n_families, n_trials)
    likeness = generator.uniform(0.2, 0.9, n_trials)
    mixed = np.sqrt(likeness) * slow[:, n_trials + family] + np.sqrt(1 - likeness) * slow[:, :n_trials]
    return mixed / mixed.std(axis=0)


def search(
    seed: int,
    *,
    n_trials: int,
    n_folds: int = 8,
    rows_per_fold: int = 250,
    n_planted: int = 0,
    information: float = 0.05,
    is_equal: bool = False,
) -> CommonEvidence:
    """Make the evidence of a search.

    Args:
        seed: Of everything.
        n_trials: Complete trials; the first `n_planted` of them see the signal.
        n_folds: Folds, of lengths that differ by up to a third.
        rows_per_fold: Mean length.
        n_planted: Trials whose forecast has the correlation `information` with what happens.
        information: Correlation with the standardised return.
        is_equal: Losses of all trials and of the naive forecast have the same expectation (the hardest case to stay
            silent in); else a forecast that knows nothing costs what its variance adds.
    """
    generator = np.random.default_rng(seed)
    sizes = np.round(rows_per_fold * generator.uniform(0.67, 1.33, n_folds)).astype(int)
    n_rows = int(sizes.sum())
    y = returns(generator, n_rows)
    signal = forecasts(generator, n_rows, n_trials)
    z = y / np.sqrt(np.maximum(lfilter([0.1], [1, -0.9], y**2), 1e-5))
    for k in range(n_planted):
        signal[:, k] = information * z / z.std() + np.sqrt(1 - information**2) * signal[:, k]
    size = generator.uniform(0.02, 0.08, n_trials)
    size[:n_planted] = information
    prediction = size * 0.01 * signal
    naive = y**2 * 1e4
    loss = (y[:, None] - prediction) ** 2 * 1e4
    if is_equal:
        loss -= (prediction**2).mean(axis=0) * 1e4 * (np.arange(n_trials) >= n_planted)
    level = np.repeat(generator.uniform(0.0, 0.5, n_folds), sizes)
    ranks = rankdata(prediction, axis=0), rankdata(y)
    product = ((ranks[0] - ranks[0].mean(0)) / ranks[0].std(0)) * ((ranks[1] - ranks[1].mean()) / ranks[1].std())[
        :, None
    ]
    return CommonEvidence(
        trial_ids=tuple(f"t{k:04d}" for k in range(n_trials)),
        timestamp=np.arange(n_rows, dtype=np.int64) * 86_400_000_000_000,
        fold=np.repeat(np.arange(n_folds), sizes),
        loss_TK=(loss + level[:, None]).astype(np.float32),
        advantage_TK=(naive[:, None] - loss).astype(np.float32),
        measure="squared error",
        baseline="zero",
        signal_TK=product.astype(np.float32),
        signal_horizon="1d",
        horizon_rows=1,
        pnl_TK=None,
        left_out=LeftOut(),
        n_expected=n_trials,
    )
