import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.measures import long_run


def autoregression(n: int, rho: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    series = np.zeros(n)
    for i, shock in enumerate(generator.standard_normal(n)):
        series[i] = (rho * series[i - 1] if i else 0.0) + shock
    return series


@pytest.mark.parametrize("n_lags", [0, 1, 7, 30])
def test_newey_west_agrees_with_statsmodels(n_lags):
    y = autoregression(300, 0.6, 1)
    fit = sm.OLS(y, np.ones(len(y))).fit(cov_type="HAC", cov_kwds={"maxlags": n_lags, "use_correction": False})
    assert math.sqrt(long_run.newey_west(y, n_lags=n_lags) / len(y)) == pytest.approx(fit.bse[0], rel=1e-10)


@pytest.mark.parametrize("n", [8, 63, 200])
def test_ewc_is_the_mean_of_squared_cosine_coefficients_of_the_paper(n):
    y = autoregression(n, 0.3, n)
    terms = math.floor(0.4 * n ** (2 / 3))
    t = np.arange(1, n + 1)
    cosines = [
        math.sqrt(2 / n) * np.sum((y - y.mean()) * np.cos(np.pi * j * (t - 0.5) / n)) for j in range(1, terms + 1)
    ]
    assert long_run.ewc(y) == pytest.approx(np.mean(np.square(cosines)), rel=1e-10)


def test_ewc_error_keeps_its_level_where_horizons_overlap_and_the_naive_one_does_not():
    generator = np.random.default_rng(11)
    naive, robust, n, horizon = 0, 0, 500, 5
    for _ in range(400):
        y = np.convolve(generator.standard_normal(n + horizon - 1), np.ones(horizon), "valid")
        estimate = long_run.mean_with_error(y)
        robust += abs(estimate.mean / estimate.error) > stats.t.ppf(0.975, estimate.degrees_of_freedom)
        naive += abs(estimate.mean) > 1.96 * y.std(ddof=1) / math.sqrt(n)
    # Published sizes at this setting: .388 naive, .055 EWC. Three binomial standard errors of 400 draws are .034.
    assert 0.30 < naive / 400 < 0.47
    assert robust / 400 < 0.09


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=60), st.floats(-1e3, 1e3))
def test_variances_ignore_a_constant_and_are_never_negative(values, shift):
    y = np.asarray(values)
    assert long_run.ewc(y) >= 0
    assert long_run.newey_west(y, n_lags=3) >= -1e-6
    assert long_run.ewc(y + shift) == pytest.approx(long_run.ewc(y), rel=1e-6, abs=1e-5)


def test_too_few_rows_give_no_error_rather_than_a_wrong_one():
    estimate = long_run.mean_with_error([1.0, 2.0, 6.0])
    assert (estimate.mean, estimate.error, estimate.degrees_of_freedom) == (3.0, None, None)


@pytest.mark.parametrize("bad", [[1.0], [[1.0, 2.0]], [1.0, math.nan, 2.0]])
def test_series_that_cannot_be_used_are_refused(bad):
    with pytest.raises(ValueError, match="series: expected"):
        long_run.ewc(bad)


def test_bounds_of_terms_and_lags_are_checked():
    with pytest.raises(ValueError, match="n_terms: expected 1 to 2"):
        long_run.ewc([1.0, 2.0, 3.0], n_terms=3)
    with pytest.raises(ValueError, match="n_lags: expected 0 to 2"):
        long_run.newey_west([1.0, 2.0, 3.0], n_lags=3)
