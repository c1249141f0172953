import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from trainables.trading.black_scholes import greeks, price

SPOT, STRIKE, YEARS, VOLATILITY, RATE = 472.5, 460.0, 30 / 365, 0.21, 0.04


def expected_payoff(spot, strike, years, volatility, rate, sign):
    """Price as the discounted mean payoff over the lognormal law, by quadrature: nobody's closed formula."""
    deviation, drift = volatility * np.sqrt(years), (rate - 0.5 * volatility**2) * years
    kink = (np.log(strike / spot) - drift) / deviation
    low, high = (kink, 12) if sign > 0 else (-12, kink)
    value, _ = quad(
        lambda z: sign * (spot * np.exp(drift + deviation * z) - strike) * norm.pdf(z), low, high, epsabs=1e-12
    )
    return np.exp(-rate * years) * value


@pytest.mark.requirement("DATA-18")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("strike", "years", "volatility"), [(460.0, 30 / 365, 0.21), (520.0, 2.0, 0.4), (471.0, 1 / 365, 0.1)]
)
def test_price_is_the_discounted_mean_payoff(sign, strike, years, volatility):
    ours = price(SPOT, strike, years, volatility, RATE, sign)
    assert ours == pytest.approx(expected_payoff(SPOT, strike, years, volatility, RATE, sign), abs=1e-8)


@pytest.mark.requirement("DATA-18")
def test_put_call_parity():
    strikes = np.linspace(300, 700, 9)
    call, put = (price(SPOT, strikes, YEARS, VOLATILITY, RATE, sign) for sign in (1, -1))
    np.testing.assert_allclose(call - put, SPOT - strikes * np.exp(-RATE * YEARS), atol=1e-10)


@pytest.mark.requirement("DATA-18")
@pytest.mark.parametrize("sign", [1, -1])
def test_greeks_are_the_derivatives_of_the_price(sign):
    g = greeks(SPOT, STRIKE, YEARS, VOLATILITY, RATE, sign)

    def at(spot=SPOT, years=YEARS, volatility=VOLATILITY):
        return float(price(spot, STRIKE, years, volatility, RATE, sign))

    h = 1e-2
    assert g.delta == pytest.approx((at(SPOT + h) - at(SPOT - h)) / (2 * h), rel=1e-6)
    assert g.gamma == pytest.approx((at(SPOT + h) - 2 * at() + at(SPOT - h)) / h**2, rel=1e-5)
    assert g.vega == pytest.approx(
        (at(volatility=VOLATILITY + 1e-5) - at(volatility=VOLATILITY - 1e-5)) / 2e-5, rel=1e-6
    )
    assert g.theta == pytest.approx(-(at(years=YEARS + 1e-6) - at(years=YEARS - 1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.requirement("DATA-18")
def test_identities_between_greeks_without_interest():
    spot = np.linspace(300, 700, 41)
    g = greeks(spot, STRIKE, YEARS, VOLATILITY, 0.0, -1)
    np.testing.assert_allclose(g.vega, g.gamma * spot**2 * VOLATILITY * YEARS, rtol=1e-10)
    np.testing.assert_allclose(g.theta, -0.5 * VOLATILITY**2 * spot**2 * g.gamma, rtol=1e-10)


@pytest.mark.requirement("DATA-18")
def test_gammas_of_the_documented_sample():
    """DATA-17: five puts, strikes 423 to 427; DATA-18 infers S = 472.5, r = 0.05, T = 2/365, sigma = 0.15."""
    documented = np.array([1.50e-23, 1.25e-22, 9.98e-22, 7.54e-21, 5.42e-20])
    g = greeks(472.5, np.arange(423.0, 428.0), 2 / 365, 0.15, 0.05, -1)
    np.testing.assert_allclose(g.gamma, documented, rtol=0.08)


def test_an_expired_option_is_worth_its_payoff_and_has_no_greeks():
    assert price(105.0, 100.0, 0.0, 0.2, 0.05, 1) == 5.0
    assert price(100.0, 100.0, 0.0, 0.2, 0.05, -1) == 0.0
    assert price(95.0, 100.0, -0.1, 0.2, 0.05, -1) == 5.0
    assert np.isnan(greeks(105.0, 100.0, 0.0, 0.2, 0.05, 1).gamma)


def test_a_missing_volatility_gives_a_missing_price():
    assert np.isnan(price(np.array([100.0]), 100.0, 0.1, np.nan, 0.0, 1)).all()
