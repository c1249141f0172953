"""Guards over the whole registry: no feature sees the future, warm-up is as stated, flat bars are harmless."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from tests.trainables.features.market_fixture import make_market, series_beside
from trainables.data.market import Market
from trainables.features.bars import Bars
from trainables.features.registry import REGISTRY, compute, kinds, rows_of
from trainables.features.schemas import SCHEMAS
from trainables.features.settings import FeatureSettings

SETTINGS = FeatureSettings(
    tda=True, tda_window=40, tda_points=16, hurst_window=64, vol_regime_n=40, kappa_span=8, scaling_regime_n=4,
    vix_correlation_n=8, weekday_n=2, realised_n=40, curvature="menger_scaled",
)  # fmt: skip
VALUES = tuple(f.name for f in fields(Market) if f.name not in {
    "event_time", "known_time", "is_filled", "session", "segment", "bars_per_session", "rate_ann", "marks", "snapshot",
    "series"})  # fmt: skip
FAMILIES = tuple(sorted({row.family for row in REGISTRY.values()}))
PER_SESSION = 90


@cache
def market_of(family: str, bars_per_session: int) -> Market:
    if family == "mes":
        return make_market(sessions=2, per_session=7000, bar_seconds=1)
    if bars_per_session == 1:
        return make_market(sessions=330, per_session=1, bar_seconds=86_400)
    return make_market(sessions=15, per_session=PER_SESSION, roll_at_session=9)


@cache
def everything(family: str, bars_per_session: int) -> dict[str, np.ndarray]:
    return values_of(family, market_of(family, bars_per_session))


def values_of(family: str, market: Market, changed_after: int | None = None) -> dict[str, np.ndarray]:
    series = series_beside(market)
    if changed_after is not None:
        factor = np.where(np.arange(len(market)) > changed_after, 1.5, 1.0)
        series = {name: values * factor for name, values in series.items()}
    bars = Bars(market, SETTINGS, series)
    return {key: np.array(row.function(bars)) for key, row in REGISTRY.items() if row.family == family}


def randomised_after(market: Market, t: int, seed: int) -> Market:
    generator = np.random.default_rng(seed)
    after = np.arange(len(market)) > t

    def changed(name: str) -> np.ndarray:
        return np.where(after, getattr(market, name) * generator.uniform(0.5, 2.0, len(market)), getattr(market, name))

    values = {name: changed(name) for name in VALUES}
    prices = np.stack([values[name] for name in ("open", "high", "low", "close")])
    return replace(market, **(values | {"high": prices.max(axis=0), "low": prices.min(axis=0)}))


def until(market: Market, t: int) -> Market:
    return replace(
        market,
        **{
            f.name: getattr(market, f.name)[: t + 1]
            for f in fields(Market)
            if isinstance(getattr(market, f.name), np.ndarray)
        },
    )


def moments(family: str, bars_per_session: int) -> tuple[int, ...]:
    """Positions around session edges, a roll, and in between."""
    if family == "mes":
        return 3599, 6999, 7000, 7123, 13_500
    if bars_per_session == 1:
        return 57, 200, 329
    return PER_SESSION - 1, PER_SESSION, 9 * PER_SESSION - 1, 9 * PER_SESSION, 14 * PER_SESSION + 37


CASES = [(f, per) for f in FAMILIES for per in ((1, PER_SESSION) if f != "mes" else (7000,))]
MOMENTS = [(f, per, t) for f, per in CASES for t in moments(f, per)]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], t: int) -> None:
    moved = [k for k, v in expected.items() if not np.array_equal(found[k][: t + 1], v[: t + 1], equal_nan=True)]
    assert not moved, f"features that see past bar {t}: {moved}"


@pytest.mark.requirement("DATA-30")
@pytest.mark.requirement("FEAT-NQ-0")
@pytest.mark.requirement("DATA-12")
@pytest.mark.parametrize(("family", "per_session", "t"), MOMENTS)
def test_nothing_after_a_bar_moves_anything_up_to_it(family: str, per_session: int, t: int) -> None:
    market = randomised_after(market_of(family, per_session), t, seed=t)
    assert_same(values_of(family, market, changed_after=t), everything(family, per_session), t)


def test_the_guard_catches_a_feature_that_looks_one_bar_ahead() -> None:
    market, t = market_of("nq", 1), 200
    changed = randomised_after(market, t, seed=t)
    found, expected = ({"leak": np.roll(m.close, -1)} for m in (changed, market))
    with pytest.raises(AssertionError, match="leak"):
        assert_same(found, expected, t)
    assert_same({"leak": changed.close}, {"leak": market.close}, t)


@pytest.mark.requirement("DATA-30")
@pytest.mark.parametrize(("family", "per_session", "t"), MOMENTS)
def test_a_market_that_ends_early_gives_the_same_values(family: str, per_session: int, t: int) -> None:
    assert_same(values_of(family, until(market_of(family, per_session), t)), everything(family, per_session), t)


@pytest.mark.requirement("DATA-10")
@pytest.mark.parametrize("family", FAMILIES)
def test_only_declared_features_look_across_sessions_and_none_across_rolls(family: str) -> None:
    market = market_of(family, PER_SESSION)
    cut = len(market) // 2 if family == "mes" else 4 * PER_SESSION
    roll = None if family == "mes" else 9 * PER_SESSION
    generator = np.random.default_rng(3)

    def earlier_changed(before: int) -> dict[str, np.ndarray]:
        factor = np.where(np.arange(len(market)) < before, generator.uniform(0.5, 2.0, len(market)), 1.0)
        values = {name: getattr(market, name) * factor for name in VALUES}
        prices = np.stack([values[name] for name in ("open", "high", "low", "close")])
        return values_of(family, replace(market, **(values | {"high": prices.max(axis=0), "low": prices.min(axis=0)})))

    original = everything(family, PER_SESSION if family != "mes" else 7000)
    found = earlier_changed(cut)
    crossing = {k for k, v in original.items() if not np.array_equal(found[k][cut:], v[cut:], equal_nan=True)}
    assert crossing <= {k for k in original if REGISTRY[k].scope != "session"}
    if roll is not None:
        found = earlier_changed(roll)
        crossing = {k for k, v in original.items() if not np.array_equal(found[k][roll:], v[roll:], equal_nan=True)}
        assert crossing <= {k for k in original if REGISTRY[k].scope == "market"}
        assert np.isnan(original[f"{family}.{'close_change_pct' if family == 'scaling' else 'log_return'}"][roll])


@pytest.mark.requirement("IND-12")
@pytest.mark.parametrize("key", sorted(REGISTRY))
def test_first_value_stands_where_the_look_back_says(key: str) -> None:
    row = REGISTRY[key]
    per_session = 7000 if row.family == "mes" else 1
    values = everything(row.family, per_session)[key]
    first = row.lookback(SETTINGS, per_session) - 1
    until_cut = 7000 if row.family == "mes" else len(values)
    assert np.isnan(values[:first]).all()
    assert np.isfinite(values[first:until_cut]).all()


@pytest.mark.requirement("IND-12")
@pytest.mark.parametrize("with_volume", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_flat_bars_give_finite_values(family: str, with_volume: bool) -> None:
    sizes = (
        {"sessions": 1, "per_session": 6400, "bar_seconds": 1}
        if family == "mes"
        else {"sessions": 12, "per_session": 220}
    )
    n = sizes["sessions"] * sizes["per_session"]
    market = make_market(flat=True, volume=None if with_volume else np.zeros(n), **sizes)
    market = replace(market, iv=np.full(n, 0.15))
    for key, values in values_of(family, market).items():
        first = np.flatnonzero(np.isfinite(values))
        assert len(first), key
        assert not np.isinf(values).any(), key
        per_session = values.reshape(sizes["sessions"], -1)[-1]
        assert np.isfinite(per_session[np.flatnonzero(np.isfinite(per_session))[0] :]).all(), key


@pytest.mark.requirement("DATA-19")
@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_compute_gives_float32_columns_in_schema_order_and_leaves_the_market_alone(schema: str) -> None:
    family = SCHEMAS[schema][0].split(".")[0]
    market = market_of(family, 7000 if family == "mes" else 1)
    before = {name: getattr(market, name).copy() for name in VALUES}
    features, names = compute(schema, market, SETTINGS, series_beside(market))
    assert features.shape == (len(market), len(names))
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    assert tuple(f"{family}.{name}" for name in names) == SCHEMAS[schema]
    assert len(set(names)) == len(names)
    for name, column in zip(names, features.T, strict=True):
        expected = everything(family, 7000 if family == "mes" else 1)[f"{family}.{name}"]
        np.testing.assert_array_equal(column, expected.astype(np.float32))
    assert all(np.array_equal(getattr(market, name), values) for name, values in before.items())
    assert kinds(names) == tuple(row.kind for row in rows_of(schema))


def test_an_unknown_schema_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown schema 'condor25'; nearest: condor"):
        compute("condor25", market_of("condor", 1), SETTINGS)
