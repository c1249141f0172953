"""Calibration, classification, trading and baselines."""

import math

import numpy as np
import pytest
import scoringrules
from scipy import stats
from sklearn import metrics

from analysis.measures import baselines, calibration, classification, trading

rng = np.random.default_rng


@pytest.mark.requirement("ANALYSIS-5")
def test_coverage_of_ideal_quantiles_is_the_level():
    levels = (0.05, 0.5, 0.95)
    y = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    q = np.tile(stats.norm.ppf(levels), (1000, 1))
    np.testing.assert_allclose(calibration.coverage(y, q), levels, atol=1e-9)
    np.testing.assert_allclose(calibration.coverage_error(y, q + 0.1, levels) > 0, True)
    y[0] = math.nan
    assert calibration.coverage(y, q)[1] == pytest.approx(499 / 999)


def test_pit_of_the_true_distribution_is_uniform_and_of_another_is_not():
    y = rng(0).normal(1.0, 2.0, 500)
    np.testing.assert_allclose(calibration.pit_gaussian(y, 1.0, 2.0), stats.norm.cdf(y, 1.0, 2.0))
    assert stats.kstest(calibration.pit_gaussian(y, 1.0, 2.0), "uniform").pvalue > 0.01
    assert stats.kstest(calibration.pit_gaussian(y, 1.0, 4.0), "uniform").pvalue < 1e-6


@pytest.mark.requirement("ANALYSIS-8")
def test_expected_calibration_error_by_hand():
    # Bins of a tenth: (0.2, 0.3] holds 0.25 twice with one hit, (0.8, 0.9] holds 0.9 twice with two hits.
    found = calibration.expected_calibration_error([1, 0, 1, 1], [0.25, 0.25, 0.9, 0.9])
    assert found == pytest.approx(0.5 * abs(0.5 - 0.25) + 0.5 * abs(1.0 - 0.9))


@pytest.mark.requirement("ANALYSIS-7")
@pytest.mark.requirement("ANALYSIS-8")
def test_class_measures_agree_with_scikit_learn():
    label, predicted = rng(1).integers(0, 3, (2, 200))
    matrix = classification.confusion(label, predicted, n_classes=3)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(label, predicted))
    assert classification.accuracy(matrix) == pytest.approx(metrics.accuracy_score(label, predicted))
    assert classification.balanced_accuracy(matrix) == pytest.approx(metrics.balanced_accuracy_score(label, predicted))
    assert classification.majority_rate(matrix) == np.bincount(label).max() / 200
    empty = np.zeros((3, 3))
    assert (classification.accuracy(empty), classification.balanced_accuracy(empty)) == (None, None)
    with pytest.raises(ValueError, match="predicted: expected integers 0 to 1"):
        classification.confusion([0, 1], [0, 2], n_classes=2)


@pytest.mark.requirement("ANALYSIS-8")
def test_constant_forecast_has_no_directional_gain():
    y = np.array([1.0, 2.0, -1.0, 0.0, 3.0, math.nan])
    assert classification.directional_accuracy(np.ones(6), y) == 0.75
    assert classification.directional_gain(np.ones(6), y) == 0.0
    assert classification.directional_gain(y, y) == 0.25
    assert classification.directional_accuracy([1.0], [0.0]) is None


@pytest.mark.requirement("ANALYSIS-5")
def test_random_sides_in_the_tails_are_half_right():
    y, guess = rng(2).standard_normal((2, 40000))
    low, high = np.quantile(y, (0.05, 0.95))
    share, n = classification.tail_accuracy(guess, y, low=low, high=high)
    assert n == 4000
    assert share == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(n))
    assert classification.tail_accuracy(y, y, low=low, high=high)[0] == 1.0


@pytest.mark.requirement("ANALYSIS-9")
def test_golden_equity_curve():
    equity = np.array([100.0, 110.0, 105.0, 120.0, 90.0, 95.0])
    assert trading.max_drawdown(equity) == 30.0
    pnl = np.diff(equity)
    assert trading.win_rate(pnl) == 0.6
    assert trading.sharpe(pnl) == pytest.approx(
        -1.0 / math.sqrt(1270 / 4) * math.sqrt(252)
    )  # mean -1, squared deviations 1270
    assert trading.turnover([1.0, 1.0, -1.0]) == 1.0


def test_trading_measures_without_content():
    assert trading.sharpe([1.0]) is None
    assert trading.sharpe([0.5, 0.5, 0.5]) is None
    assert trading.win_rate([0.0, 0.0]) is None
    assert trading.max_drawdown([5.0, 6.0, 7.0]) == 0.0
    with pytest.raises(ValueError, match="finite"):
        trading.sharpe([1.0, math.nan])
    with pytest.raises(ValueError, match="at least one"):
        trading.max_drawdown([])


@pytest.mark.requirement("ANALYSIS-4")
def test_baseline_against_itself_saves_nothing():
    y = rng(3).standard_normal(500)
    score = float(baselines.zero_mean_gaussian_crps(y, baselines.scale_of(y)).mean())
    assert baselines.relative_reduction(score, score) == 0.0
    assert baselines.relative_reduction(0.75 * score, score) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="baseline"):
        baselines.relative_reduction(1.0, 0.0)


@pytest.mark.requirement("ANALYSIS-4")
def test_baselines_agree_with_other_libraries():
    import pandas as pd

    y = rng(4).standard_normal(200)
    judge = np.sqrt(pd.Series(y**2).ewm(span=20, adjust=False).mean().to_numpy())
    np.testing.assert_allclose(baselines.ewma_scale(y, span_rows=20), judge, rtol=1e-10)
    np.testing.assert_allclose(
        baselines.zero_mean_gaussian_crps(y, 1.5), scoringrules.crps_normal(y, 0.0, 1.5), rtol=1e-9
    )
    levels = (0.25, 0.5, 0.75)
    fixed = np.quantile(y, levels)
    expected = 2 * sum(
        w * scoringrules.quantile_score(y, fixed[k], levels[k]) for k, w in enumerate((0.375, 0.25, 0.375))
    )
    np.testing.assert_allclose(baselines.unconditional_crps(np.r_[y, math.nan], y, levels), expected, rtol=1e-12)
