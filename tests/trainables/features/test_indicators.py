"""The indicator kit against TA-Lib, SciPy, pandas and hand-made vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import talib
from scipy.signal import lfilter

from trainables.features import indicators as kit
from trainables.features import rolling

N = 400
ONE_RUN = np.zeros(N, dtype=np.int64)


@pytest.fixture(scope="module")
def walk() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(generator.normal(0, 1e-2, N)))
    high = close * (1 + np.abs(generator.normal(0, 5e-3, N)))
    low = close * (1 - np.abs(generator.normal(0, 5e-3, N)))
    return {"high": high, "low": low, "close": close, "volume": generator.integers(1, 1000, N).astype(float)}


def run(*values: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array(values, dtype=float), np.zeros(len(values), dtype=np.int64)


@pytest.mark.requirement("IND-1")
@pytest.mark.parametrize(("n", "weight"), [(5, 2 / 6), (14, 1 / 14)])
def test_recursive_averages_are_a_linear_filter_after_their_seed(
    walk: dict[str, np.ndarray], n: int, weight: float
) -> None:
    x = walk["close"]
    seed = x[:n].mean()
    filtered, _ = lfilter([weight], [1, weight - 1], x[n:], zi=[(1 - weight) * seed])
    found = rolling.recursive_average(x, ONE_RUN, n, weight)
    assert np.isnan(found[: n - 1]).all()
    np.testing.assert_allclose(found[n - 1 :], np.append(seed, filtered), rtol=1e-12)


@pytest.mark.requirement("IND-1")
def test_exponential_average_of_an_impulse_decays_geometrically() -> None:
    impulse = np.zeros(20)
    impulse[8] = 1.0
    found = kit.exponential_average(impulse, np.zeros(20, dtype=np.int64), 4)
    np.testing.assert_allclose(found[8:], 0.4 * 0.6 ** np.arange(12), rtol=1e-12)


@pytest.mark.requirement("IND-1")
def test_simple_average_equals_pandas_and_wilder_equals_its_recursion(walk: dict[str, np.ndarray]) -> None:
    x = walk["close"]
    np.testing.assert_allclose(kit.simple_average(x, ONE_RUN, 20), pd.Series(x).rolling(20).mean(), rtol=1e-12)
    np.testing.assert_allclose(
        kit.wilder_average(x, ONE_RUN, 14), rolling.recursive_average(x, ONE_RUN, 14, 1 / 14), rtol=1e-14
    )


@pytest.mark.requirement("IND-2")
def test_rsi_equals_talib_but_on_flat_prices(walk: dict[str, np.ndarray]) -> None:
    close = walk["close"]
    np.testing.assert_allclose(kit.relative_strength(close, ONE_RUN, 14), talib.RSI(close, 14), rtol=1e-10)
    assert kit.relative_strength(np.arange(1.0, N + 1), ONE_RUN, 14)[-1] == 100.0
    flat = np.full(N, 470.13)
    assert kit.relative_strength(flat, ONE_RUN, 14)[-1] == 50.0
    assert talib.RSI(flat, 14)[-1] == 0.0, "the documented difference has gone: use TA-Lib"


@pytest.mark.requirement("IND-3")
def test_atr_of_a_constant_range_is_that_range_and_its_seed_is_the_mean(walk: dict[str, np.ndarray]) -> None:
    close = np.full(N, 50.0)
    atr = kit.average_true_range(close + 0.7, close - 0.3, close, ONE_RUN, 14)
    np.testing.assert_allclose(atr[14:], 1.0, rtol=1e-12)
    high, low, before = walk["high"][1:], walk["low"][1:], walk["close"][:-1]
    ranges = np.append(np.nan, np.maximum.reduce([high - low, np.abs(high - before), np.abs(low - before)]))
    args = walk["high"], walk["low"], walk["close"], ONE_RUN
    np.testing.assert_allclose(
        kit.average_true_range(*args, 14), rolling.recursive_average(ranges, ONE_RUN, 14, 1 / 14), rtol=1e-12
    )


@pytest.mark.requirement("IND-4")
def test_directional_index_of_a_pure_up_trend() -> None:
    close = 100.0 + np.arange(N)
    plus, minus, adx = kit.directional_index(close + 0.5, close - 0.5, close, ONE_RUN, 14)
    assert plus[-1] > 0
    assert minus[-1] == 0
    assert adx[-1] == pytest.approx(100.0)


@pytest.mark.requirement("IND-4")
def test_directional_index_meets_talib_once_the_different_seeds_are_forgotten(walk: dict[str, np.ndarray]) -> None:
    args = walk["high"], walk["low"], walk["close"]
    plus, minus, adx = kit.directional_index(*args, ONE_RUN, 14)
    assert (np.isnan(plus).sum(), np.isnan(adx).sum()) == (14, 27)
    for ours, theirs in (
        (plus, talib.PLUS_DI(*args, 14)),
        (minus, talib.MINUS_DI(*args, 14)),
        (adx, talib.ADX(*args, 14)),
    ):
        assert abs(ours[30] - theirs[30]) > 1e-6, "the documented difference has gone: use TA-Lib"
        np.testing.assert_allclose(ours[-20:], theirs[-20:], rtol=1e-8)


@pytest.mark.requirement("IND-5")
def test_macd_equals_three_averages_of_talib_and_scales_with_price(walk: dict[str, np.ndarray]) -> None:
    close = walk["close"]
    line, signal, histogram = kit.moving_average_convergence(close, ONE_RUN, 12, 26, 9)
    expected = talib.EMA(close, 12) - talib.EMA(close, 26)
    np.testing.assert_allclose(line, expected, rtol=1e-12, equal_nan=True)
    np.testing.assert_allclose(signal, talib.EMA(expected, 9), rtol=1e-12)
    assert np.isnan(signal).sum() == 33
    for part, tripled in zip(
        (line, signal, histogram), kit.moving_average_convergence(3 * close, ONE_RUN, 12, 26, 9), strict=True
    ):
        np.testing.assert_allclose(tripled, 3 * part, rtol=1e-8, atol=1e-12)
    flat = kit.moving_average_convergence(np.full(N, 470.13), ONE_RUN, 12, 26, 9)
    np.testing.assert_allclose(np.array(flat)[:, 40:], 0.0, atol=1e-10)
    theirs = talib.MACD(close, 12, 26, 9)[0]
    assert abs(theirs[33] - line[33]) > 1e-6, "the documented difference has gone: use TA-Lib"
    np.testing.assert_allclose(theirs[-20:], line[-20:], rtol=1e-6, atol=1e-9)


@pytest.mark.requirement("IND-6")
def test_bollinger_of_the_first_twenty_numbers() -> None:
    close, first = run(*range(1, 21))
    lower, middle, upper = kit.bollinger(close, first, 20, 2.0)
    deviation = np.sqrt((20**2 - 1) / 12)
    np.testing.assert_allclose([lower[-1], middle[-1], upper[-1]], [10.5 - 2 * deviation, 10.5, 10.5 + 2 * deviation])


@pytest.mark.requirement("IND-6")
def test_bollinger_equals_talib_and_keeps_a_flat_price_exact(walk: dict[str, np.ndarray]) -> None:
    upper, middle, lower = talib.BBANDS(walk["close"], 20, 2, 2)
    ours = kit.bollinger(walk["close"], ONE_RUN, 20, 2.0)
    for found, expected in zip(ours, (lower, middle, upper), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    expected = pd.Series(walk["close"]).rolling(20).std(ddof=0)
    np.testing.assert_allclose(ours[2] - ours[1], 2 * expected, rtol=1e-8)
    lower, _, upper = kit.bollinger(np.full(N, 470.13), ONE_RUN, 20, 2.0)
    np.testing.assert_array_equal(upper[19:], lower[19:])
    large = 1e8 + np.tile([0.0, 0.1], N // 2)
    np.testing.assert_allclose(rolling.rolling_std(large, ONE_RUN, 20)[-1], 0.05, rtol=1e-6)


@pytest.mark.requirement("IND-7")
def test_stochastic_equals_talib_and_is_neutral_on_a_flat_range(walk: dict[str, np.ndarray]) -> None:
    args = walk["high"], walk["low"], walk["close"]
    k = kit.stochastic(*args, ONE_RUN, 14)
    d = kit.simple_average(k, ONE_RUN, 3)
    fast_k, fast_d = talib.STOCHF(*args, 14, 3, 0)
    np.testing.assert_allclose(k[15:], fast_k[15:], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(d, fast_d, rtol=1e-9, atol=1e-9)
    rising = np.arange(1.0, N + 1)
    assert kit.stochastic(rising, rising - 1, rising, ONE_RUN, 14)[-1] == 100.0
    flat = np.full(N, 470.13)
    assert kit.stochastic(flat, flat, flat, ONE_RUN, 14)[-1] == 50.0


@pytest.mark.requirement("IND-8")
def test_cci_golden_vector_and_pandas(walk: dict[str, np.ndarray]) -> None:
    price, first = run(*range(1, 21))
    # mean 10.5, mean absolute deviation 5, (20 - 10.5)/(0.015 * 5)
    assert kit.commodity_channel(price, price, price, first, 20, 0.015)[-1] == pytest.approx(9.5 / 0.075)
    args = walk["high"], walk["low"], walk["close"]
    typical = pd.Series(sum(args) / 3).rolling(20)
    deviation = typical.apply(lambda window: np.abs(window - window.mean()).mean(), raw=True)
    expected = (typical.apply(lambda window: window[-1], raw=True) - typical.mean()) / (0.02 * deviation)
    np.testing.assert_allclose(kit.commodity_channel(*args, ONE_RUN, 20, 0.02), expected, rtol=1e-8, atol=1e-8)
    flat = np.full(N, 0.1)
    assert (kit.commodity_channel(flat, flat, flat, ONE_RUN, 20, 0.015)[19:] == 0.0).all()


@pytest.mark.requirement("IND-9")
def test_mfi_equals_talib_and_has_no_unit(walk: dict[str, np.ndarray]) -> None:
    args = walk["high"], walk["low"], walk["close"]
    ours = kit.money_flow(*args, walk["volume"], ONE_RUN, 14)
    np.testing.assert_allclose(ours, talib.MFI(*args, walk["volume"], 14), rtol=1e-9)
    np.testing.assert_allclose(kit.money_flow(*args, walk["volume"] * 1e-6, ONE_RUN, 14), ours, rtol=1e-9)
    flat = np.full(N, 470.13)
    assert kit.money_flow(flat, flat, flat, walk["volume"], ONE_RUN, 14)[-1] == 50.0
    assert talib.MFI(flat, flat, flat, walk["volume"], 14)[-1] == 0.0, "the documented difference has gone: use TA-Lib"
    rising = np.arange(1.0, N + 1)
    assert kit.money_flow(rising, rising, rising, walk["volume"], ONE_RUN, 14)[-1] == pytest.approx(100.0)


@pytest.mark.requirement("IND-10")
def test_psar_flips_once_on_a_v_shaped_path() -> None:
    close = np.concatenate([np.arange(100.0, 60.0, -1), np.arange(60.0, 100.0)])
    mark = np.sign(close - kit.parabolic_stop(close + 0.2, close - 0.2, np.zeros(80, dtype=np.int64), 0.02, 0.2))[1:]
    assert (mark[0], mark[-1], (np.diff(mark) != 0).sum()) == (-1, 1, 1)


@pytest.mark.requirement("IND-11")
def test_vwap_starts_at_its_anchor_and_holds_without_volume() -> None:
    price, volume = np.array([10.0, 20.0, 7.0, 9.0, 11.0]), np.array([1.0, 3.0, 2.0, 0.0, 2.0])
    found = kit.anchored_vwap(price, volume, np.array([0, 0, 2, 2, 2]))
    np.testing.assert_allclose(found, [10.0, 17.5, 7.0, 7.0, 9.0], rtol=1e-14)
    empty = kit.anchored_vwap(price, np.zeros(5), np.array([0, 0, 2, 2, 2]))
    np.testing.assert_array_equal(empty, [10.0, 10.0, 7.0, 7.0, 7.0])


@pytest.mark.requirement("IND-11")
def test_rolling_vwap_equals_pandas(walk: dict[str, np.ndarray]) -> None:
    price, volume = pd.Series(walk["close"]), pd.Series(walk["volume"])
    expected = (price * volume).rolling(15).sum() / volume.rolling(15).sum()
    np.testing.assert_allclose(kit.rolling_vwap(walk["close"], walk["volume"], ONE_RUN, 15), expected, rtol=1e-10)


@pytest.mark.requirement("DATA-10")
@pytest.mark.parametrize(
    "function", [kit.simple_average, kit.exponential_average, kit.wilder_average, kit.relative_strength]
)
def test_no_average_looks_across_the_start_of_a_run(walk: dict[str, np.ndarray], function) -> None:  # type: ignore[no-untyped-def]
    cut = 150
    first = np.where(np.arange(N) >= cut, cut, 0)
    whole = function(walk["close"], first, 10)
    parts = [function(part, np.zeros(len(part), dtype=np.int64), 10) for part in np.split(walk["close"], [cut])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
