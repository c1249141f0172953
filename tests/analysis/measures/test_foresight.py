from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.measures.foresight import LEAST_TRIALS, Order, foresight


def made(n_folds: int, n_trials: int, weight: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of which a hidden part shows in the measure now and, with a weight, in the loss of the next fold."""
    generator = np.random.default_rng(seed)
    quality, hidden = generator.standard_normal(n_trials), generator.standard_normal((n_folds, n_trials))
    losses = quality + 0.5 * generator.standard_normal((n_folds, n_trials))
    losses[1:] += weight * hidden[:-1]
    return hidden + 0.3 * generator.standard_normal((n_folds, n_trials)), losses


@pytest.mark.requirement("ANALYSIS-6")
def test_a_measure_that_tells_of_the_next_fold_is_found():
    found = foresight(*made(6, 60, 1.0, seed=1))
    assert found.is_told
    assert found.low < found.value < found.high
    assert (found.n_pairs, found.n_trials) == (5, 60)


@pytest.mark.requirement("ANALYSIS-6")
def test_a_measure_that_tells_nothing_is_told_so_in_most_searches():
    told = [foresight(*made(5, 40, 0.0, seed), n_resamples=200).is_told for seed in range(60)]
    assert sum(told) <= 4  # one-sided 2.5 %, and the wider of two intervals


@pytest.mark.requirement("ANALYSIS-6")
def test_what_the_loss_says_already_is_not_credited_to_the_measure():
    generator = np.random.default_rng(3)
    quality = generator.standard_normal(200)
    losses = quality + 0.3 * generator.standard_normal((6, 200))
    measure = losses + 0.3 * generator.standard_normal((6, 200))  # rises with the loss of its own fold only
    plain = np.mean([stats.spearmanr(measure[k], losses[k + 1]).statistic for k in range(5)])
    found = foresight(measure, losses)
    assert plain > 0.7
    assert abs(found.value) < 0.1
    assert not found.is_told


def test_it_is_the_partial_correlation_of_ranks():
    measure, losses = made(2, 50, 0.7, seed=4)
    ranks = [stats.rankdata(v) for v in (measure[0], losses[0], losses[1])]
    x, b, y = ranks
    residual = [v - np.polyval(np.polyfit(b, v, 1), b) for v in (x, y)]
    assert foresight(measure, losses).value == pytest.approx(np.corrcoef(*residual)[0, 1], abs=1e-12)


def test_too_little_gives_nothing():
    measure, losses = made(3, 20, 1.0, seed=5)
    assert foresight(measure[:1], losses[:1]) is None
    assert foresight(measure[:, : LEAST_TRIALS - 1], losses[:, : LEAST_TRIALS - 1]) is None
    assert foresight(np.ones_like(losses), losses) is None
    measure[0, :15] = np.nan
    assert foresight(measure, losses) is None
    with pytest.raises(ValueError, match="expected equal shapes"):
        foresight(measure, losses[:2])


def test_resamples_in_which_the_order_of_losses_is_the_same_in_both_folds_leave_nothing_to_ask():
    # Ten trials: some resamples repeat few of them, and then rounding takes the partial correlation out of its range.
    generator = np.random.default_rng(1)
    losses = np.sort(generator.standard_normal((4, 10)), axis=1)
    losses[:, :2] = losses[:, 1::-1]
    found = foresight(generator.lognormal(size=(4, 10)), losses + 0.3 * generator.standard_normal((4, 10)))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert foresight(generator.lognormal(size=(4, 10)), np.sort(losses, axis=1)) is None


def test_ranks_of_a_resample_are_those_of_its_values():
    generator = np.random.default_rng(8)
    values = generator.integers(0, 6, (3, 12)).astype(float)  # many ties
    drawn = generator.integers(0, 12, 12)
    found = Order.of(values).standard_ranks(np.bincount(drawn, minlength=12))[:, drawn]
    assert found == pytest.approx(stats.zscore(stats.rankdata(values[:, drawn], axis=1), axis=1), abs=1e-12)
