"""The statistics of fold racing against SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft, stats
from scipy.signal import lfilter
from scipy.special import polygamma

from search.stopping.paired_test import (
    VariancePrior,
    _trigamma_inverse,
    between_folds,
    fit_prior,
    mean_variance,
    p_worse,
    within_folds,
)

EVEN = np.full(6, 1 / 6)


def test_without_a_prior_it_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.4, 1.0, (5, 6))
    found = between_folds(differences, EVEN, None)
    assert found is not None
    expected = stats.ttest_1samp(differences, 0.0, axis=1, alternative="greater").pvalue
    np.testing.assert_allclose(p_worse(*found), expected, rtol=1e-12)


def test_a_prior_is_worth_its_degrees_of_freedom() -> None:
    differences = np.array([[1.0, 3.0, 2.0]])  # sample variance 1
    found = between_folds(differences, np.full(3, 1 / 3), VariancePrior(variance=4.0, dof=6.0))
    assert found is not None
    mean, variance, dof = found
    assert (mean[0], dof[0]) == (2.0, 8.0)
    assert variance[0] == pytest.approx((6 * 4 + 2 * 1) / 8 / 3)
    assert p_worse(mean, variance, dof)[0] == pytest.approx(stats.t.sf(2 / np.sqrt(3.25 / 3), 8))


def test_a_single_fold_says_nothing_without_a_prior() -> None:
    one = np.array([[5.0]])
    assert between_folds(one, np.ones(1), None) is None
    assert between_folds(one, np.ones(1), VariancePrior(1.0, 9.0)) is not None


def test_equal_weighted_cosines_are_the_low_frequencies_of_the_discrete_cosine_transform() -> None:
    blocks = np.random.default_rng(4).normal(size=(3, 16))
    variance, n_terms = mean_variance(blocks, 250)
    assert n_terms == 8  # 0.4 * 250^(2/3) is 15; half of the blocks is 8
    low = fft.dct(blocks, type=2, norm="ortho", axis=1)[:, 1:9]
    np.testing.assert_allclose(variance, (low**2).mean(axis=1) / 16, rtol=1e-12)
    assert mean_variance(blocks, 20)[1] == 2


def test_the_variance_of_the_mean_of_a_dependent_series_is_found() -> None:
    """AR(1) with 0.5: the variance of the mean of n values is close to (1 + 0.5) / (1 - 0.5) / n times their own."""
    innovations = np.random.default_rng(5).normal(size=(4000, 300 + 512))
    series = lfilter([1.0], [1.0, -0.5], innovations, axis=1)[:, 300:]
    blocks = series.reshape(4000, 16, 32).mean(axis=2)
    found, _ = mean_variance(blocks, 512)
    assert found.mean() == pytest.approx(4 / 512, rel=0.06)
    assert series.mean(axis=1).var() == pytest.approx(found.mean(), rel=0.1)
    p = p_worse(series.mean(axis=1), found, np.full(4000, 8.0))
    assert stats.binomtest(int((p <= 0.05).sum()), 4000, 0.05).proportion_ci(0.999).low < 0.06


def test_folds_are_joined_by_welch_and_satterthwaite() -> None:
    rng = np.random.default_rng(6)
    blocks = rng.normal(size=(1, 2, 16)) * np.array([1.0, 5.0])[:, None]
    total, dof = within_folds(blocks, np.array([0.5, 0.5]), [250, 20])
    first, second = (mean_variance(blocks[:, k], n)[0][0] / 4 for k, n in enumerate((250, 20)))
    assert total[0] == pytest.approx(first + second)
    assert dof[0] == pytest.approx((first + second) ** 2 / (first**2 / 8 + second**2 / 2))


def test_no_variance_is_certainty() -> None:
    p = p_worse(np.array([1.0, 0.0, -1.0]), np.zeros(3), np.full(3, 4.0))
    np.testing.assert_array_equal(p, [0.0, 1.0, 1.0])


@pytest.mark.parametrize("dof", [3.0, 8.0, 20.0])
def test_the_prior_is_recovered_from_variances_that_it_made(dof: float) -> None:
    rng = np.random.default_rng(7)
    dofs = rng.integers(1, 9, 100_000).astype(float)
    truth = 2.0 * dof / rng.chisquare(dof, 100_000)
    prior = fit_prior((truth * rng.chisquare(dofs) / dofs).tolist(), dofs.tolist())
    assert prior.variance == pytest.approx(2.0, rel=0.05)
    assert prior.dof == pytest.approx(dof, rel=0.3)


def test_equal_variances_are_worth_all_their_degrees_of_freedom() -> None:
    assert fit_prior([2.0] * 10, [4.0] * 10).dof == 40.0


@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0, 20.0])
def test_the_inverse_of_trigamma(value: float) -> None:
    assert polygamma(1, _trigamma_inverse(value)) == pytest.approx(value, rel=1e-6)
