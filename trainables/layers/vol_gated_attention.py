"""Attention that opens with volatility (CONDOR-19, C-21, C-40).

Letters: B batch, T time, D width, H heads, E channels of a head, V columns whose deviation is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.layers.mamba2 import State
from trainables.ops.attention import attention


def expanding_deviation(x_BTD: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Return the standard deviation of each row and all before it, (B, T, D); no row after it is used.

    Args:
        x_BTD: Rows.
        epsilon: Added to the variance, so that the root has a slope at zero.
    """
    origin_B1D = x_BTD[:, :1].detach()  # any constant will do; one near the data keeps the difference of squares exact
    return _deviation(*_running_sums(x_BTD - origin_B1D), epsilon)


def _running_sums(shifted_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count_T1 = torch.arange(1, shifted_BTD.shape[1] + 1, device=shifted_BTD.device, dtype=shifted_BTD.dtype)[:, None]
    return count_T1, shifted_BTD.cumsum(1), shifted_BTD.square().cumsum(1)


def _deviation(count: Tensor, total: Tensor, total_square: Tensor, epsilon: float) -> Tensor:
    return ((total_square / count - (total / count).square()).clamp_min(0) + epsilon).sqrt()


class VolGatedAttn(nn.Module):
    """(1 - g) x + g attention(x) with g = sigmoid(MLP(volatility)), volatility the deviation over time.

    Args:
        d_model: Width.
        heads: Attention heads; divides the width.
        gate_hidden: Hidden width of the gate's network.
        volatility_width: Columns whose deviation opens the gate: d_model for the hidden state, 1 for a feature.
        is_causal: Whether a row sees only itself and rows before it, in attention and deviation.
        window: Keys kept while rows come one by one.
        epsilon: Added to the variance.

    Raises:
        ValueError: `heads` does not divide `d_model`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int,
        gate_hidden: int,
        volatility_width: int,
        is_causal: bool = True,
        window: int = 512,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__()
        if d_model % heads:
            raise ValueError(f"heads: expected a divisor of d_model = {d_model}, found {heads}")
        self.heads, self.is_causal, self.window, self.epsilon = heads, is_causal, window, epsilon
        self.project_in = nn.Linear(d_model, 3 * d_model)
        self.project_out = nn.Linear(d_model, d_model)
        self.gate = nn.Sequential(
            nn.Linear(volatility_width, gate_hidden), nn.SiLU(), nn.Linear(gate_hidden, 1), nn.Sigmoid()
        )

    def first_state(self, batch: int) -> State:
        """Return the state before the first row: no keys, no values; origin, count and sums of the deviation."""
        weight = self.project_in.weight
        empty_BHTE = weight.new_zeros(batch, self.heads, 0, weight.shape[1] // self.heads)
        zero_B1D = weight.new_zeros(batch, 1, self.gate[0].in_features)
        return empty_BHTE, empty_BHTE, zero_B1D, weight.new_zeros(()), zero_B1D, zero_B1D

    def forward(self, x_BTD: Tensor, volatility_BTV: Tensor | None = None) -> Tensor:
        """Map rows; `volatility_BTV` replaces the hidden state in the gate."""
        source_BTV = x_BTD if volatility_BTV is None else volatility_BTV
        if self.is_causal:
            deviation = expanding_deviation(source_BTV, self.epsilon)
        else:
            deviation = (source_BTV.var(1, correction=0, keepdim=True) + self.epsilon).sqrt()
        q_BHTE, k_BHTE, v_BHTE = self._heads(x_BTD)
        return self._mix(x_BTD, attention(q_BHTE, k_BHTE, v_BHTE, is_causal=self.is_causal), self.gate(deviation))

    def resume(self, x_BTD: Tensor, state: State, volatility_BTV: Tensor | None = None) -> tuple[Tensor, State]:
        """Map rows that follow the rows behind `state`; of those, attention sees the newest `window`.

        Raises:
            ValueError: The layer is not causal, so that later rows would change earlier outputs.
        """
        if not self.is_causal:
            raise ValueError("resume: expected a causal attention, found one that sees later rows; set vga_causal")
        keys, values, origin, count, total, total_square = state
        source_BTV = x_BTD if volatility_BTV is None else volatility_BTV
        origin = source_BTV[:, :1] if count == 0 else origin
        added, sums, squares = _running_sums(source_BTV - origin)
        counts, sums, squares = count + added, total + sums, total_square + squares
        gate_BT1 = self.gate(_deviation(counts, sums, squares, self.epsilon))
        q_BHTE, k_BHTE, v_BHTE = self._heads(x_BTD)
        keys, values = torch.cat([keys, k_BHTE], dim=2), torch.cat([values, v_BHTE], dim=2)
        y_BTD = self._mix(x_BTD, attention(q_BHTE, keys, values, is_causal=True), gate_BT1)
        kept = (keys[:, :, -self.window :], values[:, :, -self.window :])
        return y_BTD, (*kept, origin, counts[-1, 0], sums[:, -1:], squares[:, -1:])

    def _heads(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BTD, k_BTD, v_BTD = self.project_in(x_BTD).chunk(3, dim=-1)
        return tuple(each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (q_BTD, k_BTD, v_BTD))

    def _mix(self, x_BTD: Tensor, attended_BHTE: Tensor, gate_BT1: Tensor) -> Tensor:
        attended_BTD = self.project_out(attended_BHTE.transpose(1, 2).flatten(2))
        return torch.lerp(x_BTD, attended_BTD, gate_BT1)
