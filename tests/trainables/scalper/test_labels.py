import numpy as np
import pytest

from tests.trainables.data.markets import make_market
from trainables.data.dataset import NO_LABEL
from trainables.scalper.labels import ScalperLabels, direction, scalper_labels

TICK = 0.25


def labels(moves_ticks, *, bar_s=5, n_sessions=1, **settings):
    """Targets of a path in ticks from 5000; bars of `bar_s` seconds, the rest of the session constant."""
    per_session = 390 * 60 // bar_s
    path = np.full(per_session * n_sessions, float(moves_ticks[-1]))
    path[: len(moves_ticks)] = moves_ticks
    market = make_market(5000 + TICK * path, bars_per_session=per_session)
    targets, names, label_end = scalper_labels(market, ScalperLabels(**{"horizon_s": 2 * bar_s, **settings}))
    return dict(zip(names, targets.T, strict=True)), label_end, market


@pytest.mark.requirement("DATA-25")
@pytest.mark.parametrize(
    ("move", "usual", "inclusive"), [(-3, 0, 0), (-2, 0, 1), (-1, 1, 1), (0, 1, 1), (1, 1, 1), (2, 2, 1), (3, 2, 2)]
)
def test_classes_of_moves_around_the_band(move, usual, inclusive):
    for flat_inclusive, expected in ((False, usual), (True, inclusive)):
        found, _, _ = labels([0, 5, move], band_ticks=2.0, flat_inclusive=flat_inclusive)
        assert found["direction"][0] == expected
        assert direction(np.array([float(move)]), 2.0, flat_inclusive)[0] == expected


@pytest.mark.requirement("DATA-25")
def test_return_and_volatility_are_those_of_the_path():
    found, label_end, market = labels([0, 4, -2, 1])
    price = 5000 + TICK * np.array([0.0, 4, -2, 1])
    returns = np.diff(np.log(price))
    np.testing.assert_allclose(found["forward_return"][0], np.log(price[2] / price[0]), rtol=1e-5)
    np.testing.assert_allclose(found["volatility"][0], np.sqrt((returns[:2] ** 2).sum()), rtol=1e-4)
    assert found["move_ticks"][0] == -2
    np.testing.assert_allclose(found["volatility_ticks"][0], found["volatility"][0] * price[0] / TICK, rtol=1e-6)
    assert label_end[0] == market.known_time[0] + 10 * 10**9


@pytest.mark.requirement("DATA-25")
@pytest.mark.parametrize(
    ("path", "exit_long", "exit_short"),
    [
        ([0, 0, 0], 1, 1),  # nothing to wait for
        ([0, 1, 0], 1, 1),  # a gain of just the cost is no better
        ([0, 0, 2], 0, 1),
        ([0, 0, -2], 1, 0),
        ([0, 2, -2], 0, 0),
        ([0, -8, 3], 1, 0),  # stopped before it comes back
        ([0, -7, 3], 0, 0),  # not stopped
        ([0, 8, -3], 0, 1),
    ],
)
def test_leaving_now_is_right_where_no_bar_before_the_barrier_is_better(path, exit_long, exit_short):
    found, _, _ = labels(path, take_profit_ticks=8.0, stop_ticks=8.0, cost_ticks=1.0)
    assert (found["exit_long"][0], found["exit_short"][0]) == (exit_long, exit_short)


def test_no_label_reaches_over_the_close():
    found, label_end, market = labels([0], n_sessions=2)
    per_session = market.bars_per_session
    for end in (per_session, 2 * per_session):
        assert np.isnan(found["direction"][end - 2 : end]).all()
        assert (label_end[end - 2 : end] == NO_LABEL).all()
        assert np.isfinite(found["direction"][end - 3])


def test_a_label_depends_on_nothing_after_its_end():
    random = np.random.default_rng(0)
    path = np.cumsum(random.integers(-2, 3, 400)).astype(float)
    changed = path.copy()
    changed[200:] += random.integers(-9, 9, 200)
    before, label_end, market = labels(path, horizon_s=60)
    after, _, _ = labels(changed, horizon_s=60)
    settled = label_end < market.known_time[200]
    for name in before:
        np.testing.assert_array_equal(before[name][settled], after[name][settled])
    assert settled.sum() > 150
