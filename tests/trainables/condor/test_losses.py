"""Losses against the specification's hand examples, PyTorch, SciPy and scoringrules."""

import math

import numpy as np
import pytest
import scoringrules
import torch
import torch.nn.functional as functional
from scipy.stats import norm

from trainables.condor.config import POLICY_RANGES, CondorConfig
from trainables.condor.losses import (
    CompositeCondorLoss,
    Targets,
    balance_loss,
    base_loss,
    combine_base,
    composite_loss,
    condor_return,
    diffusion_loss,
    drawdown,
    feature_loss,
    forecast_loss,
    gaussian_crps,
    head_losses,
    huber,
    policy_errors,
    reference_loss,
    regime_accuracy,
    sharpe,
    target_names,
    training_loss,
    trajectory_loss,
    turnover,
)
from trainables.condor.model import CondorModel, trajectory_scale

TINY = {
    "d_model": 8,
    "n_layers": 1,
    "headdim": 4,
    "d_state": 2,
    "lookback": 5,
    "gru_hidden": 4,
    "trajectory_sessions": 3,
}


def some_policy(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([(low, high) for _, low, high in POLICY_RANGES]).T
    return low + (high - low) * torch.rand(n, 8, generator=generator)


def some_outputs(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "policy": some_policy(n, seed),
        "regime_logits": torch.randn(n, 3, generator=generator),
        "mu": 0.01 * torch.randn(n, 4, generator=generator),
        "sigma": 0.01 + 0.01 * torch.rand(n, 4, generator=generator),
        "p_up_logits": torch.randn(n, 4, generator=generator),
    }


def some_targets(n, seed=5):
    generator = torch.Generator().manual_seed(seed)
    regime = torch.randint(3, (n, 1), generator=generator).float()
    returns = 0.02 * torch.randn(n, 4, generator=generator)
    rest = torch.cat([regime, 5 + torch.rand(n, 1, generator=generator), torch.randn(n, 1, generator=generator)], dim=1)
    volatility = torch.full((n, 1), 0.01)
    return torch.cat([some_policy(n, seed), regime, returns, rest, volatility], dim=1)


@pytest.mark.requirement("LOSS-4")
@pytest.mark.parametrize(("weighting", "expected"), [("documented", 0.8793), ("lambda_risk", 0.8743)])
def test_hand_example_of_the_base_loss(weighting, expected):
    error = torch.tensor([[0.5] * 4 + [0.1] * 4])
    found = combine_base(CondorConfig(risk_weighting=weighting), error, torch.tensor([math.log(3)]))
    assert found.item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.requirement("LOSS-4")
@pytest.mark.parametrize("delta", [0.3, 1.0, 4.0])
def test_huber_is_that_of_torch(delta):
    error = torch.linspace(-5, 5, 101)
    expected = functional.huber_loss(error, torch.zeros(101), delta=delta, reduction="none")
    torch.testing.assert_close(huber(error, delta), expected)


@pytest.mark.requirement("LOSS-4")
def test_every_weight_acts_on_its_term_alone():
    error, entropy = torch.full((1, 8), 0.5), torch.tensor([1.0])
    off = {"lambda_stk": 0.0, "lambda_reg": 0.0, "lambda_pnl": 0.0, "lambda_risk": 0.0}
    parts = {"lambda_stk": 0.5 * 4 * 0.125, "lambda_reg": 1.0, "lambda_pnl": 3 * 0.25, "lambda_risk": 0.25}
    for name, expected in parts.items():
        found = combine_base(CondorConfig(**{**off, name: 1.0}), error, entropy)
        assert found.item() == pytest.approx(expected)


@pytest.mark.requirement("LOSS-4")
def test_huber_on_the_risk_outputs_is_an_option():
    error, entropy = torch.tensor([[0.0] * 4 + [2.0] * 4]), torch.zeros(1)
    squares = combine_base(CondorConfig(), error, entropy)
    hubers = combine_base(CondorConfig(risk_loss="huber"), error, entropy)
    assert squares.item() == pytest.approx((2 * 3 + 1.5) * 4)
    assert hubers.item() == pytest.approx((2 * 3 + 1.5) * 1.5)


@pytest.mark.requirement("LOSS-5")
def test_errors_are_shares_of_the_range_or_native():
    target = some_policy(1)
    target[0, 5] = 0.3
    span = torch.tensor([high - low for _, low, high in POLICY_RANGES])
    policy = target + span
    policy[0, 7] = 1.0
    scaled = policy_errors(CondorConfig(), policy, target)
    torch.testing.assert_close(scaled[0, :7], torch.ones(7))
    native = policy_errors(CondorConfig(target_scaling="none_documented"), policy, target)
    torch.testing.assert_close(native[0, :7], span[:7])


@pytest.mark.requirement("LOSS-4")
@pytest.mark.parametrize(("predicted", "realised", "target"), [(0.2, 0.5, 1), (-0.2, -0.5, 1), (0.2, -0.5, 0)])
def test_confidence_should_say_whether_the_sign_was_right(predicted, realised, target):
    policy, truth = some_policy(1).requires_grad_(), some_policy(1, seed=2)
    with torch.no_grad():
        policy[0, 5], truth[0, 5] = predicted, realised
    error = policy_errors(CondorConfig(), policy, truth)
    assert error[0, 7].item() == pytest.approx(policy[0, 7].item() - target)
    error[0, 7].backward()
    assert policy.grad[0].nonzero().flatten().tolist() == [7]


def test_confidence_from_entropy_is_not_trained_but_is_scored():
    config = CondorConfig(confidence_source="entropy_norm")
    outputs, targets = some_outputs(4), Targets.split(config, some_targets(4))
    changed = {**outputs, "policy": torch.cat([outputs["policy"][:, :7], torch.zeros(4, 1)], dim=1)}
    torch.testing.assert_close(base_loss(config, outputs, targets), base_loss(config, changed, targets))
    assert not torch.allclose(reference_loss(outputs, targets), reference_loss(changed, targets))


@pytest.mark.requirement("LOSS-11")
def test_reference_is_the_base_loss_with_defaults_whatever_a_trial_trains_with():
    outputs, columns = some_outputs(6), some_targets(6)
    config = CondorConfig(
        lambda_stk=9.0,
        lambda_reg=3.0,
        lambda_pnl=0.2,
        lambda_risk=7.0,
        huber_delta=0.1,
        target_scaling="none_documented",
    )
    trained, default = Targets.split(config, columns), Targets.split(CondorConfig(), columns)
    assert not torch.allclose(base_loss(config, outputs, trained), base_loss(CondorConfig(), outputs, default))
    torch.testing.assert_close(reference_loss(outputs, trained), base_loss(CondorConfig(), outputs, default))


@pytest.mark.requirement("LOSS-11")
def test_reference_loss_by_hand():
    outputs, columns = some_outputs(3), some_targets(3)
    span = np.array([high - low for _, low, high in POLICY_RANGES])
    policy, truth = outputs["policy"].double().numpy(), columns[:, :8].double().numpy()
    truth[:, 7] = np.sign(policy[:, 5]) == np.sign(truth[:, 5])
    error = (policy - truth) / span
    logits = outputs["regime_logits"].double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    entropy = -log_p[np.arange(3), columns[:, 8].long().numpy()]
    expected = 0.5 * (0.5 * error[:, :4] ** 2).sum(1) + 0.5 * entropy + (error[:, 4:] ** 2) @ [2.0, 2.0, 1.5, 2.0]
    found = reference_loss(outputs, Targets.split(CondorConfig(), columns))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.requirement("LOSS-6")
def test_constant_returns_have_a_sharpe_bounded_by_epsilon():
    assert sharpe(torch.full((2, 10), 0.01), 1e-6).tolist() == pytest.approx([10.0, 10.0], rel=1e-3)
    returns = torch.randn(1, 500, generator=torch.Generator().manual_seed(0))
    expected = returns.numpy().mean() / returns.numpy().std()
    assert sharpe(returns, 1e-12).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.requirement("LOSS-6")
def test_drawdown_of_the_specification():
    equity = torch.tensor([[1.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    torch.testing.assert_close(drawdown(equity), torch.tensor([1 / 3, 0.0]))


@pytest.mark.requirement("LOSS-6")
def test_turnover_of_a_constant_is_nothing():
    assert turnover(torch.ones(2, 5, 8)).tolist() == [0.0, 0.0]
    steps = torch.zeros(1, 3, 8)
    steps[0, 1] = 0.5
    assert turnover(steps).item() == pytest.approx(4.0)


@pytest.mark.requirement("LOSS-6")
def test_condor_return_is_the_payoff_of_the_condor():
    """Credit by numerical integration over a normal move, payoff by hand, corners rounded by little."""
    policy = torch.tensor([[1.0, 1.5, 8.0, 30.0, 0.5, 0.1, 0.1, 0.5]], dtype=torch.float64)
    z = np.linspace(-12, 12, 240_001)
    density = norm.pdf(z) * (z[1] - z[0])
    width = 8.0 / 4.0
    credit = (np.clip(z - 1.0, 0, width) * density).sum() + (np.clip(-z - 1.5, 0, width) * density).sum()
    for move in (-6.0, -2.0, 0.0, 1.8, 5.0):
        paid = np.clip(move - 1.0, 0, width) + np.clip(-move - 1.5, 0, width)
        move_1, sigma_1 = torch.tensor([move], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
        found = condor_return(policy, move_1, sigma_1, smoothing=1e-3)
        assert found.item() == pytest.approx((credit - paid) / (width - credit), abs=2e-3)


@pytest.mark.requirement("LOSS-6")
def test_higher_returns_lower_the_composite_loss():
    config = CondorConfig()
    policy = torch.tensor([1.0, 1.0, 8.0, 30.0, 0.7, 0.2, 0.2, 0.5]).expand(2, 4, 8)
    sigma = torch.full((2, 4), 5.0)
    loss, moves = CompositeCondorLoss(config), torch.tensor([[0.0, 1.5, -1.3, 0.2]] * 2)
    returns = [condor_return(policy, m, sigma, config.payoff_smoothing).mean() for m in (moves, 1.5 * moves)]
    assert returns[0] > returns[1]
    assert loss(policy, policy, moves, sigma) < loss(policy, policy, 1.5 * moves, sigma)


@pytest.mark.requirement("LOSS-6")
def test_composite_is_the_sum_of_its_terms():
    policy, target = some_policy(8).view(2, 4, 8), some_policy(8, seed=3).view(2, 4, 8)
    move, sigma = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.full((2, 4), 5.0)
    off = {f"lambda{i}": 0.0 for i in (1, 2, 3, 4)}
    config = CondorConfig()
    alone = [
        CompositeCondorLoss(CondorConfig(**{**off, f"lambda{i}": 1.0}))(policy, target, move, sigma)
        for i in (1, 2, 3, 4)
    ]
    found = CompositeCondorLoss(config)(policy, target, move, sigma)
    torch.testing.assert_close(found, 1.0 * alone[0] + 0.3 * alone[1] + 0.1 * alone[2] + 0.05 * alone[3])
    error = policy_errors(config, policy.flatten(0, 1), target.flatten(0, 1))
    torch.testing.assert_close(alone[0], functional.huber_loss(error, torch.zeros_like(error)))
    assert alone[1] != 0


@pytest.mark.requirement("LOSS-6")
def test_composite_batches_are_whole_chunks():
    config = CondorConfig(seq_per_batch=4)
    targets = Targets.split(config, some_targets(8))
    policy = some_policy(8)
    expected = CompositeCondorLoss(config)(
        policy.view(2, 4, 8), targets.policy.view(2, 4, 8), targets.move.view(2, 4), targets.sigma_atm.view(2, 4)
    )
    torch.testing.assert_close(composite_loss(config, policy, targets), expected)
    with pytest.raises(ValueError, match="chunks of seq_per_batch = 4 rows for composite, found 7"):
        composite_loss(config, policy[:7], Targets.split(config, some_targets(7)))


@pytest.mark.requirement("LOSS-7")
@pytest.mark.parametrize("scale", ["documented", "n_times"])
def test_balance_of_the_specification(scale):
    factor = 3 if scale == "n_times" else 1
    one = torch.tensor([[0.5, 0.3, 0.2]])
    assert balance_loss(one, k=1, alpha=0.01, scale=scale).item() == pytest.approx(0.005 * factor)
    even = torch.tensor([[0.34, 0.33, 0.33], [0.33, 0.34, 0.33], [0.33, 0.33, 0.34]])
    assert balance_loss(even, k=1, alpha=0.01, scale=scale).item() == pytest.approx(factor / 300, rel=1e-5)


@pytest.mark.requirement("LOSS-8")
def test_crps_is_that_of_scoringrules():
    zero, one = torch.zeros(()), torch.ones(())
    assert gaussian_crps(zero, one, zero).item() == pytest.approx(0.2337, abs=5e-5)
    rng = np.random.default_rng(0)
    mu, sigma, value = rng.normal(size=50), rng.uniform(0.01, 3, 50), rng.normal(size=50) * 4
    found = gaussian_crps(*(torch.tensor(each) for each in (mu, sigma, value)))
    np.testing.assert_allclose(found.numpy(), scoringrules.crps_normal(value, mu, sigma), rtol=1e-9, atol=1e-12)


@pytest.mark.requirement("LOSS-8")
@pytest.mark.parametrize("kind", ["crps", "nll"])
def test_forecast_loss_is_score_plus_cross_entropy(kind):
    config, outputs = CondorConfig(forecast_loss=kind), some_outputs(5)
    returns = some_targets(5)[:, 9:13]
    unit = 0.01 * np.sqrt([1, 3, 5, 10])
    mu, sigma, value = (each.double().numpy() / unit for each in (outputs["mu"], outputs["sigma"], returns))
    score = scoringrules.crps_normal(value, mu, sigma) if kind == "crps" else -norm.logpdf(value, mu, sigma)
    rise = functional.binary_cross_entropy_with_logits(outputs["p_up_logits"], (returns > 0).float(), reduction="none")
    expected = (score + rise.double().numpy()).mean(1)
    np.testing.assert_allclose(forecast_loss(config, outputs, returns).numpy(), expected, rtol=1e-4)


@pytest.mark.requirement("LOSS-8")
def test_gradients_of_forecasts_are_finite_in_the_extreme():
    mu, sigma = torch.tensor([50.0, -50.0], requires_grad=True), torch.tensor([1e-4, 1e3], requires_grad=True)
    gaussian_crps(mu, sigma, torch.zeros(2)).sum().backward()
    assert torch.isfinite(mu.grad).all()
    assert torch.isfinite(sigma.grad).all()


@pytest.mark.requirement("LOSS-9")
def test_perfect_paths_and_features_cost_nothing():
    config = CondorConfig(**TINY, trajectory=True, diffusion=True)
    path = torch.rand(4, 3, 4)
    assert trajectory_loss(config, path, path).abs().max() == 0
    assert feature_loss(torch.ones(2, 4), torch.ones(2, 4)).abs().max() == 0
    off_by_unit = path + trajectory_scale(config)
    torch.testing.assert_close(trajectory_loss(config, off_by_unit, path), torch.full((4,), 0.5), atol=1e-4, rtol=0)
    weighted = feature_loss(torch.ones(1, 4), torch.zeros(1, 4))
    assert weighted.item() == pytest.approx(0.5 * (1.0 + 0.7 + 0.5 + 0.2))


@pytest.mark.requirement("LOSS-9")
def test_denoiser_that_always_says_the_truth_costs_nothing():
    config = CondorConfig(**TINY, trajectory=True, diffusion=True)
    head = CondorModel(config, CondorConfig().seen_features()).diffusion
    weights = {name: torch.zeros_like(p) for name, p in head.named_parameters()}
    scale = trajectory_scale(config)
    weights["last.bias"] = torch.full((12,), 0.7)
    outputs = {"trajectory": torch.zeros(5, 3, 4), "state": torch.zeros(5, 8), "denoiser": weights}
    assert diffusion_loss(config, outputs, 0.7 * scale.expand(5, -1, -1)).item() == pytest.approx(0, abs=1e-10)
    assert diffusion_loss(config, outputs, 1.7 * scale.expand(5, -1, -1)).item() == pytest.approx(1, rel=1e-4)


def test_targets_are_taken_apart_by_their_names():
    names = target_names(3)
    columns = torch.arange(len(names)).float().expand(2, -1)
    found = Targets.split(CondorConfig(**TINY, trajectory=True), columns)
    assert [names[int(i)] for i in found.policy[0]] == [name for name, _, _ in POLICY_RANGES]
    assert names[found.regime[0]] == "regime"
    assert [names[int(i)] for i in found.returns[0]] == ["return_1", "return_3", "return_5", "return_10"]
    assert [names[int(c[0])] for c in (found.regime_now, found.sigma_atm, found.move)] == [
        "regime_now",
        "sigma_atm",
        "move",
    ]
    assert names[int(found.path[0, 1, 2])] == "low_2"
    assert Targets.split(CondorConfig(**TINY), columns).path is None
    with pytest.raises(ValueError, match=r"expected \(B, 29\) or wider, found \(2, 16\)"):
        Targets.split(CondorConfig(**TINY, trajectory=True), columns[:, :16])


def test_training_loss_adds_what_is_on():
    outputs, columns = some_outputs(6), some_targets(6)
    config = CondorConfig(w_forecast=0.0)
    plain = training_loss(config, outputs, columns)
    torch.testing.assert_close(plain, base_loss(config, outputs, Targets.split(config, columns)).mean())
    config = CondorConfig(w_forecast=0.7)
    extra = training_loss(config, outputs, columns) - plain
    torch.testing.assert_close(extra, 0.7 * forecast_loss(config, outputs, columns[:, 9:13]).mean())
    topk = CondorConfig(w_forecast=0.0, moe="topk", moe_aux_alpha=0.5)
    outputs["gate"] = torch.tensor([[0.5, 0.3, 0.2]] * 6)
    torch.testing.assert_close(training_loss(topk, outputs, columns) - plain, torch.tensor(0.25))


def test_curvature_of_the_reference_loss_agrees_with_finite_differences():
    config = CondorConfig(**TINY, dropout=0.0, moe="topk")
    torch.manual_seed(0)
    model = CondorModel(config, CondorConfig().seen_features()).double().eval()
    windows, columns = torch.randn(4, 5, 52).double(), some_targets(4).double()
    parameters = list(model.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def gradient(create_graph=False):
        loss = reference_loss(model(windows), Targets.split(config, columns)).mean()
        found = torch.autograd.grad(loss, parameters, create_graph=create_graph, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]

    def gradient_at(shift):
        torch._foreach_add_([p.data for p in parameters], direction, alpha=shift)
        found = gradient()
        torch._foreach_add_([p.data for p in parameters], direction, alpha=-shift)
        return found

    product = sum((g * v).sum() for g, v in zip(gradient(create_graph=True), direction, strict=True))
    exact = torch.autograd.grad(product, parameters, allow_unused=True)
    step = 1e-5
    for e, plus, minus in zip(exact, gradient_at(step), gradient_at(-step), strict=True):
        near = (plus - minus) / (2 * step)
        e = torch.zeros_like(near) if e is None else e
        assert (e - near).abs().max() <= 1e-4 * (1 + near.abs().max())


def test_regime_accuracy_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.1, 0.2]])
    assert regime_accuracy(logits, torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"expected \(B, 3\)"):
        regime_accuracy(torch.zeros(2, 4), torch.tensor([0, 1]))


@pytest.mark.requirement("TRAIN-12")
@pytest.mark.parametrize("risk_loss", ["mse", "huber"])
def test_the_losses_of_the_outputs_add_up_to_the_base_loss(risk_loss):
    config = CondorConfig(risk_loss=risk_loss)
    outputs, targets = some_outputs(50), Targets.split(config, some_targets(50))
    heads = head_losses(config, outputs, targets)
    policy = ["call_offset", "put_offset", "wing_width", "dte", "pop", "roi", "mdd", "confidence"]
    assert list(heads) == [*policy, "regime", "forecast"]
    weights = [config.lambda_stk / 2] * 4 + [config.lambda_pnl] * 2 + [config.lambda_risk, config.lambda_pnl]
    total = sum(w * heads[name] for w, name in zip(weights, policy, strict=True)) + config.lambda_reg * heads["regime"]
    assert total.item() == pytest.approx(base_loss(config, outputs, targets).mean().item(), rel=1e-6)
    assert heads["forecast"].item() == pytest.approx(forecast_loss(config, outputs, targets.returns).mean().item())
