"""The condor schemas: order, dynamics, curvature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import talib

from tests.trainables.features.market_fixture import make_market
from trainables.data.market import Market
from trainables.features import manifold
from trainables.features.registry import compute, fingerprint, groups, lookback
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()
BASE = (
    "open high low close volume strike delta gamma vega theta iv ivr spread_ratio rsi atr adx stoch_k "
    "bb_lower bb_upper sma psar psar_mark dist_to_spot call_put"
).split()
DYNAMIC = "log_return vol_ewma atr_pct kappa_proxy vol_energy rsi_dyn adx_adaptive psar_adaptive".split()
PRIMITIVES = (
    "adx_normalized bandwidth bb_position rsi_normalized stoch_normalized macd_signal vol_regime momentum_score "
    "beta1_regime curvature vwap_deviation sma_slope ema_cross range_ratio volume_surprise ivr_normalized iv_rv_spread "
    "spread_quality session_progress tda_persistence"
).split()


@pytest.fixture(scope="module")
def daily() -> Market:
    return make_market(sessions=300, per_session=1, bar_seconds=86_400)


def column(name: str, market: Market, settings: FeatureSettings = SETTINGS) -> np.ndarray:
    features, names = compute("condor52", market, settings)
    return features[:, names.index(name)].astype(np.float64)


@pytest.mark.requirement("FEAT-CB-24")
@pytest.mark.requirement("FEAT-CB-32")
@pytest.mark.requirement("FEAT-CB-52")
def test_index_map_is_frozen(daily: Market) -> None:
    for schema, expected in (
        ("condor24", BASE),
        ("condor32", BASE + DYNAMIC),
        ("condor52", BASE + DYNAMIC + PRIMITIVES),
    ):
        assert list(compute(schema, daily, SETTINGS)[1]) == expected
    assert len(BASE + DYNAMIC + PRIMITIVES) == 52
    sizes = {"spot": 5, "option": 5, "volatility": 3, "technical": 4, "bands": 5, "metadata": 2, "dynamic": 8}
    assert groups("condor52") == tuple(np.repeat([*sizes, "primitive"], [*sizes.values(), 20]))


@pytest.mark.requirement("FEAT-CB-24")
def test_base_columns_against_the_market_and_talib(daily: Market) -> None:
    features, names = compute("condor24", daily, SETTINGS)
    found = dict(zip(names, features.T.astype(np.float64), strict=True))
    m = daily
    upper, middle, lower = talib.BBANDS(m.close, 20, 2, 2)
    expected = {
        **{name: getattr(m, name) for name in "open high low close volume strike delta gamma vega theta".split()},
        "iv": m.option_iv,
        "ivr": m.iv_rank,
        "spread_ratio": m.spread_ratio,
        "rsi": talib.RSI(m.close, 14),
        "atr": talib.ATR(m.high, m.low, m.close, 14),
        "bb_lower": lower,
        "bb_upper": upper,
        "sma": middle,
        "psar": talib.SAR(m.high, m.low, 0.02, 0.2),
        "psar_mark": np.sign(m.close - talib.SAR(m.high, m.low, 0.02, 0.2)),
        "dist_to_spot": (m.strike - m.close) / m.close,
        "call_put": m.is_call,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(found["adx"][-5:], talib.ADX(m.high, m.low, m.close, 14)[-5:], rtol=1e-6)


@pytest.mark.requirement("FEAT-CB-32")
def test_constant_price_gives_zeros_and_a_neutral_rsi(daily: Market) -> None:
    flat = make_market(sessions=120, per_session=1, bar_seconds=86_400, flat=True)
    features, names = compute("condor32", flat, SETTINGS)
    for name in DYNAMIC:
        expected = 50.0 if name == "rsi_dyn" else 0.0
        assert features[-1, names.index(name)] == expected, name


@pytest.mark.requirement("FEAT-CB-32")
def test_ewma_volatility_by_hand() -> None:
    returns = np.append(np.nan, np.array([1.0, -2.0, 3.0, 0.5, -1.0]) * 1e-3)
    found = manifold.ewma_variance(returns, np.zeros(6, dtype=np.int64), 0.06, 3)
    v0 = (1 + 4 + 9) / 3 * 1e-6
    v1 = 0.06 * 0.25e-6 + 0.94 * v0
    np.testing.assert_allclose(found, [np.nan, np.nan, np.nan, v0, v1, 0.06 * 1e-6 + 0.94 * v1], rtol=1e-12)
    market = make_market(sessions=60, per_session=1, bar_seconds=86_400)
    deviation = column("vol_ewma", market)
    variance = column("vol_ewma", market, FeatureSettings(ewma_output="variance"))
    np.testing.assert_allclose(variance, deviation**2, rtol=1e-5)


def _random_returns(n: int = 50_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    returns = np.random.default_rng(11).normal(0, 1e-3, n)
    first = np.zeros(n, dtype=np.int64)
    return returns, np.sqrt(manifold.ewma_variance(returns, first, 0.06, 20)), first


@pytest.mark.requirement("FEAT-CB-33")
def test_curvature_proxy_is_nearly_raw_acceleration_noise() -> None:
    returns, volatility, first = _random_returns()
    kappa = manifold.curvature_proxy(returns, volatility, first, order="second_diff_of_return", span=64, epsilon=1e-12)
    noise = np.append(np.nan, 2 / 65 * np.diff(returns)) / volatility
    kept = np.arange(200, len(returns))
    assert kappa[kept].std() == pytest.approx(0.043, abs=0.002)
    assert np.corrcoef(kappa[kept], noise[kept])[0, 1] > 0.9998
    scaled = manifold.curvature_proxy(
        7 * returns, 7 * volatility, first, order="second_diff_of_return", span=64, epsilon=1e-12
    )
    np.testing.assert_allclose(scaled, kappa, rtol=1e-6, atol=1e-9)


@pytest.mark.requirement("FEAT-CB-33")
def test_other_orders_of_curvature_are_smoother() -> None:
    returns, volatility, first = _random_returns(5000)
    spreads = {
        order: np.nanstd(manifold.curvature_proxy(returns, volatility, first, order=order, span=64, epsilon=1e-12))
        for order in ("second_diff_of_return", "first_diff_of_return", "low_pass")
    }
    assert spreads["low_pass"] < 0.1 * spreads["first_diff_of_return"] < 0.1 * spreads["second_diff_of_return"]


@pytest.mark.requirement("FEAT-CB-34")
def test_energy_of_named_curvatures() -> None:
    assert manifold.energy(np.array([0.0]), 1000.0)[0] == 0.0
    assert manifold.energy(np.array([-0.043]), 1000.0)[0] == pytest.approx(np.log(44.0))


@pytest.mark.requirement("FEAT-CB-35")
def test_modulated_indicators_by_hand(daily: Market) -> None:
    def values(name: str) -> np.ndarray:
        return column(name, daily)

    np.testing.assert_allclose(values("rsi_dyn"), values("rsi") * (1 + 0.5 * values("kappa_proxy")), rtol=1e-5)
    np.testing.assert_allclose(values("adx_adaptive"), values("adx") / (1 + 0.1 * values("vol_energy")), rtol=1e-5)
    np.testing.assert_allclose(
        values("psar_adaptive"), (values("close") - values("psar")) / values("atr"), rtol=1e-3, atol=1e-4
    )
    by_energy = column("rsi_dyn", daily, FeatureSettings(rsi_dyn_driver="energy"))
    np.testing.assert_allclose(by_energy, values("rsi") * (1 + 0.5 * values("vol_energy")), rtol=1e-5)


@pytest.mark.requirement("FEAT-CB-36")
def test_menger_variants_scale_as_the_documents_say() -> None:
    returns, _, first = _random_returns(500)
    large = returns * 1e6
    once, twice = (manifold.menger_documented(c * large, first, 1e-12)[2:] for c in (1.0, 2.0))
    np.testing.assert_allclose(twice, once / 4, rtol=1e-9)
    straight = np.arange(10.0) * 3.0
    np.testing.assert_allclose(manifold.menger_true(straight, np.zeros(10, dtype=np.int64))[2:], 0.0, atol=1e-12)
    # three points of a circle of radius 1: (0, 0), (1, 1), (2, 0)
    bend = manifold.menger_true(np.array([0.0, 1.0, 0.0]), np.zeros(3, dtype=np.int64))
    assert bend[2] == pytest.approx(1.0)


@pytest.mark.requirement("FEAT-CB-36")
@pytest.mark.parametrize("curvature", ["menger_scaled", "menger_true"])
def test_scaled_menger_curvature_does_not_change_with_the_size_of_returns(curvature: str, daily: Market) -> None:
    settings = FeatureSettings(curvature=curvature)
    log_close = np.log(daily.close)
    larger = replace(daily, close=np.exp(log_close[0] + 3.0 * (log_close - log_close[0])))
    np.testing.assert_allclose(
        column("kappa_proxy", larger, settings), column("kappa_proxy", daily, settings), rtol=1e-5
    )


@pytest.mark.requirement("FEAT-CB-36")
def test_energy_of_menger_curvature_has_its_own_factor(daily: Market) -> None:
    settings = FeatureSettings(curvature="menger_documented")
    np.testing.assert_allclose(
        column("vol_energy", daily, settings), np.log1p(column("kappa_proxy", daily, settings)), rtol=1e-5
    )
    np.testing.assert_allclose(
        column("curvature", daily, settings), np.log1p(np.abs(column("kappa_proxy", daily))), rtol=1e-5
    )


@pytest.mark.requirement("FEAT-CB-24")
def test_look_back_of_the_schemas() -> None:
    assert lookback("condor24", SETTINGS, 390) == 28
    assert lookback("condor32", SETTINGS, 390) == 67
    assert lookback("condor52", SETTINGS, 390) == 391
    assert lookback("condor52", FeatureSettings(momentum_n=500), 1) == 501


def test_fingerprint_follows_settings_and_schema() -> None:
    first = fingerprint("condor52", SETTINGS)
    assert first == fingerprint("condor52", FeatureSettings())
    assert first != fingerprint("condor52", FeatureSettings(ewma_alpha=0.07))
    assert first != fingerprint("condor32", SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tda_window": 12, "tda_delay": 5}, "leave 4 or more embedded points"),
        ({"beta1_source": "tda"}, "needs tda on"),
        ({"indicators": {"macd_fast_n": 30}}, "macd_fast_n must be below macd_slow_n"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureSettings.model_validate(settings)
