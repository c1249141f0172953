"""The ensemble by dropout, and signals where the spread is small."""

import numpy as np
import pytest
import torch
from torch import nn

from trainables.features.schemas import NQ
from trainables.grok.config import CONTEXT, GrokConfig
from trainables.grok.inference import ensemble, signals, spread, spread_threshold
from trainables.grok.model import GrokModel


def model(dropout=0.3):
    torch.manual_seed(0)
    config = GrokConfig(d_model=16, n_heads=2, n_blocks=1, window_bars=8, dropout=dropout)
    windows = torch.randn(4, 8, 24 + len(CONTEXT))
    windows[..., -1], windows[..., -3] = 1, 2
    return GrokModel(config, (*NQ, *CONTEXT)).eval(), windows


@pytest.mark.requirement("GROK-14")
@pytest.mark.requirement("EXEC-2")
def test_one_sample_is_the_model_itself():
    net, windows = model()
    with torch.no_grad():
        assert torch.equal(ensemble(net, windows, 1)["quantiles"], net(windows)["quantiles"])
        assert torch.equal(ensemble(net, windows, 1)["quantiles"], ensemble(net, windows, 1)["quantiles"])


@pytest.mark.requirement("GROK-14")
@pytest.mark.requirement("EXEC-2")
def test_an_ensemble_averages_passes_with_dropout_level_by_level():
    net, windows = model()
    with torch.no_grad():
        state = torch.get_rng_state()
        found = ensemble(net, windows, 20)["quantiles"]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(ensemble(net, windows, 20)["quantiles"], found)
        assert not any(layer.training for layer in net.modules())
        torch.manual_seed(0)
        for layer in net.modules():
            layer.train(isinstance(layer, nn.Dropout))
        passes = torch.stack([net(windows)["quantiles"] for _ in range(20)])
        net.eval()
        torch.testing.assert_close(found, passes.mean(0))
        assert passes.std(0).min() > 0
        assert not torch.equal(found, net(windows)["quantiles"])


def forecasts():
    rng = np.random.default_rng(0)
    return np.sort(rng.normal(size=(500, 7)), axis=-1)


@pytest.mark.requirement("GROK-14")
@pytest.mark.requirement("EXEC-2")
def test_signals_follow_the_median_where_the_spread_is_small():
    q = forecasts()
    threshold = spread_threshold(spread(q), 0.6)
    found = signals(q, threshold)
    assert (np.abs(found) > 0).mean() == pytest.approx(0.6, abs=0.01)
    sure = spread(q) <= threshold
    assert (found[~sure] == 0).all()
    np.testing.assert_array_equal(found[sure], np.sign(q[sure, 3]))


@pytest.mark.requirement("EXEC-2")
def test_a_wider_spread_never_makes_a_signal():
    q = forecasts()
    median = q[:, 3:4]
    threshold = spread_threshold(spread(q))
    before = signals(q, threshold) != 0
    for factor in (1.0, 1.1, 1.7, 4.0):
        now = signals(median + factor * (q - median), threshold) != 0
        assert not (now & ~before).any()
        before = now


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="some finite and a share"):
        spread_threshold(np.array([np.nan]))
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 7\)"):
        signals(np.zeros((4, 6)), 1.0)
