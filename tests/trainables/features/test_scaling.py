"""The scaling document's sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import talib

from tests.trainables.features.market_fixture import SECOND, make_market
from trainables.data.market import Market
from trainables.features.registry import compute
from trainables.features.schemas import SCHEMAS
from trainables.features.sessions import value_areas
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()
RAW = FeatureSettings(levels_mode="raw")
PER = 90


@pytest.fixture(scope="module")
def minutes() -> Market:
    return make_market(sessions=8, per_session=PER)


@pytest.fixture(scope="module")
def daily() -> Market:
    return make_market(sessions=400, per_session=1, bar_seconds=86_400)


def columns(market: Market, settings: FeatureSettings = SETTINGS) -> dict[str, np.ndarray]:
    features, names = compute("scaling30", market, settings)
    return dict(zip(names, features.T.astype(np.float64), strict=True))


@pytest.mark.requirement("FEAT-SC-1")
@pytest.mark.requirement("FEAT-SC-2")
@pytest.mark.requirement("FEAT-SC-4")
def test_sets_grow_by_prefix_and_have_the_documented_sizes() -> None:
    assert [name.split(".")[1] for name in SCHEMAS["scaling10"]] == [
        *("close_change_pct", "vwap", "price_range", "price_mom_3d", "price_mom_5d"),
        *("close_to_vwap_15", "close_to_vwap_60", "volume_change_1", "vwap_15", "vwap_60"),
    ]
    sizes = {name: len(SCHEMAS[name]) for name in ("scaling10", "scaling20", "scaling26", "scaling30")}
    assert sizes == {"scaling10": 10, "scaling20": 20, "scaling26": 26, "scaling30": 42}
    for shorter in ("scaling10", "scaling20", "scaling26"):
        assert SCHEMAS["scaling30"][: sizes[shorter]] == SCHEMAS[shorter]


@pytest.mark.requirement("FEAT-SC-1")
def test_baseline_equals_pandas_per_session(minutes: Market) -> None:
    m, found, raw = minutes, columns(minutes), columns(minutes, RAW)
    frame = pd.DataFrame({"c": m.close, "v": m.volume, "tp": (m.high + m.low + m.close) / 3})
    frame["money"] = frame.tp * frame.v
    by_session = frame.groupby(m.session)
    np.testing.assert_allclose(found["close_change_pct"], by_session.c.pct_change(), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["volume_change_1"], by_session.v.pct_change(), rtol=1e-5)
    vwap = by_session.money.cumsum() / by_session.v.cumsum()
    np.testing.assert_allclose(raw["vwap"], vwap, rtol=1e-6)
    np.testing.assert_allclose(found["vwap"], vwap / m.close - 1, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(raw["price_range"], m.high - m.low, rtol=1e-5)
    np.testing.assert_allclose(found["price_range"], (m.high - m.low) / m.close, rtol=1e-5)
    for n in (15, 60):
        rolling = by_session[["money", "v"]].rolling(n).sum().reset_index(drop=True)
        average = rolling.money / rolling.v
        np.testing.assert_allclose(raw[f"vwap_{n}"], average, rtol=1e-6)
        np.testing.assert_allclose(found[f"close_to_vwap_{n}"], m.close / average - 1, rtol=1e-3, atol=1e-7)
    for n in (3, 5):
        np.testing.assert_allclose(found[f"price_mom_{n}d"], frame.c.pct_change(n * PER), rtol=1e-4, atol=1e-7)


@pytest.mark.requirement("FEAT-SC-1")
def test_momentum_of_days_takes_the_latest_close_before_the_same_time(minutes: Market) -> None:
    kept = np.arange(len(minutes)) != 10
    arrays = {f: getattr(minutes, f)[kept] for f in Market.__slots__ if isinstance(getattr(minutes, f), np.ndarray)}
    found = columns(replace(minutes, **arrays))["price_mom_3d"]
    at = 3 * PER + 10 - 1
    assert found[at] == pytest.approx(minutes.close[3 * PER + 10] / minutes.close[9] - 1, abs=1e-7)


@pytest.mark.requirement("FEAT-SC-2")
def test_phase_one_equals_talib(daily: Market) -> None:
    m, raw = daily, columns(daily, RAW)
    line = talib.EMA(m.close, 12) - talib.EMA(m.close, 26)
    upper, _, lower = talib.BBANDS(m.close, 20, 2, 2)
    k, d = talib.STOCHF(m.high, m.low, m.close, 14, 3, 0)
    expected = {
        "rsi_14": talib.RSI(m.close, 14),
        "macd_line": line,
        "macd_signal": talib.EMA(line, 9),
        "macd_histogram": line - talib.EMA(line, 9),
        "bb_upper": upper,
        "bb_lower": lower,
        "bb_position": (m.close - lower) / (upper - lower),
        "stoch_d": d,
        "atr_14": talib.ATR(m.high, m.low, m.close, 14),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(raw[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(raw["stoch_k"][15:], k[15:], rtol=1e-5)
    np.testing.assert_allclose(columns(m)["atr_14"], expected["atr_14"] / m.close, rtol=1e-5)


@pytest.mark.requirement("FEAT-SC-3")
def test_phase_two_equals_pandas_on_daily_bars(daily: Market) -> None:
    m, found = daily, columns(daily)
    close = pd.Series(m.close)
    returns = np.log(close).diff()
    deviation = returns.rolling(20).std(ddof=0)
    np.testing.assert_allclose(found["volatility_regime"], deviation / deviation.rolling(252).mean(), rtol=1e-4)
    correlation = returns.rolling(60).corr(np.log(pd.Series(m.iv)).diff())
    np.testing.assert_allclose(found["vix_correlation"], correlation, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["session_momentum"], m.close / m.open - 1, rtol=1e-4, atol=1e-7)
    days = pd.to_datetime(m.event_time).day_of_week
    effect = returns.groupby(days).transform(lambda x: x.rolling(52).mean().shift(1))
    np.testing.assert_allclose(found["day_of_week_effect"], effect, rtol=1e-4, atol=1e-9)
    typical = (m.high + m.low + m.close) / 3
    money, volume = pd.Series(typical * m.volume), pd.Series(m.volume)
    vwap = money.rolling(60).sum() / volume.rolling(60).sum()
    expected = (close - vwap) / talib.ATR(m.high, m.low, m.close, 14)
    np.testing.assert_allclose(found["volume_weighted_price"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.requirement("FEAT-SC-3")
def test_session_statistics_of_minute_bars_know_finished_sessions_only() -> None:
    market = make_market(sessions=80, per_session=10)
    found = columns(market, FeatureSettings(vix_correlation_n=20, weekday_n=3))
    last = pd.DataFrame({"c": np.log(market.close), "iv": np.log(market.iv)}).groupby(market.session).last().diff()
    correlation = last.c.rolling(20).corr(last.iv).shift(1)
    np.testing.assert_allclose(found["vix_correlation"], np.repeat(correlation, 10), rtol=1e-4, atol=1e-6)
    weekday = pd.to_datetime(market.event_time[::10]).day_of_week
    effect = last.c.groupby(weekday).transform(lambda x: x.rolling(3).mean().shift(1))
    np.testing.assert_allclose(found["day_of_week_effect"], np.repeat(effect, 10), rtol=1e-4, atol=1e-9)


@pytest.mark.requirement("FEAT-SC-3")
def test_session_momentum_starts_anew_with_each_clock_session() -> None:
    market = make_market(sessions=1, per_session=120, start="2024-01-02T13:30")
    found = columns(market)["session_momentum"]
    anchor = np.where(np.arange(120) < 60, market.open[0], market.open[60])
    np.testing.assert_allclose(found, market.close / anchor - 1, rtol=1e-4, atol=1e-7)


@pytest.mark.requirement("FEAT-SC-5")
@pytest.mark.requirement("FEAT-SC-3")
def test_value_area_of_a_known_profile() -> None:
    price = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    volume = np.array([1.0, 1.0, 2.0, 5.0, 10.0, 20.0, 12.0, 3.0, 2.0, 1.0, 1.0])
    # bins of width 1; POC bin [5, 6); area grows 20, +12 above, +10 below = 42 >= 0.7 x 58
    area = value_areas(price, volume, np.array([0]), np.array([11]), 10, 0.7)
    np.testing.assert_allclose(area, [[5.5, 7.0, 4.0]])
    flat = value_areas(np.full(3, 5.0), volume, np.array([0]), np.array([3]), 10, 0.7)
    np.testing.assert_array_equal(flat, [[5.0, 5.0, 5.0]])


@pytest.mark.requirement("FEAT-SC-5")
def test_profile_of_the_session_before_and_its_signal(minutes: Market) -> None:
    raw = columns(minutes, RAW)
    typical = (minutes.high + minutes.low + minutes.close) / 3
    volumes, edges = np.histogram(typical[:PER], bins=50, weights=minutes.volume[:PER])
    top = volumes.argmax()
    np.testing.assert_allclose(raw["profile_poc"][PER : 2 * PER], (edges[top] + edges[top + 1]) / 2, rtol=1e-6)
    assert np.isnan(raw["profile_poc"][:PER]).all()
    width = raw["profile_vah"] - raw["profile_val"]
    np.testing.assert_allclose(raw["profile_width"], width, rtol=1e-3)
    signal = (minutes.close - raw["profile_poc"]) / width
    np.testing.assert_allclose(raw["volume_profile_signal"], signal, rtol=1e-2, atol=1e-3)
    low, high = raw["profile_val"][PER] - 1e-3, raw["profile_vah"][PER] + 1e-3  # float32 columns
    inside = (typical[:PER] >= low) & (typical[:PER] < high)
    assert minutes.volume[:PER][inside].sum() >= 0.7 * minutes.volume[:PER].sum()


@pytest.mark.requirement("FEAT-SC-5")
def test_a_balanced_tape_has_no_imbalance() -> None:
    close = 100.0 + np.tile([0.0, 1.0], 60)
    market = make_market(sessions=1, per_session=120, close=close, volume=np.full(120, 7.0))
    assert (columns(market)["order_flow_imbalance"][20:] == 0).all()
    rising = make_market(sessions=1, per_session=120, close=100.0 + np.arange(120), volume=np.full(120, 7.0))
    assert (columns(rising)["order_flow_imbalance"][20:] == 1).all()


@pytest.mark.requirement("FEAT-SC-6")
def test_flags_at_times_of_a_week() -> None:
    times = {  # New York: Tuesday 2024-01-02, Wednesday, Friday 2024-01-05, Sunday evening for Monday
        "2024-01-02T18:00": "asia_session midweek",
        "2024-01-03T02:59": "asia_session midweek",
        "2024-01-03T03:00": "europe_session asia_europe_overlap midweek",
        "2024-01-03T09:29": "europe_session midweek",
        "2024-01-03T09:30": "new_york_session europe_new_york_overlap midweek",
        "2024-01-03T12:30": "new_york_session lunch_hour midweek",
        "2024-01-05T15:59": "new_york_session friday",
        "2024-01-07T18:30": "asia_session monday",
    }
    local = np.array(list(times), dtype="datetime64[ns]").astype(np.int64)
    market = make_market(sessions=1, per_session=len(times))
    found = columns(
        replace(market, event_time=local + 5 * 3600 * SECOND, known_time=local + 5 * 3600 * SECOND + SECOND)
    )
    flags = [row.split(".")[1] for row in SCHEMAS["scaling30"] if row.split(".")[1] in " ".join(times.values()).split()]
    for i, expected in enumerate(times.values()):
        assert {name for name in flags if found[name][i] == 1} == set(expected.split())


@pytest.mark.requirement("FEAT-SC-6")
def test_opening_and_closing_ranges(minutes: Market) -> None:
    found, m = columns(minutes), minutes
    opening = slice(2 * PER, 2 * PER + 30)
    top, bottom = m.high[opening].max(), m.low[opening].min()
    later = np.arange(2 * PER + 30, 3 * PER)
    np.testing.assert_allclose(
        found["opening_range_position"][later], (m.close[later] - bottom) / (top - bottom), rtol=1e-4, atol=1e-5
    )
    closing = slice(2 * PER - 30, 2 * PER)
    top, bottom = m.high[closing].max(), m.low[closing].min()
    np.testing.assert_allclose(
        found["closing_range_position"][later], (m.close[later] - bottom) / (top - bottom), rtol=1e-4, atol=1e-5
    )
