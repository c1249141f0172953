import numpy as np
import pytest

from tests.trainables.data.markets import make_market
from trainables.data.dataset import NO_LABEL
from trainables.mlp.labels import direction_labels


@pytest.mark.requirement("DATA-26")
def test_the_label_is_the_sign_of_the_return_ahead():
    market = make_market([100, 101, 100.5, 103, 99])
    targets, names, end = direction_labels(market, 2)
    assert names == ("up", "forward_return")
    assert targets[:3, 0].tolist() == [1, 1, 0]
    np.testing.assert_allclose(targets[:3, 1], np.log([100.5 / 100, 103 / 101, 99 / 100.5]), rtol=1e-6)
    np.testing.assert_array_equal(end[:3], market.known_time[2:])
    assert np.isnan(targets[3:]).all()
    assert (end[3:] == NO_LABEL).all()


@pytest.mark.requirement("DATA-26")
def test_ties_have_no_label():
    targets, _, end = direction_labels(make_market([100, 100, 101]), 1)
    assert np.isnan(targets[0]).all()
    assert end[0] == NO_LABEL
    assert targets[1, 0] == 1


@pytest.mark.requirement("DATA-26")
def test_a_balanced_walk_has_two_classes_of_its_majority_rate():
    steps = np.random.default_rng(3).permutation(np.repeat([1.0, -1.0], 500))
    targets, _, _ = direction_labels(make_market(2000 + np.cumsum(np.append(0.0, steps))), 1)
    assert np.nanmean(targets[:, 0]) == 0.5


def test_labels_within_a_day_stay_in_their_session_and_no_label_crosses_a_segment():
    _, _, end = direction_labels(make_market(np.arange(100.0, 112), bars_per_session=4), 2)
    assert (end != NO_LABEL).tolist() == [True, True, False, False] * 3
    segment = np.array([0, 0, 0, 1, 1, 1])
    _, _, end = direction_labels(make_market(np.arange(100.0, 106), segment=segment), 1)
    assert (end != NO_LABEL).tolist() == [True, True, False, True, True, False]


def test_a_horizon_below_one_bar_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        direction_labels(make_market([100, 101]), 0)


def test_a_horizon_beyond_the_data_leaves_no_label():
    _, _, end = direction_labels(make_market([100, 101]), 5)
    assert (end == NO_LABEL).all()
