import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.measures import ic

finite = st.floats(-1e6, 1e6).map(lambda v: round(v, 3))


@pytest.mark.requirement("ANALYSIS-2")
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 1.5, 2.0, -3.0]), finite), min_size=5, max_size=40))
def test_correlations_agree_with_scipy_ties_included(rows):
    x, y = np.asarray(rows).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert ic.spearman(x, y) is None
        assert ic.pearson(x, y) is None
        return
    assert ic.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert ic.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)


@pytest.mark.requirement("ANALYSIS-2")
def test_perfect_flipped_and_shuffled_forecasts():
    y = np.random.default_rng(3).standard_normal(2000)
    shuffled = np.random.default_rng(4).permutation(y)
    for measure in (ic.spearman, ic.pearson):
        assert measure(y, y) == pytest.approx(1.0)
        assert measure(-y, y) == pytest.approx(-1.0)
        assert abs(measure(shuffled, y)) < 3 / math.sqrt(len(y))


def test_undefined_is_none():
    assert ic.spearman([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]) is None
    assert ic.spearman([1.0, 2.0], [1.0, 2.0]) is None
    assert ic.estimate([0.0] * 20, range(20)) is None
    assert ic.per_day([0.0] * 40, range(40), [0] * 40) is None


def test_rows_with_nan_are_left_out_and_infinity_is_refused():
    x, y = [1.0, 2.0, math.nan, 4.0, 3.0], [1.0, 3.0, 9.0, math.nan, 2.0]
    assert ic.spearman(x, y) == pytest.approx(stats.spearmanr([1, 2, 3], [1, 3, 2]).statistic)
    with pytest.raises(ValueError, match="infinity"):
        ic.spearman([1.0, math.inf, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        ic.pearson([1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize("scale", [1e-170, 1e150])
def test_very_small_and_large_numbers_do_not_underflow_or_overflow(scale):
    x = np.random.default_rng(0).standard_normal(50)
    assert ic.pearson(x * scale, -x * scale) == pytest.approx(-1.0)


@pytest.mark.parametrize(("method", "judge"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_influence_functions_agree_with_the_jackknife_of_scipy(method, judge, rho):
    generator = np.random.default_rng(5)
    x = generator.standard_normal(400)
    y = rho * x + math.sqrt(1 - rho**2) * generator.standard_normal(400)
    leave_one_out = [judge(np.delete(x, i), np.delete(y, i)).statistic for i in range(400)]
    jackknife = math.sqrt(399 / 400 * np.sum((leave_one_out - np.mean(leave_one_out)) ** 2))
    value = judge(x, y).statistic
    terms = ic._pearson_influence(x, y, value) if method == "pearson" else ic._spearman_influence(x, y)
    assert terms.std() / math.sqrt(400) == pytest.approx(jackknife, rel=0.02)


@pytest.mark.requirement("ANALYSIS-2")
def test_error_of_overlapping_horizons_is_that_of_the_independent_rows():
    generator = np.random.default_rng(8)
    n, horizon, inside, naive = 600, 10, 0, 0
    for _ in range(200):
        y = np.convolve(generator.standard_normal(n + horizon - 1), np.ones(horizon), "valid")
        x = np.convolve(generator.standard_normal(n + horizon - 1), np.ones(horizon), "valid")
        found = ic.estimate(x, y, horizon_rows=horizon)
        inside += abs(found.value / found.error) < stats.t.ppf(0.975, found.degrees_of_freedom)
        naive += stats.spearmanr(x, y).pvalue > 0.05
    assert naive / 200 < 0.7
    assert inside / 200 > 0.87
    assert found.n_independent == 60


def test_subsampling_uses_each_offset_once():
    x, y = np.arange(12.0), np.r_[np.arange(6.0), np.arange(6.0)[::-1]]
    expected = np.mean([stats.spearmanr(x[k::3], y[k::3]).statistic for k in range(3)])
    assert ic.subsampled(x, y, horizon_rows=3) == pytest.approx(expected)


@pytest.mark.requirement("ANALYSIS-2")
def test_per_day_is_the_mean_over_days_in_any_row_order():
    generator = np.random.default_rng(9)
    day = np.repeat(np.arange(12), 30)
    x = generator.standard_normal(360)
    y = 0.3 * x + generator.standard_normal(360)
    daily = np.array([stats.spearmanr(x[day == d], y[day == d]).statistic for d in range(12)])
    found = ic.per_day(x, y, day)
    assert found.n_days == 12
    assert found.mean == pytest.approx(daily.mean())
    assert found.ratio == pytest.approx(daily.mean() / daily.std(ddof=1))
    mixed = generator.permutation(360)
    assert ic.per_day(x[mixed], y[mixed], day[mixed]).mean == pytest.approx(found.mean)


def test_short_days_are_left_out():
    day = np.r_[np.zeros(25), np.ones(5)]
    x = np.arange(30.0)
    assert ic.per_day(x, x, day).n_days == 1
