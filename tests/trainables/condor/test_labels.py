from dataclasses import replace
from datetime import date, time, timedelta
from itertools import product

import numpy as np
import pytest

from tests.trainables.data.markets import make_market
from trainables.condor.config import POLICY_RANGES
from trainables.condor.labels import LabelSettings, condor_labels, regime_of
from trainables.data.dataset import NO_LABEL
from trainables.data.zones import day_of, instant
from trainables.errors import DataError
from trainables.trading.black_scholes import SECONDS_PER_YEAR, price

SHORT = LabelSettings(
    offsets=(0.5, 1.0, 2.0), widths=(2.0, 5.0), dtes=(7.0, 14.0), forecast_sessions=(1, 3), regime_label_horizon=390
)


def random_walk(n, seed=0, volatility=0.012):
    return 150 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, volatility, n)))


def wandering_market(n=60, **changes):
    random = np.random.default_rng(7)
    return make_market(random_walk(n), iv=random.uniform(0.1, 0.4, n), iv_rank=random.uniform(0, 100, n), **changes)


def slow_policy(market, settings, row):
    """The labels of one row as DATA-23 words them, condor by condor, leg by leg, with the judged Black-Scholes."""
    spot, iv, half = market.close[row], market.iv[row], 0.5 * market.spread_ratio[row]
    found = []
    for dte in settings.dtes:
        expiry = instant(day_of(int(market.known_time[row])) + timedelta(days=int(dte)), time(16))
        path = np.flatnonzero((market.known_time <= expiry) & (np.arange(len(market)) > row))
        last_of_session = np.append(np.diff(market.session) != 0, True)
        path = [i for i in path if last_of_session[i] or i == path[-1]]
        move = spot * iv * np.sqrt(dte / 365)

        def value(strike, sign, i, expiry=expiry, end=path[-1]):
            years = 0.0 if i == end else (expiry - market.known_time[i]) / 1e9 / SECONDS_PER_YEAR
            return float(price(market.close[i], strike, years, market.iv[i], market.rate_ann, sign))

        for call_offset, put_offset, width in product(settings.offsets, settings.offsets, settings.widths):
            call, put = round(spot + call_offset * move), round(spot - put_offset * move)
            legs = [(call, 1, 1), (call + width, 1, -1), (put, -1, 1), (put - width, -1, -1)]
            credit = sum(side * value(k, sign, row) - half * value(k, sign, row) for k, sign, side in legs)
            profit = [credit - sum(side * value(k, sign, i) for k, sign, side in legs) for i in path]
            peak = np.maximum.accumulate([0.0, *profit])
            drawdown = min(max(peak[1:] - profit) / (width - credit), 1.0)
            roi = float(np.clip(profit[-1] / (width - credit), -1, 1))
            found.append((call_offset, put_offset, width, dte, float(profit[-1] > 0), roi, drawdown))
    candidates = np.array(found)
    return candidates, candidates[:, 5] - settings.drawdown_weight * candidates[:, 6]


@pytest.mark.requirement("DATA-23")
@pytest.mark.parametrize(("bars_per_session", "spread", "rate"), [(1, 0.0, 0.0), (1, 0.03, 0.04), (3, 0.02, 0.01)])
def test_policy_equals_the_rule_spelt_out_condor_by_condor(bars_per_session, spread, rate):
    market = wandering_market(20 * bars_per_session, bars_per_session=bars_per_session, spread=spread, rate=rate)
    soft, names, _ = condor_labels(market, SHORT)
    best, _, _ = condor_labels(market, SHORT.model_copy(update={"label_mode": "argmax_hindsight"}))
    assert names[:8] == tuple(name for name, _, _ in POLICY_RANGES)
    for row in (0, 2 * bars_per_session - 1, 5 * bars_per_session):
        candidates, utility = slow_policy(market, SHORT, row)
        weight = np.exp((utility - utility.max()) / SHORT.temperature)
        np.testing.assert_allclose(soft[row, :7], weight @ candidates / weight.sum(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(best[row, :7], candidates[np.argmax(utility)], rtol=1e-5, atol=1e-6)
        assert soft[row, 7] == float(soft[row, 5] > 0)


@pytest.mark.requirement("DATA-23")
def test_a_rally_is_best_met_by_far_calls_and_near_puts():
    """The price climbs by 1.5 expected moves: a call at one move loses, at two it does not; near puts pay most."""
    move = 150 * 0.2 * np.sqrt(7 / 365)
    close = np.full(40, 150.0)
    close[4:] = 150 + 1.5 * move
    settings = LabelSettings(
        label_mode="argmax_hindsight",
        offsets=(1.0, 2.0),
        widths=(5.0,),
        dtes=(7.0,),
        forecast_sessions=(1,),
        drawdown_weight=0.0,
    )
    targets, _, _ = condor_labels(make_market(close), settings)
    assert targets[2, :5].tolist() == [2.0, 1.0, 5.0, 7.0, 1.0]


@pytest.mark.requirement("DATA-23")
def test_all_policy_labels_lie_in_the_ranges_of_the_outputs():
    market = wandering_market(80)
    for mode in ("soft_hindsight", "argmax_hindsight"):
        targets, _, end = condor_labels(market, LabelSettings(label_mode=mode))
        rows = targets[end != NO_LABEL]
        assert len(rows) > 30
        for column, (_, low, high) in enumerate(POLICY_RANGES):
            assert (rows[:, column] >= low).all()
            assert (rows[:, column] <= high).all()


@pytest.mark.requirement("DATA-23")
def test_a_label_depends_on_nothing_after_its_label_end():
    market = wandering_market(60)
    targets, _, end = condor_labels(market, SHORT)
    row = 20
    later = market.known_time > end[row]
    assert later.any()
    changed = replace(market, close=np.where(later, 1.0, market.close), iv=np.where(later, 3.0, market.iv))
    again, _, _ = condor_labels(changed, SHORT)
    np.testing.assert_array_equal(again[: row + 1], targets[: row + 1])
    within = (market.known_time <= end[row]) & (np.arange(60) > row)
    other, _, _ = condor_labels(replace(market, close=np.where(within, 100.0, market.close)), SHORT)
    assert (other[row] != targets[row]).any()


@pytest.mark.requirement("DATA-23")
def test_a_row_without_all_of_its_future_has_no_label():
    market = wandering_market(60)
    targets, _, end = condor_labels(market, SHORT)
    has_label = end != NO_LABEL
    last = day_of(int(market.known_time[-1]))
    expected = np.array([day_of(int(t)) + timedelta(days=14) <= last for t in market.known_time])
    np.testing.assert_array_equal(has_label, expected)
    assert np.isnan(targets[~has_label]).all()
    assert np.isfinite(targets[has_label]).all()
    assert (end[has_label] - market.known_time[has_label] >= 13.9 * 86_400e9).all()


def test_a_hole_in_the_data_or_in_volatility_takes_the_labels_that_reach_over_it():
    whole = wandering_market(60)
    _, _, end = condor_labels(replace(whole, segment=(np.arange(60) >= 30).astype(np.int64)), SHORT)
    first_day = day_of(int(whole.known_time[30]))
    for row in range(30):
        reaches = day_of(int(whole.known_time[row])) + timedelta(days=14) >= first_day
        assert (end[row] == NO_LABEL) == reaches
    iv = whole.iv.copy()
    iv[25] = np.nan
    _, _, end = condor_labels(replace(whole, iv=iv), SHORT)
    assert end[25] == NO_LABEL
    assert end[24] == NO_LABEL
    assert end[26] != NO_LABEL


def test_label_columns_are_refused_as_there_are_none():
    with pytest.raises(DataError, match="found column"):
        condor_labels(wandering_market(30), LabelSettings(label_mode="column"))


@pytest.mark.requirement("DATA-22")
def test_regime_boundaries():
    rank, vix = LabelSettings(), LabelSettings(regime_source="vix")
    assert regime_of(np.array([0, 30, 30.01, 69.99, 70, 100]), rank).tolist() == [0, 0, 1, 1, 2, 2]
    assert regime_of(np.array([14.99, 15, 25, 25.01]), vix).tolist() == [0, 1, 1, 2]
    assert np.isnan(regime_of(np.array([np.nan]), rank)).all()


@pytest.mark.requirement("DATA-22")
@pytest.mark.parametrize(
    ("bars_per_session", "horizon", "bars_ahead"), [(1, 390, 1), (1, 1950, 5), (3, 390, 3), (3, 0, 0)]
)
def test_the_regime_is_that_of_a_session_ahead(bars_per_session, horizon, bars_ahead):
    market = wandering_market(40 * bars_per_session, bars_per_session=bars_per_session)
    targets, names, end = condor_labels(market, SHORT.model_copy(update={"regime_label_horizon": horizon}))
    rows = np.flatnonzero(end != NO_LABEL)
    found = targets[rows, names.index("regime")]
    np.testing.assert_array_equal(found, regime_of(market.iv_rank[rows + bars_ahead], SHORT))


@pytest.mark.requirement("DATA-24")
def test_a_constant_drift_gives_linear_forecast_targets():
    market = make_market(150 * np.exp(0.001 * np.arange(80)))
    settings = LabelSettings(dtes=(7.0,), trajectory_sessions=10)
    targets, names, end = condor_labels(market, settings)
    row = targets[0]
    found = [row[names.index(f"return_{h}")] for h in (1, 3, 5, 10)]
    np.testing.assert_allclose(found, [0.001, 0.003, 0.005, 0.010], rtol=1e-5)
    closes = [row[names.index(f"close_{j}")] for j in range(1, 11)]
    np.testing.assert_allclose(closes, 0.001 * np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(row[names.index("volatility_4")], 0.001 * np.sqrt(252), rtol=1e-5)
    assert end[0] == market.known_time[10]


@pytest.mark.requirement("DATA-24")
def test_trajectory_of_intraday_bars_spans_each_session():
    close = random_walk(40 * 6, volatility=0.004)
    market = make_market(close, bars_per_session=6, high=close * 1.001, low=close * 0.999)
    targets, names, _ = condor_labels(market, LabelSettings(dtes=(7.0,), trajectory_sessions=3))
    row, day = 8, slice(3 * 6, 4 * 6)
    columns = {name: targets[row, names.index(f"{name}_2")] for name in ("close", "high", "low", "volatility")}
    assert columns["close"] == pytest.approx(np.log(close[23] / close[row]), rel=1e-5)
    assert columns["high"] == pytest.approx(np.log(close[day].max() * 1.001 / close[row]), rel=1e-5)
    assert columns["low"] == pytest.approx(np.log(close[day].min() * 0.999 / close[row]), rel=1e-5)
    returns = np.log(close[18:24] / close[17:23])
    assert columns["volatility"] == pytest.approx(np.sqrt(252 * (returns**2).sum()), rel=1e-5)
    highs, closes, lows = (
        targets[:100, [names.index(f"{n}_{j}") for j in (1, 2, 3)]] for n in ("high", "close", "low")
    )
    assert (highs >= closes).all()
    assert (closes >= lows).all()


@pytest.mark.requirement("DATA-24")
def test_forecasts_reach_the_same_time_of_day_where_bars_are_missing():
    market = make_market(random_walk(30 * 6), bars_per_session=6)
    kept = np.delete(np.arange(180), [9, 10])  # two bars of the second session
    arrays = {n: getattr(market, n)[kept] for n in market.__slots__ if isinstance(getattr(market, n), np.ndarray)}
    targets, names, _ = condor_labels(replace(market, **arrays), SHORT)
    column = names.index("return_1")
    for row in (3, 4):
        expected = np.log(market.close[8] / market.close[row])
        assert targets[row, column] == pytest.approx(expected, rel=1e-4)
    assert targets[5, column] == pytest.approx(np.log(market.close[11] / market.close[5]), rel=1e-4)


def test_daylight_saving_does_not_move_an_expiry():
    market = make_market(np.full(80, 150.0), iv=0.2)
    _, _, end = condor_labels(market, SHORT)
    row = next(i for i, t in enumerate(market.known_time) if day_of(int(t)) == date(2024, 3, 1))
    assert end[row] == instant(date(2024, 3, 15), time(16))
