from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.measures.effects import Effect, effect, verdict


def known(value: float, low: float, high: float) -> Effect:
    return Effect(value=value, low=low, high=high, level=0.9, n_rows=100)


@pytest.mark.requirement("HYP-1")
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (known(0.21, 0.205, 0.22), "supported"),
        (known(0.19, 0.18, 0.195), "not_supported"),
        (known(0.21, 0.15, 0.27), "inconclusive"),
        (known(math.nan, math.nan, math.nan), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_an_interval_that_holds_the_threshold_says_nothing(found, expected):
    assert verdict(found, 0.20) == expected


@pytest.mark.parametrize(
    ("kind", "base", "other", "expected"),
    [
        ("reduction", 0.79, 1.0, 0.21),
        ("gain", 1.11, 1.0, 0.11),
        ("difference", 0.08, 0.02, 0.06),
        ("loss_of_gain", 1.0, 0.84, 0.16),
    ],
)
@pytest.mark.requirement("HYP-2", "HYP-3", "HYP-6")
def test_an_effect_is_that_of_the_means(kind, base, other, expected):
    noise = 0.01 * np.random.default_rng(0).standard_normal(400)
    noise -= noise.mean()
    found = effect(base + noise, other + noise, kind)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12
    assert verdict(found, expected - 0.01) == "supported"
    assert verdict(found, expected + 0.01) == "not_supported"


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        shared = generator.standard_normal(300)
        x, y = (shared + m + 0.5 * generator.standard_normal(300) for m in (0.3, 0.2))
        found = effect(x, y, "difference")
        inside += found.low <= 0.1 <= found.high
    assert 46 <= inside <= 60  # 54 expected


def test_what_is_not_known_on_either_side_is_left_out():
    x, y = np.array([1.0, np.nan, 3.0, 5.0]), np.array([1.0, 2.0, np.nan, 4.0])
    found = effect(x, y, "difference")
    assert (found.value, found.n_rows) == (0.5, 2)
    assert math.isnan(effect([1.0], [2.0], "difference").value)
    assert math.isnan(effect([1.0, 1.0], [0.0, 0.0], "gain").value)
    with pytest.raises(ValueError, match="expected equal shapes"):
        effect([1.0, 2.0], [1.0], "gain")
