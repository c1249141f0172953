"""Heads on the last state: bounded outputs, regime, Gaussian forecasts, next features.

Letters: B batch, D width, H horizons, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class BoundedOutputs(nn.Module):
    """Map raw numbers into ranges: low + (high - low) sigmoid(x); symmetric ranges by tanh (CONDOR-10, C-18b).

    Args:
        ranges: Lowest and highest value of each output.
    """

    def __init__(self, ranges: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        low_O, high_O = torch.tensor(ranges, dtype=torch.float32).T
        self.register_buffer("low", low_O, persistent=False)
        self.register_buffer("span", high_O - low_O, persistent=False)
        # tanh(x) = 2 sigmoid(2x) - 1: a symmetric range is the sigmoid's with twice the slope
        self.register_buffer("slope", torch.where(low_O == -high_O, 2.0, 1.0), persistent=False)

    def forward(self, raw_BO: Tensor) -> Tensor:
        return self.low + self.span * torch.sigmoid(self.slope * raw_BO)


class RegimeDetector(nn.Linear):
    """Logits of the regimes in their frozen order; their softmax is also the experts' gate (CONDOR-12, C-37).

    Args:
        width: Inputs.
        n_regimes: Regimes.
    """

    def __init__(self, width: int, n_regimes: int) -> None:
        super().__init__(width, n_regimes)


class Forecast(NamedTuple):
    """Forecasts of the log return over each horizon, (B, H) each: mean, standard deviation, logit of a rise."""

    mu: Tensor
    sigma: Tensor
    p_up_logits: Tensor


class ForecastHead(nn.Module):
    """Mean, standard deviation and probability of a rise for each horizon, linear in the state (CONDOR-16, C-38).

    Outputs count in `unit` times the square root of the horizon, and the first weights are small, so that an untrained
    head already speaks of returns of ordinary size; `unit` = 1 counts in log returns, as documented.

    Args:
        d_model: Inputs.
        horizons: Sessions ahead.
        unit: Log return per square root of a session.
        sigma_floor: Smallest standard deviation.
        first_spread: Standard deviation of the raw outputs of an untrained head on a normed state.
    """

    def __init__(
        self, d_model: int, horizons: Sequence[int], *, unit: float, sigma_floor: float, first_spread: float = 0.1
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, 3 * len(horizons))
        nn.init.normal_(self.linear.weight, std=first_spread / math.sqrt(d_model))
        nn.init.zeros_(self.linear.bias)
        scale_H = unit * torch.tensor(horizons, dtype=torch.float32).sqrt()
        self.register_buffer("scale", scale_H, persistent=False)
        self.sigma_floor = sigma_floor

    def forward(self, state_BD: Tensor) -> Forecast:
        mu_BH, sigma_BH, p_up_BH = self.linear(state_BD).chunk(3, dim=-1)
        sigma_BH = self.scale * functional.softplus(sigma_BH) + self.sigma_floor
        return Forecast(mu=self.scale * mu_BH, sigma=sigma_BH, p_up_logits=p_up_BH)


class FeatureHead(nn.Linear):
    """The next row's four meta features, linear in the state (CONDOR-22, C-42).

    Args:
        d_model: Inputs.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, 4)


def normalised_entropy(probability_BO: Tensor) -> Tensor:
    """Return entropy over its largest value, (B,): 0 for certainty, 1 for the uniform distribution (CONDOR-14)."""
    return entropy(probability_BO) / math.log(probability_BO.shape[-1])


def entropy(probability_BO: Tensor) -> Tensor:
    """Return the entropy in nats, (B,); an impossible outcome adds nothing."""
    return torch.special.entr(probability_BO).sum(-1)
