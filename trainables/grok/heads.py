"""Quantile heads of the six horizons, chained from short to long (GROK-12, GROK-13).

Letters: B batch, D width, H horizons, Q quantile levels, W hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.grok.config import LEVELS, MEDIAN, GrokConfig
from trainables.grok.sizes import N_HORIZONS, N_LEVELS, head_width

FIRST_WEIGHT_STD = 0.02


class QuantileHeads(nn.Module):
    """A network of one hidden layer per horizon; starts as the quantiles of a standard normal.

    Args:
        config: Width, parametrisation, and whether horizons are chained.
    """

    def __init__(self, config: GrokConfig) -> None:
        super().__init__()
        d, width = config.d_model, head_width(config)
        self.config = config
        bound = 1 / math.sqrt(d)
        self.hidden_weight = nn.Parameter(torch.empty(N_HORIZONS, width, d).uniform_(-bound, bound))
        self.hidden_bias = nn.Parameter(torch.zeros(N_HORIZONS, width))
        self.weight = nn.Parameter(FIRST_WEIGHT_STD * torch.randn(N_HORIZONS, N_LEVELS, width))
        self.bias = nn.Parameter(_first_bias(config).repeat(N_HORIZONS, 1))
        if config.heads == "autoregressive":
            self.chain_weight = nn.Parameter(FIRST_WEIGHT_STD * torch.randn(N_HORIZONS - 1, d))
            self.chain_bias = nn.Parameter(torch.zeros(N_HORIZONS - 1, d))

    def forward(self, state_BD: Tensor) -> Tensor:
        """Return (B, H, Q) in units of each horizon's scale, each head seeing the medians of the shorter ones.

        Medians are cut from the gradient in training, so that a head learns its own horizon only. Not in evaluation,
        where the curvature of the loss is measured, which a cut gradient would falsify.
        """
        return quantile_chain(self.config, dict(self.named_parameters()), state_BD, is_cut=self.training)


def quantile_chain(
    config: GrokConfig,
    weights: Mapping[str, Tensor],
    state_BD: Tensor,
    *,
    is_cut: bool = True,
    taught_BH: Tensor | None = None,
) -> Tensor:
    """Apply the heads given by their parameters: a loss function has them where it has no module.

    Args:
        config: The trial's config.
        weights: Parameters of `QuantileHeads` by name.
        state_BD: State of the encoder.
        is_cut: Keep the gradient of a horizon's loss out of the shorter horizons' heads.
        taught_BH: What a longer horizon sees in place of the median, in units of the scale; NaN: the median (C-7).

    Returns:
        (B, H, Q) in units of each horizon's scale.
    """
    found = []
    for horizon in range(N_HORIZONS):
        hidden = functional.linear(state_BD, weights["hidden_weight"][horizon], weights["hidden_bias"][horizon])
        raw = functional.linear(functional.gelu(hidden), weights["weight"][horizon], weights["bias"][horizon])
        found.append(_quantiles(config, raw))
        if config.heads == "autoregressive" and horizon + 1 < N_HORIZONS:
            shorter_B = found[-1][:, MEDIAN].detach() if is_cut else found[-1][:, MEDIAN]
            if taught_BH is not None:
                shorter_B = torch.where(taught_BH[:, horizon].isnan(), shorter_B, taught_BH[:, horizon])
            shorter_B1 = shorter_B.unsqueeze(1).to(state_BD.dtype)
            state_BD = state_BD + shorter_B1 * weights["chain_weight"][horizon] + weights["chain_bias"][horizon]
    return torch.stack(found, dim=1)


def _quantiles(config: GrokConfig, raw_BQ: Tensor) -> Tensor:
    """Return seven free numbers, or a median and what lies above and below it by positive steps."""
    if config.quantile_param == "free":
        return raw_BQ
    below, median, above = raw_BQ.split([MEDIAN, 1, N_LEVELS - 1 - MEDIAN], dim=-1)
    falls = functional.softplus(below).flip(-1).cumsum(-1).flip(-1)
    return torch.cat([median - falls, median, median + functional.softplus(above).cumsum(-1)], dim=-1)


def _first_bias(config: GrokConfig) -> Tensor:
    """Return the biases that give the quantiles of a standard normal."""
    normal_Q = torch.special.ndtri(torch.tensor(LEVELS))
    if config.quantile_param == "free":
        return normal_Q
    steps = normal_Q.diff().expm1().log()  # the inverse of softplus
    return torch.cat([steps[:MEDIAN], torch.zeros(1), steps[MEDIAN:]])
