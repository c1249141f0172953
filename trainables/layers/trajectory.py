"""The path of the coming sessions (CONDOR-17). Letters: B batch, J sessions, D width, G recurrent width."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class HorizonForecaster(nn.Module):
    """Daily close, high, low and volatility, unrolled by a recurrent cell and held inside an envelope.

    With R = sigmoid(W z_J) the closes keep |ln(P / S)| <= R by a tanh, and highs and lows lie beyond the close by a
    softplus times R, so that R = 0 pins the whole path to the spot.

    Args:
        d_model: Width of the state.
        sessions: Length of the path.
        hidden: Width of the cell.
    """

    def __init__(self, d_model: int, *, sessions: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(d_model, hidden)
        self.cell = nn.GRU(1, hidden, batch_first=True)
        self.row = nn.Linear(hidden, 4)
        self.range = nn.Linear(hidden, 1)
        self.register_buffer("clock", torch.linspace(0, 1, sessions).view(1, sessions, 1), persistent=False)

    def forward(self, state_BD: Tensor) -> Tensor:
        """Return (B, J, 4): ln(close / spot), ln(high / spot), ln(low / spot), annualised volatility."""
        first_1BG = self.first(state_BD).unsqueeze(0)
        clock_BJ1 = self.clock.to(state_BD.dtype).expand(len(state_BD), -1, -1).contiguous()
        hidden_BJG, _ = self.cell(clock_BJ1, first_1BG)
        reach_B1 = torch.sigmoid(self.range(hidden_BJG[:, -1]))
        close_BJ, above_BJ, below_BJ, volatility_BJ = self.row(hidden_BJG).unbind(-1)
        log_close_BJ = reach_B1 * torch.tanh(close_BJ)
        log_high_BJ = log_close_BJ + reach_B1 * functional.softplus(above_BJ)
        log_low_BJ = log_close_BJ - reach_B1 * functional.softplus(below_BJ)
        return torch.stack([log_close_BJ, log_high_BJ, log_low_BJ, functional.softplus(volatility_BJ)], dim=-1)
