"""Bar by bar equals batch to the bit, over every schema; a stream is small, can be saved, and refuses wrong bars.

This is what EXEC-3 asks of features and scaler; the condor model is in `tests/trainables/condor/test_live_step.py`.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.features.market_fixture import make_market, series_beside
from tests.trainables.features.test_causality import PER_SESSION, SETTINGS, market_of, until
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.loader import load_market
from trainables.data.market import Market
from trainables.features.bars import Bars
from trainables.features.blocks import sliced
from trainables.features.memory import Memory, earlier_rows, in_batch, remembered
from trainables.features.normalisers import fit_normaliser
from trainables.features.registry import compute, rows_of
from trainables.features.schemas import SCHEMAS
from trainables.features.settings import FeatureSettings
from trainables.features.streaming import Stream

MINUTES = Path(__file__).parents[3] / ".." / "shared" / "data" / "es_1m_esh25.parquet"
CASES = [
    (schema, per)
    for schema in SCHEMAS
    for per in ((7000,) if schema.startswith("mes") else (1, PER_SESSION))
]  # fmt: skip


def series_of(schema: str, market: Market) -> dict[str, np.ndarray]:
    return series_beside(market) if any(row.series for row in rows_of(schema)) else {}


def in_one_piece(schema: str, market: Market, settings: FeatureSettings = SETTINGS) -> np.ndarray:
    """Every feature on all bars at once, without blocks or memory."""
    bars = Bars(market, settings, series_of(schema, market))
    with in_batch():
        return np.stack([row.function(bars).astype(np.float32) for row in rows_of(schema)], axis=1)


def streamed(schema: str, market: Market, sizes: list[int], settings: FeatureSettings = SETTINGS) -> np.ndarray:
    series = series_of(schema, market)
    stream, generator, parts, start = Stream(schema, settings, series), np.random.default_rng(0), [], 0
    while start < len(market):
        end = min(start + int(generator.choice(sizes)), len(market))
        part = {name: values[start:end] for name, values in series.items()}
        block = sliced(market, start, end)
        parts.append(stream.push(block, part)[None] if end == start + 1 else stream.extend(block, part))
        start = end
    return np.concatenate(parts)


@pytest.mark.parametrize(("schema", "per_session"), [c for c in CASES if c[1] != 7000])
def test_bar_by_bar_equals_batch_over_sessions_and_a_roll(schema: str, per_session: int) -> None:
    market = market_of(SCHEMAS[schema][0].split(".")[0], per_session)
    np.testing.assert_array_equal(streamed(schema, market, [1]), in_one_piece(schema, market))


@pytest.mark.parametrize(("schema", "per_session"), CASES)
def test_blocks_of_any_size_equal_batch(schema: str, per_session: int) -> None:
    market = market_of(SCHEMAS[schema][0].split(".")[0], per_session)
    np.testing.assert_array_equal(streamed(schema, market, [1, 2, 13, 90, 1000]), in_one_piece(schema, market))
    np.testing.assert_array_equal(
        compute(schema, market, SETTINGS, series_of(schema, market))[0], in_one_piece(schema, market)
    )


def test_a_second_in_the_middle_of_a_session_equals_batch() -> None:
    market = make_market(sessions=2, per_session=700, bar_seconds=1)
    np.testing.assert_array_equal(streamed("mes", market, [1]), in_one_piece("mes", market))


@pytest.mark.parametrize("curvature", ["proxy", "menger_documented", "menger_true"])
@pytest.mark.parametrize("order", ["first_diff_of_return", "low_pass"])
def test_other_settings_and_missing_values_stream_alike(curvature: str, order: str) -> None:
    market = market_of("condor", PER_SESSION)
    holes = np.random.default_rng(1).random(len(market)) < 0.02
    market = replace(market, iv=np.where(holes, np.nan, market.iv), volume=np.where(holes, 0.0, market.volume))
    settings = SETTINGS.model_copy(update={"curvature": curvature, "kappa_order": order, "levels_mode": "raw"})
    for schema in ("condor52", "scaling30"):
        np.testing.assert_array_equal(
            streamed(schema, market, [1, 7, 400], settings), in_one_piece(schema, market, settings)
        )


@pytest.mark.skipif(not MINUTES.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("schema", ["condor52", "nq24", "scaling30"])
def test_measured_minutes_stream_alike(schema: str) -> None:
    data = DataConfig(source="files", bars=str(MINUTES))
    market = until(load_market(data, FoldsConfig(train_months=1)), 5000)
    settings = FeatureSettings(tda=schema == "condor52")
    expected = in_one_piece(schema, market, settings)
    np.testing.assert_array_equal(streamed(schema, market, [1, 1, 1, 37, 390], settings), expected)


def test_a_scaler_applied_to_one_row_gives_the_bits_that_it_gives_to_all() -> None:
    features, names = compute("condor52", market_of("condor", PER_SESSION), SETTINGS)
    for kind in ("mad", "zscore", "minmax", "returns"):
        scaler = fit_normaliser(kind, features[:900], names, clip=10.0)
        row_by_row = np.concatenate([scaler.apply(features[i : i + 1]) for i in range(900, 1000)])
        np.testing.assert_array_equal(row_by_row, scaler.apply(features)[900:1000])


def test_a_stream_takes_no_more_memory_after_years_than_after_weeks() -> None:
    market = make_market(sessions=120, per_session=60)
    for schema in ("condor52", "scaling30", "nq24"):
        stream = Stream(schema, SETTINGS)
        stream.extend(sliced(market, 0, 30 * 60))
        early = len(pickle.dumps(stream))
        stream.extend(sliced(market, 30 * 60, len(market)))
        assert len(pickle.dumps(stream)) < 1.02 * early


def test_a_saved_stream_goes_on_where_it_stopped() -> None:
    market = market_of("condor", PER_SESSION)
    stream = Stream("condor52", SETTINGS)
    stream.extend(sliced(market, 0, 500))
    restored = pickle.loads(pickle.dumps(stream))
    rest = sliced(market, 500, len(market))
    np.testing.assert_array_equal(restored.extend(rest), in_one_piece("condor52", market)[500:])


def test_a_bar_sent_twice_two_bars_at_once_and_a_forgotten_series_are_refused() -> None:
    market = market_of("scaling", PER_SESSION)
    stream = Stream("scaling50", SETTINGS, {"nq"})
    with pytest.raises(ValueError, match=r"expected series \['nq'\], found \[\]"):
        stream.push(sliced(market, 0, 1))
    with pytest.raises(ValueError, match="expected one bar, found 2"):
        stream.push(sliced(market, 0, 2))
    stream.push(sliced(market, 0, 1), {"nq": np.ones(1)})
    with pytest.raises(ValueError, match="send no bar twice"):
        stream.push(sliced(market, 0, 1), {"nq": np.ones(1)})


def test_a_call_that_is_left_out_of_a_block_is_noticed() -> None:
    memory, first = Memory(), np.zeros(3, dtype=np.int64)
    with memory.block(3):
        earlier_rows(first, 2, np.arange(3.0))
        remembered(1)
    with pytest.raises(RuntimeError, match="expected 2 calls that look back, found 1"), memory.block(3):
        earlier_rows(first, 2, np.arange(3.0))
