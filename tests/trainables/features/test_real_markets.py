"""The causality guard and finiteness on measured bars: the arch package's days, and minute files where they lie."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.features.test_causality import assert_same, randomised_after, until, values_of
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.loader import load_market
from trainables.data.market import Market
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
MINUTES, SECONDS = SHARED / "es_1m_esh25.parquet", SHARED / "spy_1s_lean_2013.parquet"
SOURCES = [
    "daily",
    pytest.param("minutes", marks=pytest.mark.skipif(not MINUTES.exists(), reason="needs ../shared/data")),
]


@cache
def market_of(source: str) -> Market:
    if source == "daily":
        return until(load_market(DataConfig(), FoldsConfig()), 1500)
    data = DataConfig(source="files", bars=str(MINUTES))
    return until(load_market(data, FoldsConfig(train_months=1)), 4000)


@cache
def everything(source: str, family: str) -> dict[str, np.ndarray]:
    return values_of(family, market_of(source))


@pytest.mark.requirement("DATA-30")
@pytest.mark.parametrize("family", ["condor", "nq", "scaling"])
@pytest.mark.parametrize("source", SOURCES)
def test_measured_bars_show_no_future_either(source: str, family: str) -> None:
    market = market_of(source)
    for t in (389, 390, 1200, len(market) - 2):
        assert_same(values_of(family, randomised_after(market, t, seed=t)), everything(source, family), t)
        assert_same(values_of(family, until(market, t)), everything(source, family), t)


@pytest.mark.requirement("DATA-30")
@pytest.mark.skipif(not SECONDS.exists(), reason="needs ../shared/data")
def test_measured_seconds_show_no_future_either() -> None:
    data = DataConfig(source="files", bars=str(SECONDS), bar_seconds=1)
    market = until(load_market(data, FoldsConfig(), vault="open"), 6000)
    expected = values_of("mes", market)
    for t in (1200, len(market) - 2):
        assert_same(values_of("mes", randomised_after(market, t, seed=t)), expected, t)
        assert_same(values_of("mes", until(market, t)), expected, t)


@pytest.mark.requirement("FEAT-CB-52")
def test_default_market_gives_finite_rows_after_warm_up() -> None:
    market = market_of("daily")
    for schema in ("condor24", "condor52", "nq24", "scaling30"):
        features, _ = compute(schema, market, FeatureSettings())
        finite = np.isfinite(features).all(axis=1)
        assert not np.isinf(features).any()
        assert finite.any(), schema
        assert finite[finite.argmax() :].all(), schema
