"""The one-second set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import talib

from tests.trainables.features.market_fixture import make_market
from trainables.data.market import Market
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(sessions=1, per_session=7200, bar_seconds=1)


@pytest.fixture(scope="module")
def found(market: Market) -> dict[str, np.ndarray]:
    return columns(market)


def columns(market: Market, schema: str = "mes") -> dict[str, np.ndarray]:
    features, names = compute(schema, market, SETTINGS)
    return dict(zip(names, features.T.astype(np.float64), strict=True))


def check(found: np.ndarray, expected: object) -> None:
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-4, atol=1e-7)


@pytest.mark.requirement("FEAT-MES-1")
@pytest.mark.requirement("FEAT-MES-2")
@pytest.mark.requirement("FEAT-MES-3")
def test_returns_equal_pandas(market: Market, found: dict[str, np.ndarray]) -> None:
    close = pd.Series(market.close)
    for n in (1, 5, 10, 30, 60):
        check(found[f"return_{n}s"], close.pct_change(n))
        check(found[f"log_return_{n}s"], np.log1p(found[f"return_{n}s"]))
    for n in (1, 5, 15):
        check(found[f"momentum_{n}m"], np.log(close).diff().rolling(60 * n).sum())


@pytest.mark.requirement("FEAT-MES-4")
@pytest.mark.requirement("FEAT-MES-5")
@pytest.mark.requirement("FEAT-MES-7")
def test_windows_equal_pandas(market: Market, found: dict[str, np.ndarray]) -> None:
    returns = np.log(pd.Series(market.close)).diff()
    high, low, volume = pd.Series(market.high), pd.Series(market.low), pd.Series(market.volume)
    for n in (30, 60, 300):
        check(found[f"volatility_{n}s"], returns.rolling(n).std(ddof=0))
    for n in (1, 30, 60, 300):
        check(found[f"range_{n}s"], (high.rolling(n).max() - low.rolling(n).min()) / market.close)
    check(found["volume_delta"], volume / volume.rolling(60).mean() - 1)
    constant = columns(replace(market, volume=np.full(len(market), 5.0)))["volume_delta"]
    assert (constant[59:] == 0).all()


@pytest.mark.requirement("FEAT-MES-6")
def test_parts_of_a_bar_make_up_its_range(market: Market, found: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(found["upper_wick"] + found["lower_wick"] + found["body"], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(found["direction"], np.sign(market.close - market.open))
    flat = columns(make_market(sessions=1, per_session=10, bar_seconds=1, flat=True))
    assert all((flat[name] == 0).all() for name in ("upper_wick", "lower_wick", "body", "direction"))


@pytest.mark.requirement("FEAT-MES-8")
def test_indicators_equal_talib(market: Market, found: dict[str, np.ndarray]) -> None:
    m = market
    for n in (9, 21, 50, 200):
        check(found[f"ema_dev_{n}"], 1 - talib.EMA(m.close, n) / m.close)
    upper, middle, lower = talib.BBANDS(m.close, 20, 2, 2)
    line = talib.EMA(m.close, 12) - talib.EMA(m.close, 26)
    typical = (m.high + m.low + m.close) / 3
    check(found["rsi"], talib.RSI(m.close, 14))
    check(found["macd_line"], line / m.close)
    check(found["macd_signal"], talib.EMA(line, 9) / m.close)
    check(found["macd_histogram"], (line - talib.EMA(line, 9)) / m.close)
    check(found["bb_position"], (m.close - lower) / (upper - lower))
    check(found["bb_bandwidth"], (upper - lower) / middle)
    check(found["atr_norm"], talib.ATR(m.high, m.low, m.close, 14) / m.close)
    check(found["vwap_dev"], m.close / (np.cumsum(typical * m.volume) / np.cumsum(m.volume)) - 1)


@pytest.mark.requirement("FEAT-MES-9")
@pytest.mark.requirement("DATA-8")
def test_clock_of_a_regular_day() -> None:
    minute_bars = make_market(sessions=1, per_session=390)
    market = replace(minute_bars, known_time=minute_bars.event_time + 1_000_000_000)
    found = columns(market)
    assert (found["open_sin"][0], found["open_cos"][0]) == (0.0, 1.0)
    assert found["open_cos"][195] == pytest.approx(-1.0)
    assert (found["minutes_to_close"][0], found["minutes_to_close"][389]) == (390.0, 1.0)
    assert found["tuesday"].all()
    assert not found["monday"].any()
    cyclical = columns(market, "mes_cyclical")
    np.testing.assert_allclose(cyclical["weekday_sin"], np.sin(2 * np.pi / 5), rtol=1e-6)
    np.testing.assert_allclose(cyclical["weekday_cos"], np.cos(2 * np.pi / 5), rtol=1e-6)


@pytest.mark.requirement("FEAT-MES-9")
def test_a_half_day_closes_at_one() -> None:
    market = make_market(sessions=1, per_session=10, bar_seconds=1, start="2024-11-29T14:30")
    assert columns(market)["minutes_to_close"][0] == 210.0


@pytest.mark.requirement("FEAT-MES-10")
@pytest.mark.requirement("DATA-12")
@pytest.mark.parametrize("minutes", [1, 5])
def test_higher_bars_are_seen_from_their_end_on(market: Market, found: dict[str, np.ndarray], minutes: int) -> None:
    n = 60 * minutes
    close = market.close.reshape(-1, n)[:, -1]
    trend = (talib.EMA(close, 9) - talib.EMA(close, 21)) / close
    momentum = pd.Series(close).pct_change(5).to_numpy()
    for name, higher in (("trend", trend), ("higher_momentum", momentum)):
        seconds = np.arange(1, len(market) + 1)
        complete = seconds // n - 1
        expected = np.where(complete >= 0, higher[np.maximum(complete, 0)], np.nan)
        check(found[f"{name}_{minutes}min"], expected)


@pytest.mark.requirement("DATA-12")
def test_a_minute_whose_last_second_is_missing_is_complete_at_the_next_bar(market: Market) -> None:
    kept = np.arange(len(market)) != 21 * 60 - 1
    arrays = {f: getattr(market, f)[kept] for f in Market.__slots__ if isinstance(getattr(market, f), np.ndarray)}
    trend = columns(replace(market, **arrays))["trend_1min"]
    assert np.flatnonzero(np.isfinite(trend))[0] == 21 * 60 - 1


def test_bars_that_are_not_of_one_second_are_refused() -> None:
    with pytest.raises(ValueError, match="expected bars of 1 s, found 60 s"):
        columns(make_market(sessions=1, per_session=10))
