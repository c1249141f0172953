import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from analysis.measures import overfitting


@pytest.mark.parametrize("n", [5, 10, 100, 1000])
def test_expected_maximum_is_near_the_exact_integral(n):
    exact, _ = integrate.quad(lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -10, 12)
    assert overfitting.expected_maximum(n) == pytest.approx(exact, rel=0.03)


def test_expected_maximum_of_one_is_nothing_and_less_is_refused():
    assert overfitting.expected_maximum(1) == 0.0
    with pytest.raises(ValueError, match="1 or more"):
        overfitting.expected_maximum(0.5)


@pytest.mark.requirement("SEARCH-17")
def test_the_worked_example_of_the_deflated_sharpe_ratio():
    # Bailey and Lopez de Prado (2014), numerical example: annual ratio 2.5 over 1250 daily returns, skewness -3,
    # kurtosis 10, 100 trials whose annual ratios have variance 1/2: benchmark 0.1132 per day, DSR 0.9004.
    benchmark = math.sqrt(0.5 / 250) * overfitting.expected_maximum(100)
    assert benchmark == pytest.approx(0.1132, abs=1e-4)
    found = overfitting.probability_above(2.5 / math.sqrt(250), benchmark, n_rows=1250, skewness=-3, kurtosis=10)
    assert found == pytest.approx(0.9004, abs=1e-3)


def test_the_worked_example_of_the_minimum_track_record():
    # Bailey and Lopez de Prado (2012): an annual ratio of 2 from daily normal returns takes 2.73 years to be above 1.
    z = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    returns = z / z.std(ddof=1) + 2 / math.sqrt(252)
    found = overfitting.minimum_track_record(returns, benchmark=1 / math.sqrt(252))
    assert found / 252 == pytest.approx(2.73, abs=0.01)
    assert overfitting.minimum_track_record(-returns) is None


def test_probability_of_a_series_uses_its_own_moments():
    returns = np.random.default_rng(0).standard_t(5, 500) * 0.01 + 0.0005
    ratio = returns.mean() / returns.std(ddof=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    expected = overfitting.probability_above(ratio, 0.02, n_rows=500, skewness=skewness, kurtosis=kurtosis)
    assert overfitting.probabilistic_sharpe(returns, benchmark=0.02) == pytest.approx(expected, rel=1e-12)
    assert overfitting.probabilistic_sharpe(np.ones(50)) is None
    with pytest.raises(ValueError, match="finite"):
        overfitting.probabilistic_sharpe([1.0, math.nan, 2.0])


@pytest.mark.requirement("SEARCH-17")
def test_the_winner_of_a_thousand_noise_series_is_not_convincing():
    generator = np.random.default_rng(1)
    returns = generator.standard_normal((500, 1000))
    ratios = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
    best = returns[:, ratios.argmax()]
    assert overfitting.probabilistic_sharpe(best) > 0.99
    deflated = overfitting.deflated_sharpe(best, trial_sharpes=ratios, n_effective=1000)
    assert 0.2 < deflated < 0.8


def test_deflated_z_is_as_good_as_luck_on_noise_and_far_above_it_with_skill():
    generator = np.random.default_rng(2)
    zs = []
    for _ in range(200):
        scores = generator.standard_normal(100)
        zs.append(overfitting.deflated_z(scores, np.ones(100), n_effective=100))
    assert abs(np.mean(zs)) < 0.1
    scores = np.r_[8.0, generator.standard_normal(99)]
    assert overfitting.deflated_z(scores, np.ones(100), n_effective=100) > 4
    # Very bad trials beside good ones do not make the best look lucky.
    assert overfitting.deflated_z([0.0, -5.0, -100.0], [1.0, 1.0, 1.0], n_effective=3) > 3
    assert overfitting.deflated_z([1.0, 0.0], [0.0, 0.0], n_effective=2) is None


def test_effective_trials_counts_what_differs():
    generator = np.random.default_rng(3)
    own, shared = generator.standard_normal((4000, 20)), generator.standard_normal((4000, 1))
    assert overfitting.effective_trials(own) == pytest.approx(20, rel=0.07)
    assert overfitting.effective_trials(own + 10 * shared) == pytest.approx(20, rel=0.07)
    # Galwey (2009) by hand: correlation with eigenvalues (m, 0, ...) has one effective test.
    five = np.repeat(own[:, :4], 5, axis=1)
    assert overfitting.effective_trials(five) == pytest.approx(4, abs=1.2)
    assert overfitting.effective_trials(np.ones((50, 4))) == 1.0
    assert overfitting.effective_trials(own[:, :1]) == 1.0
    assert overfitting.effective_trials(own[:, [0, 0]]) == 1.0


def brute_force(values, n_blocks):
    """CSCV with loops and SciPy's ranks, written from the paper."""
    blocks = np.array_split(values, n_blocks)
    logits = []
    for half in itertools.combinations(range(n_blocks), n_blocks // 2):
        inside = np.vstack([blocks[k] for k in half]).mean(axis=0)
        outside = np.vstack([blocks[k] for k in range(n_blocks) if k not in half]).mean(axis=0)
        rank = stats.rankdata(-outside)[inside.argmin()]
        share = rank / (values.shape[1] + 1)
        logits.append(math.log(share / (1 - share)))
    return np.array(logits)


@pytest.mark.parametrize(("n_trials", "n_rows"), [(2, 40), (5, 61), (30, 120)])
def test_overfitting_is_what_brute_force_finds(n_trials, n_rows):
    values = np.random.default_rng(n_trials).standard_normal((n_rows, n_trials)) + np.linspace(0, 0.3, n_trials)
    found = overfitting.backtest_overfitting(values, n_blocks=8)
    expected = brute_force(values, 8)
    assert np.allclose(found.logits, expected)
    assert found.probability == np.mean(expected <= 1e-12)


def test_equal_trials_share_their_rank_and_a_true_best_is_not_overfitted():
    values = np.random.default_rng(0).standard_normal((80, 6))
    same = overfitting.backtest_overfitting(np.repeat(values[:, :1], 4, axis=1), n_blocks=4)
    assert np.allclose(same.logits, 0)
    assert same.probability == 1.0
    values[:, 2] -= 10
    assert overfitting.backtest_overfitting(values, n_blocks=8).probability == 0.0


def test_gap_rows_keep_blocks_apart():
    values = np.random.default_rng(0).standard_normal((64, 3))
    spoiled = values.copy()
    spoiled[::8] += 1e6 * np.arange(3)
    a, b = (overfitting.backtest_overfitting(v, n_blocks=8, gap_rows=1).logits for v in (values, spoiled))
    assert np.allclose(a, b)
    with pytest.raises(ValueError, match="take fewer blocks"):
        overfitting.backtest_overfitting(values, n_blocks=16, gap_rows=4)


def test_optimism_of_noise_is_that_of_the_minimum_and_of_skill_is_nothing():
    # The lowest of k independent means of n rows lies about E[max_k] / sqrt(n) below zero; new rows take it all back.
    naive, corrected = [], []
    for seed in range(20):
        values = np.random.default_rng(seed).standard_normal((400, 50))
        found = overfitting.selection_optimism(values, block_rows=1, n_resamples=200, seed=seed)
        naive.append(found.naive)
        corrected.append(found.corrected)
    assert np.mean(naive) == pytest.approx(-overfitting.expected_maximum(50) / 20, rel=0.1)
    assert abs(np.mean(corrected)) < 0.25 * abs(np.mean(naive))
    values[:, 0] -= 5
    found = overfitting.selection_optimism(values, block_rows=5, n_resamples=200, seed=1)
    assert abs(found.optimism) < 0.02
    assert found.low < found.corrected < found.high


def test_optimism_needs_blocks():
    with pytest.raises(ValueError, match="four blocks of 20"):
        overfitting.selection_optimism(np.zeros((60, 2)), block_rows=20, seed=1)


def test_shrinking_by_hand():
    # var = 4, mean se^2 = 1, prior 3: each score keeps 3/4 of its distance from the mean.
    assert np.allclose(overfitting.shrink([0.0, 2.0, 4.0], [1.0, 1.0, 1.0]), [0.5, 2.0, 3.5])
    assert np.allclose(overfitting.shrink([0.0, 2.0, 4.0], [9.0, 9.0, 9.0]), 2.0)
    assert np.allclose(overfitting.shrink([0.0, 2.0], [0.0, 0.0]), [0.0, 2.0])
    assert overfitting.shrink([3.0], [1.0]).tolist() == [3.0]
    with pytest.raises(ValueError, match="equal shapes"):
        overfitting.shrink([1.0], [1.0, 2.0])
