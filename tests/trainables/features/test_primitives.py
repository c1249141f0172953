"""The rule language and the twenty primitives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib

from tests.trainables.features.market_fixture import make_market
from trainables.data.market import Market
from trainables.features import rules
from trainables.features.bars import Bars
from trainables.features.primitives import SHIPPED_RULES, Rule, active_rules, read_rules
from trainables.features.registry import compute, fingerprint
from trainables.features.schemas import PRIMITIVES
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()


@pytest.fixture(scope="module")
def daily() -> Market:
    return make_market(sessions=420, per_session=1, bar_seconds=86_400)


@pytest.fixture(scope="module")
def expected(daily: Market) -> dict[str, np.ndarray]:
    """The primitives once more, with TA-Lib and pandas."""
    m = daily
    close, volume = pd.Series(m.close), pd.Series(m.volume)
    atr = talib.ATR(m.high, m.low, m.close, 14)
    upper, middle, lower = talib.BBANDS(m.close, 20, 2, 2)
    line = talib.EMA(m.close, 12) - talib.EMA(m.close, 26)
    log_return = np.log(close).diff()
    deviation = log_return.rolling(20).std(ddof=0)
    realised = np.sqrt((log_return**2).rolling(21).mean() * 252)
    return {
        "adx_normalized": talib.ADX(m.high, m.low, m.close, 14) / 100,
        "bandwidth": (upper - lower) / middle,
        "bb_position": (m.close - lower) / (upper - lower),
        "rsi_normalized": talib.RSI(m.close, 14) / 100,
        "stoch_normalized": talib.STOCHF(m.high, m.low, m.close, 14, 1, 0)[0] / 100,
        "macd_signal": np.sign(line - talib.EMA(line, 9)),
        "vol_regime": (deviation / deviation.rolling(252).mean()).to_numpy(),
        "momentum_score": ((close - close.shift(14)) / atr).to_numpy(),
        "vwap_deviation": (m.close - (m.high + m.low + m.close) / 3) / atr,
        "sma_slope": (pd.Series(middle).diff(5) / atr).to_numpy(),
        "ema_cross": (talib.EMA(m.close, 9) - talib.EMA(m.close, 21)) / atr,
        "range_ratio": (m.high - m.low) / atr,
        "volume_surprise": np.log((volume + 1) / (volume.rolling(20).mean() + 1)).to_numpy(),
        "ivr_normalized": m.iv_rank / 100,
        "iv_rv_spread": (pd.Series(m.iv).shift(1) - realised).to_numpy(),
        "spread_quality": 1 / (1 + 10 * m.spread_ratio),
        "session_progress": np.zeros(len(m)),
        "tda_persistence": np.zeros(len(m)),
    }


NUMBER = {name: i + 1 for i, name in enumerate(PRIMITIVES)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.requirement(f"FEAT-CB-P{number}"))
        for name, number in NUMBER.items()
        if name not in ("beta1_regime", "curvature")
    ],
)
def test_primitive_equals_talib_and_pandas(name: str, daily: Market, expected: dict[str, np.ndarray]) -> None:
    features, names = compute("condor52", daily, SETTINGS)
    found = features[:, names.index(name)]
    assert np.isfinite(found[-50:]).all()
    np.testing.assert_allclose(found[-50:], expected[name][-50:], rtol=2e-4, atol=1e-6)


@pytest.mark.requirement("FEAT-CB-P9")
def test_persistence_of_random_walks_and_of_a_ramp() -> None:
    generator = np.random.default_rng(5)

    def last(log_close: np.ndarray) -> float:
        market = make_market(sessions=256, per_session=1, bar_seconds=86_400, close=np.exp(log_close))
        values = rules.evaluate(rules.parse("persistence", where="test"), Bars(market, SETTINGS))
        return float(values[-1])

    walks = np.array([last(np.cumsum(generator.normal(0, 1e-2, 256))) for _ in range(200)])
    assert walks.mean() == pytest.approx(0.49, abs=0.02)
    assert walks.std() == pytest.approx(0.054, abs=0.015)
    steps = 1e-3 * (1 + 0.5 * generator.normal(size=256))
    assert last(np.cumsum(steps)) > 0.9
    assert last(np.zeros(256)) == 0.5


@pytest.mark.requirement("FEAT-CB-P10")
def test_curvature_primitive_is_the_log_of_the_proxy(daily: Market) -> None:
    features, names = compute("condor52", daily, SETTINGS)
    kappa = features[:, names.index("kappa_proxy")]
    np.testing.assert_allclose(features[:, names.index("curvature")], np.log1p(np.abs(kappa)), rtol=1e-5)


@pytest.mark.requirement("FEAT-CB-P19")
def test_session_progress_counts_minutes() -> None:
    market = make_market(sessions=2, per_session=390)
    features, names = compute("condor52", market, SETTINGS)
    expected = np.tile(np.arange(390) / 390, 2)
    np.testing.assert_allclose(features[:, names.index("session_progress")], expected, rtol=1e-6)


@pytest.mark.requirement("FEAT-CB-P7")
def test_long_mean_of_volatility_runs_on_over_sessions(daily: Market) -> None:
    market = make_market(sessions=20, per_session=60)
    names = compute("condor52", market, SETTINGS)[1]
    found = compute("condor52", market, SETTINGS)[0][:, names.index("vol_regime")]
    per_session = pd.Series(np.log(market.close)).groupby(market.session)
    deviation = per_session.transform(lambda x: x.diff().rolling(20).std(ddof=0))
    kept = deviation.dropna()
    np.testing.assert_allclose(found[kept.index], kept / kept.rolling(252).mean(), rtol=1e-5)
    assert np.isnan(found[deviation.isna().to_numpy()]).all()
    by_sessions = FeatureSettings(vol_regime_n=2, vol_regime_unit="sessions")
    found = compute("condor52", market, by_sessions)[0][:, names.index("vol_regime")]
    np.testing.assert_allclose(found[kept.index], kept / kept.rolling(120).mean(), rtol=1e-5)


@pytest.mark.requirement("FEAT-CB-52")
def test_shipped_rules_are_the_twenty_in_order() -> None:
    assert tuple(read_rules(SHIPPED_RULES)) == PRIMITIVES
    assert [Rule.model_validate({"id": f"P{n:03d}", "formula": "1"}).id for n in (1, 20)] == ["P001", "P020"]


@pytest.mark.requirement("FEAT-CB-52")
def test_a_rule_file_replaces_a_rule_and_its_look_back(tmp_path: Path, daily: Market) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('range_ratio: {id: P014, formula: "mean(high - low, 30) / close"}\n')
    settings = FeatureSettings(rules_file=str(path))
    features, names = compute("condor52", daily, settings)
    expected = pd.Series(daily.high - daily.low).rolling(30).mean() / daily.close
    np.testing.assert_allclose(features[:, names.index("range_ratio")], expected, rtol=1e-6)
    assert rules.lookback(active_rules(str(path))["range_ratio"], settings, 1) == 30
    assert fingerprint("condor52", settings) != fingerprint("condor52", SETTINGS)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("rsy / 100", r"unknown name 'rsy'; nearest: rsi"),
        ("men(close, 3)", r"unknown function 'men'; nearest: mean"),
        ("lag(close, -1)", r"0 or more, found -1; anything below would read the future"),
        ("mean(close, 0)", r"1 or more, found 0"),
        ("lag(close, 1.5)", r"whole number of bars"),
        ("lag(close, close)", r"expected a number or one of momentum_n"),
        ("lag(close)", r"lag takes 2 arguments, found 1"),
        ("close[1]", r"found 'close\[1\]'"),
        ("__import__('os')", r"unknown function '__import__'"),
        ("close if open else low", r"expected numbers, names"),
        ("close +", r"expected a formula"),
        ("'text'", r"expected numbers, names"),
    ],
)
def test_formulas_outside_the_language_are_refused(formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules.parse(formula, where="rules.yaml: x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("range_rato: {id: P014, formula: close}", "unknown primitive 'range_rato'; nearest: range_ratio"),
        ("range_ratio: {id: 14, formula: close}", r"range_ratio.id"),
        ("range_ratio: {id: P014, formula: close, clip: 3}", r"range_ratio.clip"),
        ("- a\n- b", "should be an object"),
        ("range_ratio: {id: P014", "expected YAML"),
    ],
)
def test_broken_rule_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rules(path)
    with pytest.raises(ValueError, match="expected a rule file"):
        read_rules(tmp_path / "none.yaml")


def test_language_arithmetic_is_that_of_numpy(daily: Market) -> None:
    bars = Bars(replace(daily, volume=np.where(np.arange(len(daily)) % 3, daily.volume, 0.0)), SETTINGS)

    def value(formula: str) -> np.ndarray:
        return rules.evaluate(rules.parse(formula, where="test"), bars)

    c, v = bars.market.close, bars.market.volume
    np.testing.assert_allclose(value("-close ** 2 + 3 * open"), -(c**2) + 3 * bars.market.open, rtol=1e-14)
    np.testing.assert_array_equal(value("close / volume"), np.where(v > 0, c / np.where(v > 0, v, 1), 0.0))
    np.testing.assert_array_equal(value("ratio(close, volume, 7)")[v == 0], 7.0)
    np.testing.assert_array_equal(value("highest(close, 5)"), pd.Series(c).rolling(5).max())
    np.testing.assert_array_equal(value("lowest(close, 5)"), pd.Series(c).rolling(5).min())
    np.testing.assert_array_equal(value("lag(close, momentum_n)"), pd.Series(c).shift(14))
    np.testing.assert_allclose(value("std(close, 5)"), pd.Series(c).rolling(5).std(ddof=0), rtol=1e-8)
    np.testing.assert_array_equal(value("3"), np.full(len(c), 3.0))
    assert np.isnan(value("log(0 - close)")).all()
