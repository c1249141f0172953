"""Grok-SL: instance norm, group projection and positions, blocks of two-stage attention, quantile heads (GROK-1).

Letters: B batch, T rows, C columns of the data set, N tokens, V groups, D width, H horizons, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainables.grok.config import CALENDAR, HORIZON_MINUTES, GrokConfig
from trainables.grok.embedding import (
    CyclicPositions,
    GroupProjection,
    InstanceNorm,
    StaticToken,
    last_valid,
    patched,
)
from trainables.grok.heads import QuantileHeads
from trainables.layers.convolution import CausalConvolution
from trainables.layers.lite_gate import LiteGateUnit
from trainables.layers.two_stage_attention import TwoStageAttention

Outputs = Mapping[str, Any]
"""`quantiles` (B, H, Q) log-returns. In training with teacher forcing also what the loss needs to run the chain anew:
`state` (B, D), `scale` (B, H), the unit of the heads, and `heads`, their parameters by name."""


class Block(nn.Module):
    """Two-stage attention, lite gate, feed-forward layer with residual and norm (GROK-1)."""

    def __init__(self, config: GrokConfig) -> None:
        super().__init__()
        d = config.d_model
        self.attention = TwoStageAttention(
            d,
            config.n_heads,
            dropout=config.dropout,
            is_causal=config.causal,
            over_variables=config.variable_attention,
        )
        self.gate = LiteGateUnit(d) if config.lgu else None
        self.feed_forward = nn.Sequential(
            nn.Linear(d, config.ffn_mult * d), nn.GELU(), nn.Linear(config.ffn_mult * d, d), nn.Dropout(config.dropout)
        )
        self.norm = nn.LayerNorm(d)

    def forward(self, x_BNVD: Tensor, valid_BN: Tensor | None) -> Tensor:
        attended_BNVD = self.attention(x_BNVD, valid_BN)
        mixed_BNVD = x_BNVD + attended_BNVD if self.gate is None else self.gate(x_BNVD, attended_BNVD)
        return self.norm(mixed_BNVD + self.feed_forward(mixed_BNVD))


class Readout(nn.Module):
    """The groups of one row as one state (GROK-11)."""

    def __init__(self, config: GrokConfig, n_groups: int) -> None:
        super().__init__()
        self.kind = config.readout
        self.mix = nn.Linear(n_groups * config.d_model, config.d_model) if self.kind == "flatten" else None
        self.query_D = nn.Parameter(torch.zeros(config.d_model)) if self.kind == "attn" else None

    def forward(self, row_BVD: Tensor) -> Tensor:
        if self.mix is not None:
            return self.mix(row_BVD.flatten(1))
        if self.query_D is None:
            return row_BVD.mean(1)
        score_BV = row_BVD @ self.query_D.to(row_BVD.dtype) / row_BVD.shape[-1] ** 0.5
        return (score_BV.softmax(-1).unsqueeze(-1) * row_BVD).sum(1)


class GrokModel(nn.Module):
    """Maps windows (B, T, C) of features and context columns to quantiles of six forward returns.

    Rows of which the column `valid` is 0 are seen by nothing: padding on the right, and rows without features.

    Args:
        config: The point of the space.
        column_names: Names of the C columns: those of `config.seen_features` and `CONTEXT` at least.
    """

    def __init__(self, config: GrokConfig, column_names: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        names = config.seen_features()
        groups = [[names.index(name) for name in group] for group in config.seen_groups().values()]
        self._features = [column_names.index(name) for name in names]
        self._calendar = [column_names.index(name) for name in CALENDAR]
        self._return, self._valid = column_names.index("raw_return"), column_names.index("valid")
        d, n_features = config.d_model, len(names)
        self.instance_norm = InstanceNorm(n_features, config.in_epsilon) if config.use_in else None
        self.groups = GroupProjection(groups, d, config.patch_rows)
        self.positions = CyclicPositions(d) if config.use_pe else None
        self.to_input = nn.Linear(d, n_features, bias=False) if config.pe_input else None
        has_static = config.scale_conditioning == "static_token"
        self.static = StaticToken(groups, d, config.in_epsilon) if has_static else None
        self.stem = CausalConvolution(d, config.stem_rows) if config.stem_rows else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_blocks))
        self.readout = Readout(config, len(groups))
        self.heads = QuantileHeads(config)

    def forward(self, windows_BTC: Tensor) -> dict[str, Any]:
        """Return the outputs.

        Raises:
            ValueError: The window is longer than `max_len`, or one has no valid row.
        """
        valid_BT = self._checked(windows_BTC)
        windows_BTC = windows_BTC.masked_fill(~valid_BT.unsqueeze(-1), 0.0)
        state_BD = self._encoded(windows_BTC, valid_BT)
        scale_BH = self._scale(windows_BTC, valid_BT)
        outputs = {"quantiles": self.heads(state_BD).float() * scale_BH.unsqueeze(-1)}
        if self.training and self.config.teacher_forcing_ratio > 0:
            outputs |= {"state": state_BD, "scale": scale_BH, "heads": dict(self.heads.named_parameters())}
        return outputs

    def _checked(self, windows_BTC: Tensor) -> Tensor:
        """Return which rows are valid, (B, T)."""
        if windows_BTC.shape[1] > self.config.max_len:
            raise ValueError(
                f"windows: expected at most max_len = {self.config.max_len} rows, found {windows_BTC.shape[1]}"
            )
        valid_BT = windows_BTC[..., self._valid] > 0.5
        if not valid_BT.any(1).all():
            raise ValueError("windows: expected at least one valid row in each, found a window without one; drop it")
        return valid_BT

    def _encoded(self, windows_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        """Return the state of the last valid row, (B, D)."""
        z_BNVD, valid_BN = self._embedded(windows_BTC, valid_BT)
        mask = None if valid_BN.all() else valid_BN
        for block in self.blocks:
            if self.training and self.config.grad_checkpoint:
                z_BNVD = checkpoint(block, z_BNVD, mask, use_reentrant=False)
            else:
                z_BNVD = block(z_BNVD, mask)
        row_BVD = z_BNVD[torch.arange(len(z_BNVD), device=z_BNVD.device), last_valid(valid_BN)]
        return self.readout(row_BVD)

    def _embedded(self, windows_BTC: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, N, V, D) and which of them are valid, (B, N)."""
        x_BTF = raw_BTF = windows_BTC[..., self._features].float()
        if self.instance_norm is not None:
            x_BTF = self.instance_norm(x_BTF, valid_BT)
        place_BTD = None if self.positions is None else self.positions(windows_BTC[..., self._calendar])
        if self.to_input is not None:
            x_BTF, place_BTD = x_BTF + self.to_input(place_BTD), None
        z_BNVD = self.groups(x_BTF.masked_fill(~valid_BT.unsqueeze(-1), 0.0))
        valid_BN = patched(valid_BT, self.config.patch_rows)
        if self.stem is not None:
            z_BNVD = self._stemmed(z_BNVD * valid_BN[..., None, None])
        if place_BTD is not None:
            z_BNVD = z_BNVD + place_BTD[:, :: self.config.patch_rows].unsqueeze(2)
        if self.static is not None:
            z_BNVD = torch.cat([self.static(raw_BTF, valid_BT).to(z_BNVD.dtype), z_BNVD], dim=1)
            valid_BN = torch.cat([torch.ones_like(valid_BN[:, :1]), valid_BN], dim=1)
        return z_BNVD, valid_BN

    def _stemmed(self, z_BNVD: Tensor) -> Tensor:
        """Add what the causal convolution sees of the rows just before, to each group on its own (GROK-15)."""
        rows = z_BNVD.transpose(1, 2).flatten(0, 1)
        rows = rows + nn.functional.gelu(self.stem(rows))
        return rows.unflatten(0, (len(z_BNVD), -1)).transpose(1, 2)

    def _scale(self, windows_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        """Return the unit of each horizon's head, (B, H): its volatility by the window's own, or a fixed one (C-9)."""
        root_H = torch.tensor(HORIZON_MINUTES, dtype=torch.float32, device=windows_BTC.device).sqrt()
        if self.config.scale_conditioning != "target_scale":
            return self.config.return_unit * root_H.expand(len(windows_BTC), -1)
        square_BT = windows_BTC[..., self._return].float().square()
        sigma_B = (square_BT.sum(1) / valid_BT.sum(1)).sqrt().clamp_min(self.config.sigma_floor)
        return sigma_B.unsqueeze(1) * root_H
