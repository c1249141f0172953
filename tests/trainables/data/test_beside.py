"""Series beside a market: from files, by when they were published, to the features that use them."""

from __future__ import annotations

import logging
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.files import write_parquet
from trainables.data.beside import PRICES, SURPRISES
from trainables.data.config import DataConfig, FoldsConfig, SeriesConfig
from trainables.data.loader import load_market, load_times, outline
from trainables.data.store import FeatureStore
from trainables.errors import DataError
from trainables.features.registry import REGISTRY, compute
from trainables.features.schemas import BESIDE_PRICES, BESIDE_RELEASES
from trainables.features.settings import FeatureSettings
from trainables.mlp.config import MlpConfig
from trainables.mlp.trainable import FAMILY

DAY = 86_400 * 10**9
SYNTHETIC = {"source": "synthetic", "synthetic": {"n_sessions": 420, "first_day": "2015-01-02"}}
FOLDS = FoldsConfig(train_months=6, validation_months=1, test_months=1)
PLAIN = DataConfig.model_validate(SYNTHETIC)
TIMES = load_times(PLAIN, FOLDS)
"""When each bar is known, those of the vault included."""


def data_with(**series: str) -> DataConfig:
    return DataConfig.model_validate({**SYNTHETIC, "series": series})


def file_of(folder: Path, name: str, event: np.ndarray, release: np.ndarray, value: np.ndarray, **more) -> str:
    columns = {"event_time": event, "release_time": release, "value": np.asarray(value, dtype=float), **more}
    return write_parquet(folder / f"{name}.parquet", columns)


def every_source(folder: Path) -> dict[str, str]:
    """Write a file per source: daily values known a minute before the bar's end, monthly releases and decisions."""
    random = np.random.default_rng(0)
    daily = TIMES - 60 * 10**9
    monthly = TIMES[::21] - 60 * 10**9
    paths = {}
    for name in SeriesConfig.model_fields:
        if name == "fomc":
            following = np.append(monthly[1:], monthly[-1] + 30 * DAY) / 1e9
            paths[name] = file_of(folder, name, monthly, monthly, following)
        elif name in SURPRISES:
            value, expected = random.normal(size=(2, len(monthly)))
            paths[name] = file_of(folder, name, monthly - 10 * DAY, monthly, value, expected=expected)
        else:
            price = 100 * np.exp(np.cumsum(random.normal(0, 0.01, len(daily))))
            paths[name] = file_of(folder, name, daily, daily, price)
    return paths


def test_a_market_without_series_has_none_and_says_nothing_of_them() -> None:
    market = load_market(PLAIN, FOLDS)
    assert market.series == {}
    assert "series" not in market.marks


@pytest.mark.requirement("DATA-27")
def test_all_sources_together_give_every_series_that_features_use(tmp_path: Path) -> None:
    assert set(BESIDE_PRICES) == PRICES
    assert set(BESIDE_RELEASES) == SURPRISES
    market = load_market(data_with(**every_source(tmp_path)), FOLDS)
    assert set(market.series) == {name for row in REGISTRY.values() for name in row.series}
    assert all(values.shape == (len(market),) for values in market.series.values())
    assert len(market) < len(TIMES)  # the vault


@pytest.mark.requirement("DATA-27")
def test_a_late_revision_stays_invisible(tmp_path: Path) -> None:
    event = TIMES[[10, 10]]
    first = data_with(fund_flow=file_of(tmp_path, "a", event[:1], TIMES[[20]], [1.0]))
    revised = data_with(fund_flow=file_of(tmp_path, "b", event, TIMES[[20, 100]], [1.0, 9.0]))
    before, after = (load_market(data, FOLDS) for data in (first, revised))
    expected = np.where(np.arange(len(before)) < 20, np.nan, 1.0)
    np.testing.assert_array_equal(before.series["fund_flow"], expected)
    np.testing.assert_array_equal(after.series["fund_flow"][:100], expected[:100])
    assert (after.series["fund_flow"][100:] == 9.0).all()
    assert before.snapshot != after.snapshot


def test_releases_of_the_vault_change_nothing_before_it(tmp_path: Path) -> None:
    paths = every_source(tmp_path)
    closed = load_market(data_with(**paths), FOLDS)
    opened = load_market(data_with(**paths), FOLDS, vault="open")
    for name, values in closed.series.items():
        np.testing.assert_array_equal(values, opened.series[name][: len(closed)], err_msg=name)


def test_the_same_file_under_another_name_is_another_market(tmp_path: Path) -> None:
    path = file_of(tmp_path, "price", TIMES, TIMES, np.arange(1.0, len(TIMES) + 1))
    assert len({load_market(data_with(**{name: path}), FOLDS).snapshot for name in ("nq", "ym")}) == 2


def test_an_old_price_is_unknown_and_an_old_flow_holds(tmp_path: Path) -> None:
    path = file_of(tmp_path, "once", TIMES[:1], TIMES[:1], [5.0])
    series = load_market(data_with(nq=path, fund_flow=path), FOLDS).series
    age_days = (TIMES[: len(series["nq"])] - TIMES[0]) / DAY
    np.testing.assert_array_equal(np.isfinite(series["nq"]), age_days <= PLAIN.series_max_age_days)
    assert (series["fund_flow"] == 5.0).all()


@pytest.mark.requirement("FEAT-SC-8")
def test_a_surprise_is_measured_by_those_published_before_it(tmp_path: Path) -> None:
    rows = np.array([10, 30, 50, 70, 90])
    surprises = [0.1, -0.3, 0.2, 0.5]
    event, release = TIMES[rows - 5], TIMES[rows]
    event[4] = event[3]  # a revision: no surprise
    path = file_of(tmp_path, "cpi", event, release, [*surprises, 9.0], expected=np.zeros(5))
    series = load_market(data_with(cpi=path), FOLDS).series
    assert np.isnan(series["cpi_surprise"][:10]).all()
    np.testing.assert_allclose(series["cpi_surprise"][[10, 30, 69, 70, 95]], [0.1, -0.3, 0.2, 0.5, 0.5])
    assert np.isnan(series["cpi_surprise_std"][:50]).all()
    np.testing.assert_allclose(series["cpi_surprise_std"][[50, 69]], statistics.stdev(surprises[:2]))
    np.testing.assert_allclose(series["cpi_surprise_std"][[70, 95]], statistics.stdev(surprises[:3]))


def test_releases_without_a_forecast_are_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path, "cpi", TIMES[:1], TIMES[:1], [5.0])
    with pytest.raises(DataError, match=r"data\.series\.cpi: expected forecasts in column expected, found none"):
        load_market(data_with(cpi=path), FOLDS)


@pytest.mark.requirement("FEAT-SC-8")
def test_decisions_by_the_schedule_known_then(tmp_path: Path) -> None:
    """The second is announced for bar 60, then moved to bar 50 on bar 30; nothing was announced after it."""
    decided, following = TIMES[[20, 20, 50]], TIMES[[60, 50, 50]] / 1e9
    path = file_of(tmp_path, "fomc", decided, TIMES[[20, 30, 50]], following)
    series = load_market(data_with(fomc=path), FOLDS).series
    seconds = TIMES / 1e9
    np.testing.assert_array_equal(series["fomc_next_s"][[19, 20, 29, 30, 49]], [np.nan, *seconds[[60, 60, 50, 50]]])
    assert np.isnan(series["fomc_next_s"][51:]).all()
    np.testing.assert_array_equal(series["fomc_previous_s"][[19, 20, 49, 50]], [np.nan, *seconds[[20, 20, 50]]])


@pytest.mark.requirement("DATA-27")
def test_an_absent_source_turns_its_group_off_with_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_with(nq=every_source(tmp_path)["nq"], cpi=str(tmp_path / "gone.csv"))
    with caplog.at_level(logging.INFO):
        market = load_market(data, FOLDS)
        _, names = compute("scaling50", market, FeatureSettings(), market.series)
    assert list(market.series) == ["nq"]
    assert market.marks["series"] == outline(data, FOLDS).marks["series"] == "nq; cpi off (no file gone.csv)"
    assert "external series cpi is off: no file gone.csv" in caplog.text
    assert names[42:] == ("correlation_nq", "return_over_nq")


@pytest.mark.requirement("FEAT-SC-4")
def test_the_mlp_sees_66_columns_or_refuses(tmp_path: Path) -> None:
    config = MlpConfig(feature_stage="50+", label_horizon=1)
    paths = every_source(tmp_path)
    dataset = FAMILY.dataset(config, data_with(**paths), FOLDS, {}, tmp_path / "store")
    assert dataset.features.shape[1] == config.n_inputs == 66
    assert dataset.usable.sum() > 100
    assert np.isfinite(dataset.features[dataset.usable]).all()
    del paths["gdp"]
    with pytest.raises(DataError, match=r"found none of gdp; name their files in data\.series"):
        FAMILY.dataset(config, data_with(**paths), FOLDS, {}, tmp_path / "store")


def test_the_store_keeps_series_as_maps(tmp_path: Path) -> None:
    market = load_market(PLAIN, FOLDS)
    market = replace(market, series={"nq": market.close})
    found = FeatureStore(tmp_path).market("key", lambda: market)
    np.testing.assert_array_equal(found.series["nq"], market.close)
    assert isinstance(found.series["nq"], np.memmap)
    assert found.marks == market.marks
