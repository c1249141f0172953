"""Losses of the scalper family (LOSS-10) and the reference loss that trials are compared by (LOSS-11).

The reference is the cross-entropy in nats of the direction, whatever a trial is trained on: a regression says its
classes by a normal distribution with the deviation of the training moves, a policy by the probability of its actions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainables.scalper.config import CLASSES, ScalperConfig
from trainables.scalper.labels import NAMES
from trainables.scalper.model import Outputs

DIRECTION, EXITS, MOVE, VOLATILITY = (
    NAMES.index("direction"),
    slice(NAMES.index("exit_long"), NAMES.index("exit_short") + 1),
    NAMES.index("move_ticks"),
    NAMES.index("volatility_ticks"),
)
SMALLEST = 1e-12
"""Least probability that a regression gives a class, so that its loss stays finite."""


def training_loss(config: ScalperConfig, outputs: Outputs, targets_BK: Tensor) -> Tensor:
    """Return the scalar that the approach minimises (SCALP-5, SCALP-6)."""
    if config.approach == "regression":
        return move_loss(config, outputs["move"], targets_BK[:, MOVE]).mean()
    if config.approach == "rl":
        return policy_loss(config, outputs["direction"], targets_BK[:, MOVE]).mean()
    total = direction_loss(config, outputs["direction"], targets_BK[:, DIRECTION].long()).mean()
    if config.approach == "hybrid":
        total = total + config.w_volatility * volatility_loss(config, outputs, targets_BK).mean()
        total = total + config.w_exit * exit_loss(outputs["exit"], targets_BK[:, EXITS]).mean()
    return total


def reference_loss(config: ScalperConfig, outputs: Outputs, targets_BK: Tensor) -> Tensor:
    """Return the cross-entropy in nats of the direction, (B,); ln 3 for equal probabilities (LOSS-11)."""
    direction_B = targets_BK[:, DIRECTION].long()
    if "direction" in outputs:
        return functional.cross_entropy(outputs["direction"], direction_B, reduction="none")
    chosen_B1 = class_probabilities(config, outputs).gather(1, direction_B[:, None])
    return -chosen_B1.squeeze(1).clamp_min(SMALLEST).log()


def class_probabilities(config: ScalperConfig, outputs: Outputs) -> Tensor:
    """Return the probabilities of down, flat and up, (B, 3)."""
    if "direction" in outputs:
        return outputs["direction"].softmax(-1)
    scale = config.move_scale_ticks or 1.0
    edge = config.ticks_x / scale
    down_B, up_B = torch.special.ndtr(-edge - outputs["move"]), torch.special.ndtr(outputs["move"] - edge)
    return torch.stack([down_B, 1 - down_B - up_B, up_B], dim=-1)


def class_weights(counts: tuple[int, int, int] | None) -> tuple[float, ...]:
    """Return n / (K n_c) of each class, so that classes weigh alike (LOSS-10); 0 for one that does not occur."""
    if counts is None:
        return (1.0,) * len(CLASSES)
    return tuple(sum(counts) / (len(counts) * n) if n else 0.0 for n in counts)


def direction_loss(config: ScalperConfig, logits_B3: Tensor, direction_B: Tensor) -> Tensor:
    """Return cross-entropy, weighted by class or focused on hard rows, (B,) (LOSS-10).

    Its mean over a fold's training rows is not moved by the weights: they have mean 1 there.
    """
    if config.imbalance == "focal":
        return focal_loss(logits_B3, direction_B, config.focal_gamma)
    loss_B = functional.cross_entropy(logits_B3, direction_B, reduction="none")
    if config.imbalance != "weights":
        return loss_B
    return loss_B * loss_B.new_tensor(class_weights(config.class_counts))[direction_B]


def focal_loss(logits_BC: Tensor, class_B: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p of the true class, (B,). Source: Lin et al. (2017), equation 4."""
    log_p_B = logits_BC.log_softmax(-1).gather(1, class_B[:, None]).squeeze(1)
    return -((1 - log_p_B.exp()).clamp_min(SMALLEST) ** gamma) * log_p_B


def move_loss(config: ScalperConfig, move_B: Tensor, move_ticks_B: Tensor) -> Tensor:
    """Return the squared error of the move in training standard deviations, (B,) (LOSS-10)."""
    return (move_B - move_ticks_B / (config.move_scale_ticks or 1.0)).square()


def policy_loss(config: ScalperConfig, logits_B3: Tensor, move_ticks_B: Tensor) -> Tensor:
    """Return minus the expected reward of one step of sell, hold or buy, (B,) (SCALP-5).

    The reward is the move in the direction taken less the cost, in training standard deviations; holding earns nothing.
    The expectation over the three actions is exact, so its gradient is the policy gradient without sampling noise
    (Williams 1992, summed over actions).
    """
    hold_B = torch.zeros_like(move_ticks_B)
    reward_B3 = torch.stack([-move_ticks_B - config.cost_ticks, hold_B, move_ticks_B - config.cost_ticks], dim=-1)
    return -(logits_B3.softmax(-1) * reward_B3).sum(-1) / (config.move_scale_ticks or 1.0)


def volatility_loss(config: ScalperConfig, outputs: Outputs, targets_BK: Tensor) -> Tensor:
    """Return the squared error of the volatility over its training mean, (B,)."""
    return (outputs["volatility"] - targets_BK[:, VOLATILITY] / (config.volatility_scale_ticks or 1.0)).square()


def exit_loss(logits_B2: Tensor, leave_B2: Tensor) -> Tensor:
    """Return the cross-entropy in nats of leaving, mean of both sides, (B,)."""
    return functional.binary_cross_entropy_with_logits(logits_B2, leave_B2, reduction="none").mean(-1)
