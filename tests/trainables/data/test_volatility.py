import numpy as np
import pytest
from arch import arch_model
from arch.univariate import GARCH, ConstantMean

from trainables.data.volatility import Volatility, _expected_variance, _Parameters, garch_volatility, rank
from trainables.data.zones import NS_PER_DAY, instant


def garch_closes(n=900, seed=1):
    """A path of GARCH(1,1) in percent with a persistence of 0.95, made by arch."""
    model = ConstantMean(volatility=GARCH(1, 0, 1), rescale=False)
    model.distribution = type(model.distribution)(seed=np.random.default_rng(seed))
    returns = model.simulate([0.03, 0.05, 0.10, 0.85], n)["data"].to_numpy()
    return 100 * np.exp(np.append(0.0, np.cumsum(returns / 100)))


SETTINGS = {"initial_sessions": 500, "refit_sessions": 150, "horizon_sessions": 21}


def test_the_expected_variance_is_that_of_arch():
    """arch's own filter and analytic forecast, with the same parameters, judge the written-out recursion."""
    returns = 100 * np.diff(np.log(garch_closes()))
    fixed = arch_model(returns, rescale=False).fix([0.02, 0.06, 0.09, 0.86])
    forecast = fixed.forecast(horizon=21, start=400).variance.to_numpy().mean(axis=1)
    parameters = _Parameters(mean=0.02, omega=0.06, alpha=0.09, beta=0.86)
    variance = fixed.conditional_volatility[400] ** 2
    np.testing.assert_allclose(_expected_variance(returns[400:], variance, parameters, 21), forecast, rtol=1e-9)


def test_an_integrated_model_keeps_adding_its_constant():
    parameters = _Parameters(mean=0.0, omega=0.1, alpha=0.1, beta=0.9)
    found = _expected_variance(np.array([1.0]), 1.0, parameters, 3)
    assert found[0] == pytest.approx(0.1 + 1.0 + 0.1 * (0 + 1 + 2) / 3)


def test_volatility_is_unknown_before_the_first_fit_and_near_the_truth_after():
    volatility = garch_volatility(garch_closes(), **SETTINGS)
    assert np.isnan(volatility[:500]).all()
    assert np.isfinite(volatility[500:]).all()
    truth = np.sqrt(252 * 0.05 / (1 - 0.95)) / 100
    assert np.median(volatility[500:]) == pytest.approx(truth, rel=0.3)


def test_no_value_depends_on_a_later_close():
    close = garch_closes()
    known = garch_volatility(close, **SETTINGS)
    for row in (499, 500, 649, 650, 651, 800):
        changed = close.copy()
        changed[row + 1 :] = close[row] * np.exp(np.random.default_rng(0).normal(0, 0.05, len(close) - row - 1))
        np.testing.assert_array_equal(garch_volatility(changed, **SETTINGS)[: row + 1], known[: row + 1])


@pytest.mark.requirement("DATA-21")
def test_rank_of_a_ramp_is_100_and_of_a_constant_unknown():
    ramp = rank(np.arange(1.0, 300), 252)
    assert np.isnan(ramp[:251]).all()
    assert (ramp[251:] == 100).all()
    assert np.isnan(rank(np.full(300, 0.2), 252)).all()
    assert np.isnan(rank(np.arange(100.0), 252)).all()


@pytest.mark.requirement("DATA-21")
def test_rank_is_the_place_between_the_extremes_of_the_past():
    value = np.random.default_rng(0).uniform(0.1, 0.5, 40)
    found = rank(value, 10)
    for i in range(9, 40):
        past = value[i - 9 : i + 1]
        assert found[i] == pytest.approx(100 * (value[i] - past.min()) / (past.max() - past.min()))
    value[20] = np.nan
    assert np.isnan(rank(value, 10)[20:30]).all()


def test_the_newest_known_value_is_used_until_it_is_too_old():
    series = Volatility(known_time=np.array([10, 20]) * NS_PER_DAY, value=np.array([0.1, 0.2]))
    times = np.array([9.9, 10, 19.9, 20, 22, 22.01]) * NS_PER_DAY
    found = series.at(times.astype(np.int64), max_age_days=2.0)
    np.testing.assert_array_equal(found, [np.nan, 0.1, np.nan, 0.2, 0.2, np.nan])


def test_the_daily_value_is_the_last_of_each_new_york_day():
    from datetime import date, time

    stamps = [(2, time(10)), (2, time(16)), (2, time(20)), (3, time(9, 30))]
    known = np.array([instant(date(2024, 1, d), t) for d, t in stamps])
    daily = Volatility(known_time=known, value=np.array([0.1, 0.2, 0.3, 0.4])).daily()
    np.testing.assert_array_equal(daily.known_time, known[2:])
    np.testing.assert_array_equal(daily.value, [0.3, 0.4])
