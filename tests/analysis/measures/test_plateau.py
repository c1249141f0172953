from __future__ import annotations

import numpy as np
import pytest

from analysis.measures.importance import axis
from analysis.measures.plateau import gower, plateau


def test_the_distance_is_that_of_gower():
    axes = [
        axis([0.0, 1.0, 4.0, None], low=0.0, high=4.0),
        axis(["a", "b", "a", "a"]),
    ]
    assert gower(axes, 0) == pytest.approx([0.0, (0.25 + 1) / 2, (1.0 + 0) / 2, (1.0 + 0) / 2])
    assert gower(axes, 3)[3] == 0.0


@pytest.mark.requirement("ANALYSIS-6")
def test_a_winner_on_a_plateau_is_told_from_one_on_a_spike():
    generator = np.random.default_rng(0)
    x = np.sort(generator.random(60))
    wide = (x - 0.5) ** 2
    spike = np.full(60, 1.0) + 0.1 * generator.random(60)
    spike[30] = 0.0
    places = [axis(list(x), low=0.0, high=1.0)]
    on_plateau = plateau(places, wide, int(wide.argmin()))
    on_spike = plateau(places, spike, 30)
    assert on_plateau.share > 0.9
    assert on_plateau.rise < 0.01
    assert on_spike.rise == pytest.approx(1.05, abs=0.05)
    assert on_spike.rise > 4 * on_spike.error
    assert 30 not in on_spike.neighbours
    assert list(on_spike.distance) == sorted(on_spike.distance)


def test_one_trial_or_no_parameter_has_no_neighbourhood():
    assert plateau([axis([1.0], low=0.0, high=2.0)], [1.0], 0) is None
    assert plateau([], [1.0, 2.0], 0) is None
    with pytest.raises(ValueError, match="expected one value a trial"):
        plateau([axis([1.0, 2.0])], [1.0], 0)
