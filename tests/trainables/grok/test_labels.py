import numpy as np
import pytest

from tests.trainables.data.markets import make_market
from trainables.data.dataset import NO_LABEL
from trainables.grok.labels import HORIZON_MINUTES, horizon_labels

MINUTE = 60 * 10**9


def growing(n_sessions=2, **settings):
    """C_t = exp(0.001 t) on minutes of regular hours."""
    return make_market(np.exp(0.001 * np.arange(390 * n_sessions)), bars_per_session=390, **settings)


@pytest.mark.requirement("DATA-4")
def test_steady_growth_gives_a_thousandth_a_minute():
    targets, names, label_end = horizon_labels(growing())
    assert names == ("return_5m", "return_15m", "return_30m", "return_60m", "return_120m", "return_240m")
    expected = np.broadcast_to(0.001 * np.array(HORIZON_MINUTES), targets.shape)
    known = np.isfinite(targets)
    np.testing.assert_allclose(targets[known], expected[known], rtol=1e-5)
    assert known.sum(axis=0).tolist() == [2 * (390 - h) for h in HORIZON_MINUTES]
    market = growing()
    assert label_end[0] == market.known_time[0] + 240 * MINUTE
    assert label_end[300] == market.known_time[300] + 60 * MINUTE


@pytest.mark.requirement("DATA-4")
def test_the_bar_before_a_closure_has_masked_horizons_only():
    targets, _, label_end = horizon_labels(growing())
    for row in (389, 386, 779):
        assert np.isnan(targets[row]).all()
        assert label_end[row] == NO_LABEL
    assert np.isfinite(targets[384]).tolist() == [True] + [False] * 5


@pytest.mark.requirement("DATA-4")
def test_a_roll_or_a_pause_on_the_way_masks():
    segment = np.repeat([0, 1], [100, 680])
    targets, _, _ = horizon_labels(growing(segment=segment))
    assert np.isnan(targets[95:100]).all()
    assert np.isfinite(targets[94]).sum() == 1
    market = growing()
    rows = np.delete(np.arange(780), np.arange(200, 215))
    names = ("event_time", "known_time", "close", "session", "segment")
    part = market.__class__(
        **{f: getattr(market, f)[rows] if f in names else getattr(market, f) for f in market.__slots__}
    )
    paused, _, _ = horizon_labels(part)
    assert np.isnan(paused[195:200]).all()
    assert np.isfinite(paused[194]).tolist() == [True] + [False] * 5
    thin, _, _ = horizon_labels(part, max_pause_minutes=15)
    assert np.isfinite(thin[199]).tolist() == [False, False, True, True, True, False]


def test_a_label_depends_on_nothing_after_its_end():
    market = growing()
    targets, _, label_end = horizon_labels(market)
    changed = market.close.copy()
    changed[200:] *= np.exp(np.random.default_rng(0).normal(size=580))
    other, _, _ = horizon_labels(make_market(changed, bars_per_session=390))
    settled = label_end < market.known_time[200]
    np.testing.assert_array_equal(targets[settled], other[settled])


def test_horizons_must_increase():
    with pytest.raises(ValueError, match="expected increasing minutes from 1"):
        horizon_labels(growing(), (5, 5))
