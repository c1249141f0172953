"""Mixtures of experts over one vector a row (CONDOR-15, CONDOR-20). Letters: B batch, W width, O outputs, E experts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

GateScale = Literal["prob", "renormalised_documented"]


class Expert(nn.Sequential):
    """Two layers with SiLU between them.

    Args:
        width: Inputs.
        hidden: Hidden width.
        n_outputs: Outputs.
    """

    def __init__(self, width: int, hidden: int, n_outputs: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, n_outputs))


class SoftMoE(nn.Module):
    """The experts' outputs, averaged with the gate's probabilities (CONDOR-15).

    Args:
        n_experts: Experts.
        width: Inputs.
        hidden: Hidden width of an expert.
        n_outputs: Outputs.
    """

    def __init__(self, n_experts: int, width: int, hidden: int, n_outputs: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert(width, hidden, n_outputs) for _ in range(n_experts))

    def forward(self, x_BW: Tensor, probability_BE: Tensor) -> Tensor:
        outputs_BEO = torch.stack([expert(x_BW) for expert in self.experts], dim=1)
        return (probability_BE.unsqueeze(-1) * outputs_BEO).sum(1)


class TopKMoE(nn.Module):
    """The k most probable experts of each row; the others are not evaluated (CONDOR-20, C-41).

    Args:
        n_experts: Experts.
        width: Inputs.
        hidden: Hidden width of an expert.
        n_outputs: Outputs.
        k: Experts per row, at most `n_experts`.
        gate_scale: Weights are the probabilities, or these divided by their sum over the k, which for k = 1 is one and
            gives the gate no gradient.

    Raises:
        ValueError: `k` is above `n_experts`.
    """

    def __init__(
        self, n_experts: int, width: int, hidden: int, n_outputs: int, *, k: int, gate_scale: GateScale = "prob"
    ) -> None:
        super().__init__()
        if k > n_experts:
            raise ValueError(f"k: expected at most n_experts = {n_experts}, found {k}")
        self.experts = nn.ModuleList(Expert(width, hidden, n_outputs) for _ in range(n_experts))
        self.k, self.gate_scale = k, gate_scale

    def weights(self, probability_BE: Tensor) -> Tensor:
        """Return the weight of each expert (B, E), zero for those not chosen."""
        weight_BE = probability_BE * chosen(probability_BE, self.k)
        if self.gate_scale == "renormalised_documented":
            return weight_BE / weight_BE.sum(-1, keepdim=True)
        return weight_BE

    def forward(self, x_BW: Tensor, probability_BE: Tensor) -> Tensor:
        weight_BE, is_chosen_BE = self.weights(probability_BE), chosen(probability_BE, self.k).bool()
        total_BO = None
        for number, expert in enumerate(self.experts):
            rows = is_chosen_BE[:, number].nonzero().squeeze(-1)
            if not len(rows):
                continue
            part_RO = weight_BE[rows, number, None] * expert(x_BW[rows])
            total_BO = part_RO.new_zeros(len(x_BW), part_RO.shape[-1]) if total_BO is None else total_BO
            total_BO = total_BO.index_add(0, rows, part_RO)
        return total_BO


def chosen(probability_BE: Tensor, k: int) -> Tensor:
    """Return one for the k most probable experts of each row and zero for the others, (B, E), without a gradient."""
    places_BK = probability_BE.topk(k, dim=-1).indices
    return torch.zeros_like(probability_BE).scatter(1, places_BK, 1.0)
