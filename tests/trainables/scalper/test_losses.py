"""LOSS-10 and LOSS-11 by somebody else's numbers."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import norm

from trainables.scalper.config import ScalperConfig
from trainables.scalper.labels import NAMES
from trainables.scalper.losses import (
    class_probabilities,
    class_weights,
    direction_loss,
    focal_loss,
    policy_loss,
    reference_loss,
    training_loss,
)
from trainables.scalper.model import ScalperModel


def targets(direction, move=None, volatility=None, leave=None):
    direction = torch.as_tensor(direction, dtype=torch.float32)
    table = torch.zeros(len(direction), len(NAMES))
    table[:, NAMES.index("direction")] = direction
    table[:, NAMES.index("move_ticks")] = 3 * (direction - 1) if move is None else torch.as_tensor(move)
    table[:, NAMES.index("volatility_ticks")] = 2.0 if volatility is None else torch.as_tensor(volatility)
    if leave is not None:
        table[:, NAMES.index("exit_long") : NAMES.index("exit_short") + 1] = torch.as_tensor(leave)
    return table


LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-2.0, 1.0, 4.0], [1.0, 1.0, 1.0]])
TRUE = torch.tensor([0, 1, 0, 2])


@pytest.mark.requirement("LOSS-10")
def test_weights_of_the_document():
    assert class_weights((80, 10, 10)) == pytest.approx((0.4167, 3.3333, 3.3333), abs=1e-4)
    assert class_weights((5, 0, 5)) == pytest.approx((2 / 3, 0.0, 2 / 3))
    counts, weights = np.array([80, 10, 10]), np.array(class_weights((80, 10, 10)))
    assert (counts * weights).sum() / counts.sum() == pytest.approx(1.0)


@pytest.mark.requirement("LOSS-10")
def test_weighted_loss_is_cross_entropy_times_the_weight_of_the_class():
    plain = -log_softmax(LOGITS.double().numpy(), axis=1)[np.arange(4), TRUE.numpy()]
    none = direction_loss(ScalperConfig(imbalance="none"), LOGITS, TRUE)
    weighted = direction_loss(ScalperConfig(class_counts=(80, 10, 10)), LOGITS, TRUE)
    np.testing.assert_allclose(none, plain, rtol=1e-6)
    np.testing.assert_allclose(weighted, plain * np.array(class_weights((80, 10, 10)))[TRUE.numpy()], rtol=1e-6)


@pytest.mark.requirement("LOSS-10")
def test_focal_loss_is_cross_entropy_without_focus_and_falls_with_confidence():
    p = torch.softmax(LOGITS, -1)[torch.arange(4), TRUE]
    torch.testing.assert_close(focal_loss(LOGITS, TRUE, 0.0), -p.log())
    torch.testing.assert_close(focal_loss(LOGITS, TRUE, 2.0), -((1 - p) ** 2) * p.log())


@pytest.mark.requirement("LOSS-11")
@pytest.mark.requirement("SCALP-4")
def test_reference_is_cross_entropy_of_logits_in_nats_whatever_is_trained():
    expected = -log_softmax(LOGITS.double().numpy(), axis=1)[np.arange(4), TRUE.numpy()]
    for config in (
        ScalperConfig(),
        ScalperConfig(imbalance="focal", focal_gamma=5.0, w_exit=7.0),
        ScalperConfig(approach="rl", cost_ticks=3.0, class_counts=(80, 10, 10)),
    ):
        np.testing.assert_allclose(reference_loss(config, {"direction": LOGITS}, targets(TRUE)), expected, rtol=1e-6)
    assert class_probabilities(ScalperConfig(), {"direction": LOGITS}).sum(-1).numpy() == pytest.approx(np.ones(4))
    assert reference_loss(ScalperConfig(), {"direction": torch.zeros(1, 3)}, targets([1])).item() == pytest.approx(
        math.log(3)
    )


@pytest.mark.requirement("LOSS-11")
def test_a_regression_says_its_classes_by_a_normal_distribution():
    config = ScalperConfig(approach="regression", ticks_x=2, move_scale_ticks=4.0)
    move = torch.tensor([-1.5, 0.0, 0.7])
    found = class_probabilities(config, {"move": move}).numpy()
    mean = 4.0 * move.numpy()
    expected = np.stack([norm.cdf(-2, mean, 4), norm.cdf(2, mean, 4) - norm.cdf(-2, mean, 4), norm.sf(2, mean, 4)], 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    loss = reference_loss(config, {"move": move}, targets([0, 1, 2]))
    np.testing.assert_allclose(loss, -np.log(expected[[0, 1, 2], [0, 1, 2]]), rtol=1e-5)


@pytest.mark.requirement("SCALP-5")
def test_the_reward_of_a_policy_is_the_move_taken_net_of_cost():
    config = ScalperConfig(approach="rl", cost_ticks=1.0, move_scale_ticks=2.0)
    sure = 50.0 * torch.eye(3)
    move = torch.full((3,), 5.0)
    assert policy_loss(config, sure, move).tolist() == pytest.approx([3.0, 0.0, -2.0])
    logits = torch.zeros(1, 3, requires_grad=True)
    policy_loss(config, logits, torch.tensor([0.5])).backward()
    assert logits.grad.argmin() == 1  # a move below the cost is not worth a trade


@pytest.mark.requirement("SCALP-5")
@pytest.mark.parametrize("approach", ["classification", "regression", "rl", "hybrid"])
@pytest.mark.parametrize("arch", ["ffn", "lstm", "gru", "transformer"])
def test_each_approach_trains_a_step(arch, approach):
    config = ScalperConfig(arch=arch, approach=approach, seq_len=5, dropout=0.0)
    torch.manual_seed(0)
    model = ScalperModel(config, 4)
    windows, wanted = torch.randn(32, config.lookback, 4), targets(torch.arange(32) % 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = training_loss(config, model(windows), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.requirement("SCALP-6")
def test_three_losses_fall_on_separable_data():
    config = ScalperConfig(dropout=0.0, imbalance="none", volatility_scale_ticks=2.0, hidden="128-64-32")
    torch.manual_seed(1)
    features = torch.randn(256, 1, 3)
    direction = 1.0 + features[:, 0, 0].sign()
    wanted = targets(
        direction,
        volatility=features[:, 0, 1].abs() + 1,
        leave=(features[:, 0, 2:] * torch.tensor([1.0, -1.0]) > 0).float(),
    )
    model = ScalperModel(config, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def parts():
        heads = {"direction": (0, 0), "volatility": (1, 0), "exit": (0, 1)}
        outputs, found = model(features), {}
        base = training_loss(config.model_copy(update={"w_volatility": 0.0, "w_exit": 0.0}), outputs, wanted).item()
        for name, (volatility, leave) in heads.items():
            only = config.model_copy(update={"w_volatility": float(volatility), "w_exit": float(leave)})
            found[name] = training_loss(only, outputs, wanted).item() - (0 if name == "direction" else base)
        return found

    before = parts()
    for _ in range(60):
        optimizer.zero_grad()
        training_loss(config, model(features), wanted).backward()
        optimizer.step()
    after = parts()
    assert all(after[name] < 0.5 * before[name] for name in before), (before, after)
