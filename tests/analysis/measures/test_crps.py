import math

import numpy as np
import pytest
import scoringrules
from scipy import stats

from analysis.measures import crps

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
rng = np.random.default_rng


@pytest.mark.requirement("ANALYSIS-3")
def test_gaussian_agrees_with_scoringrules():
    y, mu = rng(0).standard_normal((2, 200)) * 3
    sigma = rng(1).uniform(0.01, 5, 200)
    np.testing.assert_allclose(crps.gaussian(y, mu, sigma), scoringrules.crps_normal(y, mu, sigma), rtol=1e-9)


@pytest.mark.requirement("LOSS-8")
def test_standard_normal_at_its_mean():
    assert crps.gaussian([0.0], 0.0, 1.0)[0] == pytest.approx(0.2337, abs=5e-5)


def test_certain_forecast_scores_its_absolute_error_and_nan_stays_nan():
    np.testing.assert_allclose(crps.gaussian([1.0, math.nan], [3.0, 0.0], [0.0, 1.0]), [2.0, math.nan])
    with pytest.raises(ValueError, match="scale"):
        crps.gaussian([1.0], 0.0, -1.0)


@pytest.mark.requirement("ANALYSIS-3")
def test_mean_scores_of_the_ideal_forecast_of_a_standard_normal():
    y = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)
    ideal = np.tile(stats.norm.ppf(LEVELS), (len(y), 1))
    assert crps.gaussian(y, 0.0, 1.0).mean() == pytest.approx(1 / math.sqrt(math.pi), abs=1e-3)
    assert crps.quantile(y, ideal, LEVELS).mean() == pytest.approx(0.5555, abs=0.003)
    assert 2 * crps.pinball(y, ideal, LEVELS).mean() == pytest.approx(0.455, abs=2e-3)


@pytest.mark.requirement("ANALYSIS-3")
def test_cell_widths_of_the_seven_levels():
    np.testing.assert_allclose(crps.cell_widths(LEVELS), (0.075, 0.1, 0.2, 0.25, 0.2, 0.1, 0.075))


def test_many_levels_come_to_the_exact_score():
    levels = (np.arange(2000) + 0.5) / 2000
    y = np.array([-1.3, 0.0, 2.2])
    approximation = crps.quantile(y, np.tile(stats.norm.ppf(levels), (3, 1)), levels)
    np.testing.assert_allclose(approximation, scoringrules.crps_normal(y, 0.0, 1.0), rtol=2e-3)


@pytest.mark.requirement("LOSS-1")
def test_pinball_agrees_with_scoringrules_and_the_hand_example():
    y, q = rng(2).standard_normal(50), rng(3).standard_normal((50, 2))
    found = crps.pinball(y, q, (0.1, 0.9))
    for k, level in enumerate((0.1, 0.9)):
        np.testing.assert_allclose(found[:, k], scoringrules.quantile_score(y, q[:, k], level), rtol=1e-12)
    np.testing.assert_allclose(crps.pinball([1.0, -1.0], [[0.0], [0.0]], (0.9,))[:, 0], [0.9, 0.1])


@pytest.mark.requirement("ANALYSIS-3")
@pytest.mark.parametrize("estimator", ["fair", "nrg"])
def test_samples_agree_with_scoringrules(estimator):
    y, members = rng(4).standard_normal(40), rng(5).standard_normal((40, 17))
    expected = scoringrules.crps_ensemble(y, members, estimator=estimator)
    np.testing.assert_allclose(crps.sample(y, members, estimator=estimator), expected, rtol=1e-10)


def test_brier_agrees_with_scoringrules():
    y, p = rng(6).integers(0, 2, 30).astype(float), rng(7).uniform(0, 1, 30)
    np.testing.assert_allclose(crps.brier(y, p), scoringrules.brier_score(y, p), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crps.cell_widths([0.5, 0.1]), "levels: expected increasing"),
        (lambda: crps.quantile([1.0], [[1.0, 2.0]], [0.5]), r"expected shape \(n, k\) = \(1, 1\), found \(1, 2\)"),
        (lambda: crps.sample([1.0], [[1.0]]), "needs more than 1"),
        (lambda: crps.sample([1.0], [[1.0, 2.0]], estimator="qd"), "expected 'fair' or 'nrg', found 'qd'"),
        (lambda: crps.brier([0.5], [0.5]), "outcome: expected 0 or 1"),
        (lambda: crps.brier([1.0], [1.5]), r"probability: expected values in \[0, 1\]"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
