"""Losses of the grok family (LOSS-1 to LOSS-3) and the reference loss that trials are compared by (LOSS-11).

A horizon that is masked, its target NaN, takes no part (DATA-4). Everything is written in operations that have second
derivatives almost everywhere: the curvature of the loss is measured. Letters: B batch, H horizons, Q quantile levels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables.grok.config import HORIZON_MINUTES, LEVELS, GrokConfig
from trainables.grok.heads import quantile_chain
from trainables.grok.model import Outputs

MINUTES_PER_HOUR = 60.0


def pinball(target_BH: Tensor, quantiles_BHQ: Tensor) -> Tensor:
    """Return u (tau - 1[u < 0]) with u = target - quantile, (B, H, Q) (LOSS-1; Koenker & Bassett 1978)."""
    error_BHQ = target_BH.unsqueeze(-1) - quantiles_BHQ
    level_Q = error_BHQ.new_tensor(LEVELS)
    return torch.maximum(level_Q * error_BHQ, (level_Q - 1.0) * error_BHQ)


def horizon_weights(unit: str) -> tuple[float, ...]:
    """Return 1/log(h + 1) for each horizon h in minutes, in hours or by its number; or ones (LOSS-2, C-45)."""
    if unit == "uniform":
        return (1.0,) * len(HORIZON_MINUTES)
    counts = {
        "minutes": [float(minutes) for minutes in HORIZON_MINUTES],
        "hours": [minutes / MINUTES_PER_HOUR for minutes in HORIZON_MINUTES],
        "index": [float(place + 1) for place in range(len(HORIZON_MINUTES))],
    }[unit]
    return tuple(1.0 / math.log1p(count) for count in counts)


def crossing(quantiles: Tensor) -> Tensor:
    """Return the sum over neighbours of what a lower quantile exceeds the next one by, (...,) (LOSS-3)."""
    return (quantiles[..., :-1] - quantiles[..., 1:]).clamp_min(0.0).sum(-1)


def training_loss(config: GrokConfig, outputs: Outputs, returns_BH: Tensor) -> Tensor:
    """Return the scalar that training minimises: weighted pinball and order penalty, mean over rows, in `return_unit`.

    Args:
        config: The trial's config.
        outputs: Of the model.
        returns_BH: Realised log-returns; NaN where masked.
    """
    is_known_BH = returns_BH.isfinite()
    known_BH = returns_BH.nan_to_num(0.0)
    quantiles_BHQ = _taught(config, outputs, returns_BH)
    weight_BH = is_known_BH * quantiles_BHQ.new_tensor(horizon_weights(config.horizon_weight))
    total_BH = weight_BH * pinball(known_BH, quantiles_BHQ).sum(-1)
    if config.quantile_param == "free" and config.order_penalty > 0:
        total_BH = total_BH + config.order_penalty * crossing(quantiles_BHQ)
    return total_BH.sum(1).mean() / config.return_unit


def _taught(config: GrokConfig, outputs: Outputs, returns_BH: Tensor) -> Tensor:
    """Return the quantiles; those of rows drawn for teacher forcing anew, from the true shorter returns (GROK-13)."""
    if "heads" not in outputs:
        return outputs["quantiles"]
    scale_BH = outputs["scale"]
    is_taught_B1 = torch.rand(len(returns_BH), 1, device=returns_BH.device) < config.teacher_forcing_ratio
    taught_BH = torch.where(is_taught_B1, returns_BH / scale_BH, torch.nan)
    return quantile_chain(config, outputs["heads"], outputs["state"], taught_BH=taught_BH) * scale_BH.unsqueeze(-1)


def reference_loss(quantiles_BHQ: Tensor, returns_BH: Tensor, deviation_H: Tensor) -> Tensor:
    """Return (B,): mean over known horizons of the mean pinball of the sorted quantiles, in training deviations.

    It knows nothing of how a trial trains (LOSS-11). A row without any known horizon gives NaN; no such row is scored.

    Args:
        quantiles_BHQ: Forecasts, log-returns; sorted here, as at any evaluation (GROK-12).
        returns_BH: Realised log-returns; NaN where masked.
        deviation_H: Standard deviation of each horizon's return in the training rows of the fold.
    """
    is_known_BH = returns_BH.isfinite()
    sorted_BHQ = quantiles_BHQ.sort(-1).values
    loss_BH = pinball(returns_BH.nan_to_num(0.0), sorted_BHQ).mean(-1) / deviation_H
    return (loss_BH * is_known_BH).sum(1) / is_known_BH.sum(1)
