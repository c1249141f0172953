"""The 24 NQ features against golden bars, TA-Lib, and the rule that prices are relative."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import talib

from tests.trainables.features.market_fixture import SECOND, make_market
from trainables.data.market import Market
from trainables.features.nq import calendar_inputs
from trainables.features.registry import compute, groups
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()


@pytest.fixture(scope="module")
def day() -> Market:
    return make_market(sessions=2, per_session=390)


def columns(market: Market, settings: FeatureSettings = SETTINGS) -> dict[str, np.ndarray]:
    features, names = compute("nq24", market, settings)
    return dict(zip(names, features.T.astype(np.float64), strict=True))


def only(market: Market, rows: slice) -> Market:
    arrays = {f: getattr(market, f)[rows] for f in Market.__slots__ if isinstance(getattr(market, f), np.ndarray)}
    return replace(market, **arrays)


@pytest.mark.requirement("FEAT-NQ-0")
def test_groups_have_the_documented_sizes(day: Market) -> None:
    names = compute("nq24", day, SETTINGS)[1]
    assert len(set(names)) == 24
    kinds = ("price", "volume", "trend", "momentum", "volatility", "volume_weighted", "gap")
    assert [groups("nq24").count(kind) for kind in kinds] == [3, 3, 8, 5, 3, 1, 1]


@pytest.mark.requirement("FEAT-NQ-1")
@pytest.mark.requirement("FEAT-NQ-2")
def test_golden_bars() -> None:
    market = make_market(sessions=1, per_session=2)
    market = replace(
        market,
        open=np.array([100.0, 101.0]),
        high=np.array([102.0, 101.0]),
        low=np.array([98.0, 101.0]),
        close=np.array([101.0, 101.0]),
        volume=np.array([9.0, 0.0]),
    )
    found = columns(market)
    np.testing.assert_allclose(found["log_return"], [np.nan, 0.0])
    np.testing.assert_allclose(found["hl_range"], [4 / 101, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["close_location"], [0.75, 0.5])
    np.testing.assert_allclose(found["log_volume"], [np.log(10), 0.0], rtol=1e-6)
    np.testing.assert_allclose(found["volume_delta"], [np.nan, -np.log(10)], rtol=1e-6)
    np.testing.assert_allclose(found["dollar_volume"], [np.log1p(20 * 101 * 9), 0.0], rtol=1e-6)
    signed = columns(market, FeatureSettings(volume_delta="signed"))["volume_delta"]
    np.testing.assert_allclose(signed, [9 * 0.5, 0.0])


@pytest.mark.requirement("FEAT-NQ-3")
@pytest.mark.requirement("FEAT-NQ-4")
@pytest.mark.requirement("FEAT-NQ-5")
@pytest.mark.requirement("FEAT-NQ-6")
def test_indicators_equal_talib_inside_a_session(day: Market) -> None:
    found, m = {k: v[390:] for k, v in columns(day).items()}, only(day, slice(390, 780))
    line = talib.EMA(m.close, 12) - talib.EMA(m.close, 26)
    upper, middle, lower = talib.BBANDS(m.close, 20, 2, 2)
    hlc = m.high, m.low, m.close
    expected = {
        "macd_hist": (line - talib.EMA(line, 9)) / m.close,
        **{f"sma_dev_{k}": m.close / talib.SMA(m.close, n) - 1 for k, n in enumerate((5, 10, 20, 50, 100, 200), 1)},
        "rsi": (talib.RSI(m.close, 14) - 50) / 50,
        "cci": talib.CCI(*hlc, 20) / 100,
        "atr_norm": talib.ATR(*hlc, 14) / m.close,
        "bb_pctb": (m.close - lower) / (upper - lower),
        "bb_bandwidth": (upper - lower) / middle,
        "mfi": talib.MFI(*hlc, m.volume, 14) / 100,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-7, err_msg=name)
    for name, values in (("plus_di", talib.PLUS_DI(*hlc, 14)), ("minus_di", talib.MINUS_DI(*hlc, 14))):
        np.testing.assert_allclose(found[name][-50:], values[-50:] / 100, rtol=1e-5)
    np.testing.assert_allclose(found["adx"][-50:], talib.ADX(*hlc, 14)[-50:] / 100, rtol=1e-5)
    for name, low, high in (("rsi", -1, 1), ("plus_di", 0, 1), ("minus_di", 0, 1), ("adx", 0, 1), ("mfi", 0, 1)):
        assert (found[name][30:] >= low).all(), name
        assert (found[name][30:] <= high).all(), name


@pytest.mark.requirement("FEAT-NQ-3")
@pytest.mark.requirement("IND-11")
@pytest.mark.requirement("DATA-8")
@pytest.mark.parametrize("start", ["2024-01-02T13:30", "2024-07-01T12:30"])
def test_vwap_restarts_at_half_past_nine_in_new_york(start: str) -> None:
    market = make_market(sessions=2, per_session=180, start=start)
    typical = (market.high + market.low + market.close) / 3
    deviation = columns(market)["vwap_dev"]
    opening = 60
    assert deviation[opening] == pytest.approx(market.close[opening] / typical[opening] - 1, abs=1e-7)
    anchors = np.repeat([0, opening, 180 + opening], [opening, 180, 120])
    frame = pd.DataFrame({"money": typical * market.volume, "volume": market.volume}).groupby(anchors).cumsum()
    expected = market.close / (frame["money"] / frame["volume"]) - 1
    np.testing.assert_allclose(deviation, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.requirement("FEAT-NQ-7")
def test_gap_is_the_log_of_minutes_and_never_negative() -> None:
    steps = np.array([60, 120, 3600, 65 * 60, 1])
    market = make_market(sessions=1, per_session=6)
    event = market.event_time[0] + np.append(0, np.cumsum(steps)) * SECOND
    found = columns(replace(market, event_time=event, known_time=event + 60 * SECOND))["gap"]
    np.testing.assert_allclose(found, [0, 0, 0.6931, 4.0943, 4.1744, 0], atol=5e-5)


@pytest.mark.requirement("FEAT-NQ-8")
def test_calendar_positions_in_new_york() -> None:
    times = np.array(
        ["2024-01-31T17:00", "2024-02-01T17:00", "2024-02-29T05:00", "2023-12-31T16:59", "2024-12-31T17:00"]
    )
    ns = times.astype("datetime64[ns]").astype(np.int64)
    positions, phases = calendar_inputs(ns)
    np.testing.assert_array_equal(positions[:, 0], [720, 720, 0, 719, 720])
    np.testing.assert_array_equal(positions[:, 1], [2, 3, 3, 6, 1])
    np.testing.assert_array_equal(positions[:, 2], [30, 0, 28, 30, 30])
    np.testing.assert_array_equal(positions[:, 3], [30, 31, 59, 364, 365])
    assert (phases[1, 2] - phases[0, 2]) % (2 * np.pi) == pytest.approx(2 * np.pi / 31)
    assert (phases >= 0).all()
    assert (phases < 2 * np.pi).all()


@pytest.mark.requirement("FEAT-NQ-9")
def test_tripled_prices_change_the_dollar_volume_only(day: Market) -> None:
    tripled = replace(day, **{name: 3.0 * getattr(day, name) for name in ("open", "high", "low", "close")})
    once, thrice = columns(day), columns(tripled)
    for name, values in once.items():
        shift = np.log(3) if name == "dollar_volume" else 0.0
        np.testing.assert_allclose(thrice[name] - shift, values, rtol=1e-4, atol=2e-6, err_msg=name)
