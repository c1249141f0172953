"""Blocks of a state-space backbone: a mixer with norm and residual, and the layer as it is printed.

Letters: B batch, T time, D width.
"""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor, nn

from trainables.layers.mamba2 import State
from trainables.layers.norms import RMSNorm


class ResidualBlock(nn.Module):
    """x + mixer(norm(x)): a mixer whose last product is zero leaves an identity (CONDOR-2, C-31).

    Args:
        d_model: Width.
        mixer: Maps (B, T, D) to (B, T, D).
        dropout: Share of the mixer's outputs set to zero in training.
    """

    def __init__(self, d_model: int, mixer: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.mixer = mixer
        self.dropout = nn.Dropout(dropout)

    def first_state(self, batch: int) -> State:
        return self.mixer.first_state(batch)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return x_BTD + self.dropout(self.mixer(self.norm(x_BTD)))

    def resume(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """Map rows that follow the rows behind `state`; also return the state after them."""
        y_BTD, state = self.mixer.resume(self.norm(x_BTD), state)
        return x_BTD + self.dropout(y_BTD), state


class DocumentedBlock(nn.Module):
    """SiLU(W x) * scan(x), without residual and norm (CONDOR-2 as printed).

    Args:
        d_model: Width.
        scan: Maps (B, T, D) to (B, T, D).
        dropout: Share of the outputs set to zero in training.
    """

    def __init__(self, d_model: int, scan: nn.Module, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.scan = scan
        self.dropout = nn.Dropout(dropout)

    def first_state(self, batch: int) -> State:
        return self.scan.first_state(batch)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.dropout(functional.silu(self.gate(x_BTD)) * self.scan(x_BTD))

    def resume(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """Map rows that follow the rows behind `state`; also return the state after them."""
        y_BTD, state = self.scan.resume(x_BTD, state)
        return self.dropout(functional.silu(self.gate(x_BTD)) * y_BTD), state
