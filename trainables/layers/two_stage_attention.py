"""Attention over time for each variable, then over variables at each time (GROK-6, GROK-7).

Letters: B batch, T time, V variables, D width, H heads, E channels of a head.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainables.ops.attention import Impl, attention


class MultiHeadAttention(nn.Module):
    """Self-attention of several heads; dropout is on its output, where every kernel allows it.

    Args:
        d_model: Width.
        heads: Number of heads; divides the width.
        dropout: Probability.
        is_causal: Whether a place sees only itself and places before it.
        impl: See `trainables.ops.attention.choose_impl`.

    Raises:
        ValueError: `heads` does not divide `d_model`.
    """

    def __init__(
        self, d_model: int, heads: int, *, dropout: float = 0.0, is_causal: bool = False, impl: Impl = "auto"
    ) -> None:
        super().__init__()
        if d_model % heads:
            raise ValueError(f"heads: expected a divisor of d_model = {d_model}, found {heads}")
        self.heads, self.is_causal, self.impl = heads, is_causal, impl
        self.project_in = nn.Linear(d_model, 3 * d_model)
        self.project_out = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Map rows; places that are not valid are seen by none."""
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.project_in(x_BTD).chunk(3, dim=-1)
        )
        attended_BHTE = attention(q, k, v, is_causal=self.is_causal, valid_BS=valid_BT, impl=self.impl)
        return self.dropout(self.project_out(attended_BHTE.transpose(1, 2).flatten(2)))


class TwoStageAttention(nn.Module):
    """LN(Z + MHA over time), then LN(Z + MHA over variables), which sees no mask: all of a row is valid or nothing.

    Args:
        d_model: Width.
        heads: Heads of each stage.
        dropout: Probability.
        is_causal: Whether the time stage sees only the past (C-6).
        over_variables: Whether there is a second stage (HYP-3).
    """

    def __init__(
        self, d_model: int, heads: int, *, dropout: float, is_causal: bool = False, over_variables: bool = True
    ) -> None:
        super().__init__()
        self.time = MultiHeadAttention(d_model, heads, dropout=dropout, is_causal=is_causal)
        self.time_norm = nn.LayerNorm(d_model)
        self.variable = MultiHeadAttention(d_model, heads, dropout=dropout, impl="sdpa") if over_variables else None
        self.variable_norm = nn.LayerNorm(d_model) if over_variables else None

    def forward(self, z_BTVD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        batch, _, n_variables, _ = z_BTVD.shape
        rows = z_BTVD.transpose(1, 2).flatten(0, 1)
        valid = None if valid_BT is None else valid_BT.repeat_interleave(n_variables, 0)
        rows = self.time_norm(rows + self.time(rows, valid))
        z_BTVD = rows.unflatten(0, (batch, n_variables)).transpose(1, 2)
        if self.variable is None or self.variable_norm is None:
            return z_BTVD
        steps = z_BTVD.flatten(0, 1)
        return self.variable_norm(steps + self.variable(steps)).unflatten(0, z_BTVD.shape[:2])
