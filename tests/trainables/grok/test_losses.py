"""Quantile losses: hand examples of the specification, masks, teacher forcing, the fixed reference."""

import numpy as np
import pytest
import scoringrules
import torch

from trainables.features.schemas import NQ
from trainables.grok.config import CONTEXT, LEVELS, MEDIAN, GrokConfig
from trainables.grok.losses import crossing, horizon_weights, pinball, reference_loss, training_loss
from trainables.grok.model import GrokModel

TINY = {"d_model": 16, "n_heads": 2, "n_blocks": 1, "window_bars": 8, "dropout": 0.0}
UNIT = 3e-4
KEEP = torch.tensor([True, True, True, False, False, False])


def sample(n=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    quantiles = torch.randn(n, 6, 7, generator=generator) * 1e-3
    return quantiles, torch.randn(n, 6, generator=generator) * 1e-3


@pytest.mark.requirement("LOSS-1")
def test_pinball_by_hand_and_by_scoringrules():
    at = LEVELS.index(0.9)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1, 7)
    assert pinball(one, zero)[0, 0, at] == pytest.approx(0.9)
    assert pinball(-one, zero)[0, 0, at] == pytest.approx(0.1)
    quantiles, returns = sample()
    judge = scoringrules.quantile_score(returns.numpy()[..., None], quantiles.numpy(), np.array(LEVELS))
    np.testing.assert_allclose(pinball(returns, quantiles).numpy(), judge, rtol=1e-4, atol=1e-9)


@pytest.mark.requirement("LOSS-1")
def test_the_best_constant_is_the_quantile():
    draws = torch.randn(4001, 1, generator=torch.Generator().manual_seed(3))
    grid = torch.linspace(-3, 3, 1201)
    losses = torch.stack([pinball(draws, torch.full((4001, 1, 7), float(c))).mean((0, 1)) for c in grid])
    np.testing.assert_allclose(grid[losses.argmin(0)], np.quantile(draws.numpy(), LEVELS), atol=0.02)


@pytest.mark.requirement("LOSS-2")
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("minutes", (0.5581, 0.3607, 0.2912, 0.2433, 0.2085, 0.1823)),
        ("index", (1.4427, 0.9102, 0.7213, 0.6213, 0.5581, 0.5139)),
        ("uniform", (1.0,) * 6),
    ],
)
def test_weights_of_the_horizons(unit, expected):
    assert horizon_weights(unit) == pytest.approx(expected, abs=1e-4)


@pytest.mark.requirement("LOSS-2")
def test_weights_in_hours():
    assert horizon_weights("hours") == pytest.approx((12.493, 4.481, 2.466, 1.443, 0.910, 0.621), abs=1e-3)


@pytest.mark.requirement("LOSS-3")
def test_crossing_quantiles_cost_what_they_cross_by():
    ordered = torch.arange(7.0)
    assert crossing(ordered) == 0
    crossed = torch.tensor([0.0, 1, 2, 3, 4, 6, 5.25])
    assert crossing(crossed) == pytest.approx(0.75)
    config, zero = GrokConfig(**TINY, order_penalty=2.0), torch.zeros(1, 6)
    more = crossed.repeat(1, 6, 1) * UNIT
    without = training_loss(GrokConfig(**TINY, order_penalty=0.0), {"quantiles": more}, zero)
    assert training_loss(config, {"quantiles": more}, zero) - without == pytest.approx(2.0 * 6 * 0.75, rel=1e-5)
    softplus = GrokConfig(**TINY, quantile_param="cumulative_softplus", order_penalty=2.0)
    assert training_loss(softplus, {"quantiles": more}, zero) == without


@pytest.mark.requirement("DATA-4")
def test_masked_horizons_take_no_part():
    quantiles, returns = sample()
    quantiles.requires_grad_()
    masked = torch.where(KEEP, returns, torch.nan)
    config = GrokConfig(**TINY, order_penalty=0.0)
    loss = training_loss(config, {"quantiles": quantiles}, masked)
    weights = torch.tensor(horizon_weights("minutes"))
    expected = (pinball(returns, quantiles).sum(-1) * weights * KEEP).sum(1).mean() / UNIT
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (quantiles.grad[:, 3:] == 0).all()
    assert quantiles.grad.isfinite().all()
    deviation = torch.tensor([1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3])
    own = reference_loss(quantiles, masked, deviation)
    one_by_one = pinball(returns, quantiles.sort(-1).values).mean(-1) / deviation
    torch.testing.assert_close(own, one_by_one[:, :3].mean(1))


@pytest.mark.requirement("LOSS-11")
def test_the_reference_does_not_know_how_a_trial_trains():
    quantiles, returns = sample()
    deviation = returns.std(0)
    own = reference_loss(quantiles, returns, deviation)
    crossed = quantiles.flip(-1)
    torch.testing.assert_close(reference_loss(crossed, returns, deviation), own)
    losses = {
        float(training_loss(GrokConfig(**TINY, **fields), {"quantiles": quantiles}, returns))
        for fields in ({}, {"horizon_weight": "index"}, {"order_penalty": 5.0}, {"return_unit": 1.0})
    }
    assert len(losses) == 4
    torch.testing.assert_close(reference_loss(7 * quantiles, 7 * returns, 7 * deviation), own)


def trained(ratio, **fields):
    torch.manual_seed(0)
    config = GrokConfig(**TINY, teacher_forcing_ratio=ratio, **fields)
    net = GrokModel(config, (*NQ, *CONTEXT)).train()
    windows = torch.randn(16, 8, 24 + len(CONTEXT))
    windows[..., -1], windows[..., -3] = 1, 2
    return config, net, windows


@pytest.mark.requirement("GROK-13")
@pytest.mark.requirement("C-7")
def test_teacher_forcing_shows_the_true_shorter_return():
    config, net, windows = trained(1.0)
    returns = torch.randn(16, 6) * 1e-3
    outputs = net(windows)
    loss = training_loss(config, outputs, returns)
    changed = returns.clone()
    changed[:, 0] += 1e-3
    taught = [_quantiles(config, outputs, r) for r in (returns, changed)]
    assert torch.equal(taught[0][:, 0], taught[1][:, 0])
    assert not torch.allclose(taught[0][:, 1], taught[1][:, 1])
    own = outputs["quantiles"][:, :, MEDIAN].detach()
    torch.testing.assert_close(_quantiles(config, outputs, own), outputs["quantiles"], rtol=1e-4, atol=1e-8)
    missing = _quantiles(config, outputs, torch.full((16, 6), torch.nan))
    torch.testing.assert_close(missing, outputs["quantiles"], rtol=1e-5, atol=1e-9)
    loss.backward()
    assert net.heads.chain_weight.grad.abs().sum() > 0


def _quantiles(config, outputs, returns):
    from trainables.grok.losses import _taught

    return _taught(config, outputs, returns)


@pytest.mark.requirement("GROK-13")
def test_a_ratio_teaches_that_share_of_the_rows():
    config, net, windows = trained(0.3)
    windows = windows.repeat(200, 1, 1)
    outputs = net(windows)
    torch.manual_seed(1)
    taught = _quantiles(config, outputs, torch.full((3200, 6), 0.01))
    share = (taught[:, 1] != outputs["quantiles"][:, 1]).any(-1).float().mean()
    assert share == pytest.approx(0.3, abs=0.03)


@pytest.mark.requirement("C-7")
def test_teacher_forcing_narrows_the_intervals_of_a_random_walk():
    """Trained on true shorter returns, the 15-minute head covers 10 minutes' noise: 82 % of a nominal 90 % (C-7)."""
    from scipy.stats import norm

    assert 2 * norm.cdf(1.6449 * np.sqrt(10 / 15)) - 1 == pytest.approx(0.82, abs=0.002)
    assert 2 * norm.cdf(1.6449 * np.sqrt(1 / 2)) - 1 == pytest.approx(0.755, abs=0.002)
