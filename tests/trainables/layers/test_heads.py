"""Heads and experts: ranges, mixtures, paths, diffusion, feature weights."""

import math

import pytest
import torch
from torch import nn

from trainables.layers.diffusion import DiffusionHead, add_noise, denoise, signal_shares
from trainables.layers.experts import SoftMoE, TopKMoE, chosen
from trainables.layers.feature_scaling import FeatureScaling
from trainables.layers.heads import BoundedOutputs, FeatureHead, ForecastHead, entropy, normalised_entropy
from trainables.layers.trajectory import HorizonForecaster


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.requirement("CONDOR-10")
def test_bounded_outputs_stay_inside_for_any_input():
    ranges = [(0.0, 10.0), (7.0, 45.0), (-1.0, 1.0)]
    raw = torch.tensor([[-1e9, 0.0, 0.3], [1e9, -40.0, -1e4], [0.0, 60.0, 1e4]])
    y = BoundedOutputs(ranges)(raw)
    for column, (low, high) in zip(y.T, ranges, strict=True):
        assert column.min() >= low
        assert column.max() <= high
    torch.testing.assert_close(y[0, 2], torch.tanh(torch.tensor(0.3)))
    torch.testing.assert_close(y[2, 0], torch.tensor(5.0))


@pytest.mark.requirement("CONDOR-15")
def test_soft_experts_with_a_certain_gate_are_that_expert_and_else_the_explicit_sum():
    layer, x = SoftMoE(3, 6, 4, 8), torch.randn(5, 6)
    certain = torch.zeros(5, 3)
    certain[:, 1] = 1
    torch.testing.assert_close(layer(x, certain), layer.experts[1](x))
    gate = torch.rand(5, 3).softmax(-1)
    explicit = sum(gate[:, i : i + 1] * expert(x) for i, expert in enumerate(layer.experts))
    torch.testing.assert_close(layer(x, gate), explicit)


@pytest.mark.requirement("CONDOR-20")
def test_top_two_weights_of_the_specification():
    layer = TopKMoE(3, 4, 2, 8, k=2, gate_scale="renormalised_documented")
    weights = layer.weights(torch.tensor([[0.5, 0.3, 0.2]]))
    torch.testing.assert_close(weights, torch.tensor([[0.625, 0.375, 0.0]]))


@pytest.mark.requirement("CONDOR-20")
@pytest.mark.parametrize("gate_scale", ["prob", "renormalised_documented"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_equals_the_explicit_sum(gate_scale, k):
    layer, x, gate = TopKMoE(3, 6, 4, 8, k=k, gate_scale=gate_scale), torch.randn(7, 6), torch.rand(7, 3).softmax(-1)
    weights = layer.weights(gate)
    assert ((weights > 0).sum(-1) == k).all()
    explicit = sum(weights[:, i : i + 1] * expert(x) for i, expert in enumerate(layer.experts))
    torch.testing.assert_close(layer(x, gate), explicit)


@pytest.mark.requirement("CONDOR-20")
@pytest.mark.parametrize(("gate_scale", "learns"), [("prob", True), ("renormalised_documented", False)])
def test_gate_learns_from_one_expert_only_by_its_probability(gate_scale, learns):
    layer, logits = TopKMoE(3, 6, 4, 8, k=1, gate_scale=gate_scale), torch.randn(5, 3, requires_grad=True)
    layer(torch.randn(5, 6), logits.softmax(-1)).square().sum().backward()
    assert (logits.grad.abs().max() > 1e-4) == learns


@pytest.mark.requirement("CONDOR-20")
def test_only_the_chosen_experts_are_evaluated():
    layer, rows = TopKMoE(4, 6, 4, 8, k=2), []
    for number, expert in enumerate(layer.experts):
        expert.register_forward_hook(lambda module, args, output, number=number: rows.append((number, len(args[0]))))
    layer(torch.randn(1, 6), torch.tensor([[0.1, 0.4, 0.2, 0.3]]))
    assert rows == [(1, 1), (3, 1)]
    rows.clear()
    layer(torch.randn(9, 6), torch.rand(9, 4).softmax(-1))
    assert sum(count for _, count in rows) == 18


def test_more_experts_than_there_are_is_refused():
    with pytest.raises(ValueError, match="n_experts = 2, found 3"):
        TopKMoE(2, 4, 2, 8, k=3)


def test_choice_carries_no_gradient_and_takes_the_largest():
    probability = torch.tensor([[0.2, 0.7, 0.1]], requires_grad=True)
    assert chosen(probability, 1).tolist() == [[0.0, 1.0, 0.0]]
    assert not chosen(probability, 1).requires_grad


@pytest.mark.requirement("CONDOR-16")
def test_forecasts_have_positive_deviation_above_the_floor():
    head = ForecastHead(16, (1, 3, 5, 10), unit=0.01, sigma_floor=1e-4)
    found = head(torch.randn(50, 16) * 1000)
    assert [part.shape for part in found] == [(50, 4)] * 3
    assert found.sigma.min() >= 1e-4
    assert ((found.p_up_logits.sigmoid() >= 0) & (found.p_up_logits.sigmoid() <= 1)).all()


@pytest.mark.requirement("CONDOR-16")
def test_unit_one_is_the_documented_head_at_one_session():
    head, h = ForecastHead(4, (1,), unit=1.0, sigma_floor=1e-9), torch.randn(3, 4)
    mu, sigma, _ = (h @ head.linear.weight.T + head.linear.bias).unbind(-1)
    torch.testing.assert_close(head(h).mu[:, 0], mu)
    torch.testing.assert_close(head(h).sigma[:, 0], torch.log1p(sigma.exp()))


def test_an_untrained_forecast_is_of_ordinary_size():
    found = ForecastHead(64, (1, 10), unit=0.01, sigma_floor=1e-4)(torch.randn(500, 64))
    assert found.mu.std(0).tolist() == pytest.approx([0.001, 0.001 * math.sqrt(10)], rel=0.3)
    assert found.sigma.mean(0).tolist() == pytest.approx([0.0069, 0.0069 * math.sqrt(10)], rel=0.1)


@pytest.mark.requirement("CONDOR-14")
def test_entropy_of_uniform_and_certain():
    uniform, certain = torch.full((1, 3), 1 / 3), torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(1 - normalised_entropy(uniform), torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(1 - normalised_entropy(certain), torch.ones(1))
    assert (1 - entropy(uniform)).item() == pytest.approx(-0.0986, abs=1e-4)
    assert (1 - entropy(torch.full((1, 8), 1 / 8))).item() == pytest.approx(-1.079, abs=1e-3)


@pytest.mark.requirement("CONDOR-17")
def test_paths_keep_their_order_and_envelope():
    head = HorizonForecaster(16, sessions=45, hidden=8)
    path = head(torch.randn(20, 16) * 50)
    close, high, low, volatility = path.unbind(-1)
    assert path.shape == (20, 45, 4)
    assert (low <= close).all()
    assert (close <= high).all()
    assert (volatility > 0).all()
    assert close.abs().max() <= 1.0
    with torch.no_grad():
        head.range.bias.fill_(math.log(0.02 / 0.98))
        head.range.weight.zero_()
    assert head(torch.randn(20, 16) * 50)[..., 0].abs().max() <= 0.02 + 1e-6


@pytest.mark.requirement("CONDOR-17")
def test_no_reach_pins_the_path_to_the_spot():
    head = HorizonForecaster(16, sessions=5, hidden=8)
    with torch.no_grad():
        head.range.bias.fill_(-60.0)
    assert head(torch.randn(3, 16))[..., :3].abs().max() < 1e-12


@pytest.mark.requirement("CONDOR-22")
def test_feature_head_gives_four_numbers():
    assert FeatureHead(16)(torch.randn(3, 16)).shape == (3, 4)


@pytest.mark.requirement("CONDOR-21")
def test_noised_targets_have_the_closed_form_moments():
    share, target = torch.tensor([[0.3]]), torch.tensor([[2.0]])
    noisy = add_noise(target, torch.randn(200_000, 1), share)
    assert noisy.mean().item() == pytest.approx(math.sqrt(0.3) * 2, abs=0.01)
    assert noisy.var().item() == pytest.approx(0.7, abs=0.01)


@pytest.mark.requirement("CONDOR-21")
def test_signal_falls_from_nearly_all_to_nearly_none():
    shares = signal_shares(100)
    assert (shares.diff() < 0).all()
    assert shares[0] > 0.999
    assert shares[-1] < 1e-3


@pytest.mark.requirement("CONDOR-21")
def test_diffusion_recovers_two_humps():
    head = DiffusionHead(1, 2, levels=50, hidden=32, time_width=8)
    optimizer, shares = torch.optim.Adam(head.parameters(), lr=5e-3), signal_shares(50)
    for _ in range(400):
        target = torch.where(torch.rand(256, 1) < 0.5, 1.0, -1.0) + 0.05 * torch.randn(256, 1)
        level = torch.randint(50, (256,))
        noisy = add_noise(target, torch.randn_like(target), shares[level, None])
        loss = (head(noisy, level, torch.zeros(256, 2)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    draws = head.sample(torch.zeros(1, 2), n_samples=400, n_steps=20, generator=torch.Generator().manual_seed(1))[0]
    near = ((draws.abs() - 1).abs() < 0.3).float().mean()
    assert near > 0.85
    assert 0.3 < (draws > 0).float().mean() < 0.7


@pytest.mark.requirement("CONDOR-21")
def test_equal_seeds_give_equal_samples_and_others_do_not():
    head, state = DiffusionHead(6, 4, levels=10, hidden=8, time_width=4), torch.randn(3, 4)

    def draw(seed):
        return head.sample(state, n_samples=5, n_steps=4, generator=torch.Generator().manual_seed(seed))

    assert draw(1).shape == (3, 5, 6)
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_denoiser_by_its_parameters_is_the_module():
    head = DiffusionHead(6, 4, levels=10, hidden=8, time_width=4)
    noisy, level, state = torch.randn(3, 6), torch.tensor([0, 4, 9]), torch.randn(3, 4)
    found = denoise(dict(head.named_parameters()), noisy, level, state, 4)
    torch.testing.assert_close(found, head(noisy, level, state))


@pytest.mark.requirement("FEAT-CB-W")
def test_static_features_receive_no_gradient():
    layer, windows = FeatureScaling([2, 0, 3], [2.0, 1.5, 1.0], [True, True, False]), torch.randn(2, 5, 4)
    torch.testing.assert_close(layer(windows), windows[..., [2, 0, 3]] * torch.tensor([2.0, 1.5, 1.0]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(windows).square().sum().backward()
    optimizer.step()
    after = layer.scales()
    assert after[2] == 1.0
    assert (after[:2] != torch.tensor([2.0, 1.5])).all()


def test_fixed_scales_are_no_parameters():
    assert not list(FeatureScaling([0, 1], [2.0, 1.0], [False, False]).parameters())
    assert isinstance(FeatureScaling([0], [1.0], [True]).weight, nn.Parameter)
