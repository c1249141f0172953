"""Features of series beside the market: right values, off where absent, masked where late."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.trainables.features.market_fixture import SECOND, make_market, series_beside
from trainables.data.external import COLUMNS, ExternalSeries, known_at
from trainables.data.market import Market
from trainables.features.registry import REGISTRY, compute, rows_of
from trainables.features.schemas import SCHEMAS
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings()
N = SETTINGS.intermarket_n


@pytest.fixture(scope="module")
def market() -> Market:
    return make_market(sessions=3, per_session=200)


def columns(market: Market, series: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    features, names = compute("scaling50", market, SETTINGS, series)
    return dict(zip(names, features.T.astype(np.float64), strict=True))


@pytest.mark.requirement("FEAT-SC-4")
def test_phase_three_has_more_than_fifty_columns_with_its_series_and_those_of_phase_two_without(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    assert compute("scaling50", market, SETTINGS, series_beside(market))[0].shape[1] == len(SCHEMAS["scaling50"]) == 66
    assert len(SCHEMAS["scaling30"]) == 42
    with caplog.at_level(logging.INFO):
        features, names = compute("scaling50", market, SETTINGS)
    assert names == tuple(row.name for row in rows_of("scaling30"))
    assert "24 of 66 features are off: no series advance_decline, cpi_surprise" in caplog.text
    np.testing.assert_array_equal(features, compute("scaling30", market, SETTINGS)[0])


@pytest.mark.requirement("FEAT-SC-7")
def test_correlation_equals_that_of_pandas_and_is_one_with_itself(market: Market) -> None:
    series = series_beside(market)
    found = columns(market, series | {"ym": market.close * 80.0, "rty": 1.0 / market.close})
    session = pd.Series(market.session)
    mine, other = (pd.Series(np.log(x)).groupby(session).diff() for x in (market.close, series["nq"]))
    for k in range(3):
        rows = np.flatnonzero(market.session == k)
        expected = mine.iloc[rows].rolling(N).corr(other.iloc[rows])
        np.testing.assert_allclose(found["correlation_nq"][rows], expected, rtol=1e-5, atol=1e-6)
        assert np.isnan(found["correlation_nq"][rows[:N]]).all()
        np.testing.assert_allclose(found["correlation_ym"][rows[N:]], 1.0, atol=1e-6)
        np.testing.assert_allclose(found["correlation_rty"][rows[N:]], -1.0, atol=1e-6)
        np.testing.assert_allclose(found["return_over_ym"][rows[N:]], 0.0, atol=1e-12)
        own, its = (np.log(x[rows[N:]] / x[rows[:-N]]) for x in (market.close, series["nq"]))
        np.testing.assert_allclose(found["return_over_nq"][rows[N:]], own - its, rtol=1e-5, atol=1e-8)


@pytest.mark.requirement("FEAT-SC-7")
def test_late_data_are_masked_not_filled(market: Market) -> None:
    series = series_beside(market)
    late = series["nq"].copy()
    late[100] = np.nan
    found, complete = columns(market, series | {"nq": late}), columns(market, series)
    masked = np.isnan(found["correlation_nq"]) & ~np.isnan(complete["correlation_nq"])
    np.testing.assert_array_equal(np.flatnonzero(masked), np.arange(100, 102 + N - 1))
    flat = columns(market, series | {"nq": np.full(len(market), 5.0)})
    assert (flat["correlation_nq"][np.isfinite(flat["correlation_nq"])] == 0).all()


@pytest.mark.requirement("FEAT-SC-8")
def test_releases_by_the_clock_and_only_once_known(market: Market) -> None:
    series = series_beside(market)
    meeting = market.known_time[50] / SECOND
    release = ExternalSeries(
        event_time=market.known_time[[10]], release_time=market.known_time[[80]], value=np.array([3.5]),
        expected=np.array([3.2]),
    )  # fmt: skip
    series |= {
        "fomc_next_s": np.full(len(market), meeting),
        "cpi_surprise": known_at(release, market.known_time)[:, COLUMNS.index("surprise")],
        "cpi_surprise_std": np.full(len(market), 0.2),
        "gdp_surprise_std": np.zeros(len(market)),
    }
    found = columns(market, series)
    np.testing.assert_allclose(found["minutes_to_fomc"][[20, 50, 60]], [30, 0, -10], atol=1e-4)
    np.testing.assert_allclose(found["minutes_since_fomc"], 120, atol=1e-3)
    assert np.isnan(found["cpi_surprise"][:80]).all()
    np.testing.assert_allclose(found["cpi_surprise"][80:], 1.5, rtol=1e-6)
    assert (found["gdp_surprise"] == 0).all()


@pytest.mark.requirement("FEAT-SC-9")
def test_the_registry_lists_breadth_and_flows_as_optional() -> None:
    breadth = [row for row in REGISTRY.values() if row.group == "breadth"]
    assert {row.name for row in breadth} == {"advance_decline", "fund_flow"}
    assert all(row.series for row in breadth)


def test_a_series_of_another_length_is_refused(market: Market) -> None:
    with pytest.raises(ValueError, match=r"series nq: expected \(600,\), one per bar, found \(3,\)"):
        compute("scaling50", market, SETTINGS, {"nq": np.ones(3)})


def test_two_hot_sides_make_a_schema_of_25_columns_and_another_name(market: Market) -> None:
    market = replace(market, is_call=np.where(np.arange(len(market)) % 2, 1.0, -1.0))
    features, names = compute("condor24_two_hot", market, SETTINGS)
    assert names[:23] == tuple(row.name for row in rows_of("condor24"))[:23]
    assert names[23:] == ("call", "put")
    np.testing.assert_array_equal(features[:2, 23:], [[0, 1], [1, 0]])


def test_windows_of_the_six_averages_may_be_chosen(market: Market) -> None:
    settings = FeatureSettings(sma_windows=(3, 7, 11, 13, 17, 19))
    features, names = compute("nq24", market, settings)
    mean = pd.Series(market.close[:200]).rolling(7).mean()
    np.testing.assert_allclose(
        features[:200, names.index("sma_dev_2")], market.close[:200] / mean - 1, rtol=1e-5, atol=1e-8
    )
    with pytest.raises(ValueError, match="expected increasing windows"):
        FeatureSettings(sma_windows=(5, 5, 20, 50, 100, 200))
