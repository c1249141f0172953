"""The lite gate between a block's input and what its attention says (GROK-10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FIRST_WEIGHT_STD = 0.02
"""Small first weights and zero biases leave the gate half open, so that neither branch starves (GROK-10)."""


class LiteGateUnit(nn.Module):
    """o = (1 - z) x + z h, with z = sigmoid(Wz x + Uz y) and h = tanh(Wh x + Uh (z y)).

    Args:
        d_model: Width of both inputs.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.gate_x = nn.Linear(d_model, d_model)
        self.gate_y = nn.Linear(d_model, d_model, bias=False)
        self.candidate_x = nn.Linear(d_model, d_model)
        self.candidate_y = nn.Linear(d_model, d_model, bias=False)
        for layer in (self.gate_x, self.gate_y, self.candidate_x, self.candidate_y):
            nn.init.normal_(layer.weight, std=FIRST_WEIGHT_STD)
        nn.init.zeros_(self.gate_x.bias)
        nn.init.zeros_(self.candidate_x.bias)

    def gate(self, x: Tensor, y: Tensor) -> Tensor:
        """Return z, in (0, 1)."""
        return torch.sigmoid(self.gate_x(x) + self.gate_y(y))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mix the residual stream `x` with the candidate that the attention's output `y` gives."""
        z = self.gate(x, y)
        candidate = torch.tanh(self.candidate_x(x) + self.candidate_y(z * y))
        return x + z * (candidate - x)
