"""Persistent homology against figures of the specification and shapes whose loops are known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainables.features.market_fixture import make_market
from trainables.features.bars import Bars
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings
from trainables.features.topology import embed, loops, persistence, total_persistence


@pytest.mark.requirement("FEAT-CB-37")
def test_cycles_score_high_lines_zero_and_random_walks_little() -> None:
    generator = np.random.default_rng(1)
    t = np.arange(120)
    cycles = [
        total_persistence(embed(np.sin(2 * np.pi * t / 20) + generator.normal(0, 0.1, 120), 3, 5, 40))
        for _ in range(20)
    ]
    walks = [total_persistence(embed(generator.normal(size=120).cumsum(), 3, 5, 40)) for _ in range(20)]
    assert np.mean(cycles) == pytest.approx(3.1, abs=0.4)
    assert total_persistence(embed(t.astype(float), 3, 5, 40)) == 0.0
    assert np.mean(walks) < 0.5


@pytest.mark.requirement("FEAT-CB-37")
def test_loops_of_a_square_and_of_a_regular_polygon() -> None:
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_allclose(loops(square), [[1.0, np.sqrt(2)]])
    angle = 2 * np.pi * np.arange(12) / 12
    polygon = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # born when neighbours touch, filled when a triangle of every fourth corner appears (Adamaszek and Adams 2017)
    np.testing.assert_allclose(loops(polygon), [[2 * np.sin(np.pi / 12), np.sqrt(3)]])


@pytest.mark.requirement("FEAT-CB-37")
def test_embedding_holds_delayed_values_and_thins_evenly() -> None:
    path = np.arange(30.0)
    cloud = embed(path, 3, 5, 64)
    scaled = (path - path.mean()) / path.std()
    assert cloud.shape == (20, 3)
    np.testing.assert_allclose(cloud[0], scaled[[10, 5, 0]])
    np.testing.assert_allclose(cloud[-1], scaled[[29, 24, 19]])
    thin = embed(path, 3, 5, 5)
    np.testing.assert_allclose(thin[[0, -1]], cloud[[0, -1]])
    assert len(thin) == 5
    assert (embed(np.full(30, 470.13), 3, 5, 64) == 0).all()


@pytest.mark.requirement("FEAT-CB-37")
@pytest.mark.requirement("FEAT-CB-P20")
def test_values_are_made_at_the_stride_and_carried_forward() -> None:
    market = make_market(sessions=60, per_session=1, bar_seconds=86_400)
    settings = FeatureSettings(tda=True, tda_window=40)
    found = persistence(Bars(market, settings))
    assert np.isnan(found[:39]).all()
    for start in range(39, 60, 5):
        window = market.close[start - 39 : start + 1] / market.close[0]
        expected = total_persistence(embed(window, 3, 5, 64))
        np.testing.assert_allclose(found[start : start + 5], expected, rtol=1e-9)
    features, names = compute("condor52", market, settings)
    np.testing.assert_allclose(features[39:, names.index("tda_persistence")], np.log1p(found[39:]), rtol=1e-6)


@pytest.mark.requirement("FEAT-CB-P9")
def test_beta1_regime_can_be_topological() -> None:
    market = make_market(sessions=60, per_session=1, bar_seconds=86_400)
    settings = FeatureSettings(tda=True, tda_window=40, beta1_source="tda")
    features, names = compute("condor52", market, settings)
    np.testing.assert_allclose(features[:, names.index("beta1_regime")], persistence(Bars(market, settings)), rtol=1e-6)
