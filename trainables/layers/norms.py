"""Root-mean-square norms. Source: Zhang & Sennrich (2019), arXiv 1910.07467, equation 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.ops.norm import rms_norm


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis and weight each channel.

    Args:
        width: Channels.
        epsilon: Added to the mean square.
    """

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x.dtype), epsilon=self.epsilon)


class GatedRMSNorm(RMSNorm):
    """Norm of x times SiLU(gate): the output gate of Mamba-2 (Dao & Gu 2024, section 7.1; CONDOR-5)."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x.dtype), gate=gate, epsilon=self.epsilon)
