"""From a window of features to the tokens of the groups: instance norm, projection, positions, static token.

Letters: B batch, T rows, P rows of a patch, N tokens, F features, V groups, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.grok.sizes import N_PHASES, WEEKDAYS


class InstanceNorm(nn.Module):
    """gain (x - mean) / sqrt(var + epsilon) + bias, with the statistics of each window's valid rows (GROK-3).

    Args:
        n_features: Columns, each with its own gain and bias.
        epsilon: Added to the variance.
    """

    def __init__(self, n_features: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.gain_F = nn.Parameter(torch.ones(n_features))
        self.bias_F = nn.Parameter(torch.zeros(n_features))

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """Return the scaled windows; what stands in rows that are not valid is meaningless."""
        mean_B1F, variance_B1F = moments(x_BTF, valid_BT)
        scaled = (x_BTF - mean_B1F) * (variance_B1F + self.epsilon).rsqrt()
        return scaled * self.gain_F.float() + self.bias_F.float()


def moments(x_BTF: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population variance over the valid rows, (B, 1, F) each."""
    weight_BT1 = (valid_BT / valid_BT.sum(1, keepdim=True)).unsqueeze(-1).to(x_BTF.dtype)
    mean_B1F = (weight_BT1 * x_BTF).sum(1, keepdim=True)
    return mean_B1F, (weight_BT1 * (x_BTF - mean_B1F).square()).sum(1, keepdim=True)


class GroupProjection(nn.Module):
    """Map the features of each group, of one row or of all rows of a patch, to the width (GROK-4, HYP-6).

    Args:
        groups: Columns of each group among the features.
        d_model: Width.
        patch_rows: Rows of a token; 1: no patching.
    """

    def __init__(self, groups: Sequence[Sequence[int]], d_model: int, patch_rows: int = 1) -> None:
        super().__init__()
        self.groups = [list(columns) for columns in groups]
        self.patch_rows = patch_rows
        self.projections = nn.ModuleList(nn.Linear(patch_rows * len(columns), d_model) for columns in self.groups)

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return (B, N, V, D), N = ceil(T / P); rows after the last count as zero."""
        x_BTF = functional.pad(x_BTF, (0, 0, 0, -x_BTF.shape[1] % self.patch_rows))
        dtype = self.projections[0].weight.dtype
        patches_BNPF = x_BTF.unflatten(1, (-1, self.patch_rows)).to(dtype)
        parts = zip(self.projections, self.groups, strict=True)
        return torch.stack([project(patches_BNPF[..., columns].flatten(2)) for project, columns in parts], dim=2)


class CyclicPositions(nn.Module):
    """W [phases of day, month and year; embedding of the weekday], from New York times (GROK-5).

    Args:
        d_model: Width.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weekday = nn.Embedding(WEEKDAYS, d_model)
        self.mix = nn.Linear(d_model + N_PHASES, d_model, bias=False)

    def forward(self, calendar_BT7: Tensor) -> Tensor:
        """Return (B, T, D); the columns are those of `config.CALENDAR`."""
        weekday_BTD = self.weekday(calendar_BT7[..., N_PHASES].long())
        phases_BT6 = calendar_BT7[..., :N_PHASES].to(weekday_BTD.dtype)
        return self.mix(torch.cat([phases_BT6, weekday_BTD], dim=-1))


class StaticToken(nn.Module):
    """A token per group that tells the window's level and spread, which the instance norm takes away (C-9).

    Args:
        groups: Columns of each group among the features.
        d_model: Width.
        epsilon: Added to the variance.
    """

    def __init__(self, groups: Sequence[Sequence[int]], d_model: int, epsilon: float) -> None:
        super().__init__()
        self.groups = [list(columns) for columns in groups]
        self.epsilon = epsilon
        self.projections = nn.ModuleList(nn.Linear(2 * len(columns), d_model) for columns in self.groups)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """Return (B, 1, V, D) from the mean and half the logarithm of the variance of each feature."""
        mean_B1F, variance_B1F = moments(x_BTF, valid_BT)
        level_BF, spread_BF = mean_B1F.squeeze(1), 0.5 * (variance_B1F + self.epsilon).log().squeeze(1)
        dtype = self.projections[0].weight.dtype
        tokens = [
            project(torch.cat([level_BF[:, columns], spread_BF[:, columns]], dim=-1).to(dtype))
            for project, columns in zip(self.projections, self.groups, strict=True)
        ]
        return torch.stack(tokens, dim=1).unsqueeze(1)


def patched(valid_BT: Tensor, patch_rows: int) -> Tensor:
    """Return which tokens hold a valid row, (B, N)."""
    padded = functional.pad(valid_BT, (0, -valid_BT.shape[1] % patch_rows))
    return padded.unflatten(1, (-1, patch_rows)).any(-1)


def last_valid(valid_BN: Tensor) -> Tensor:
    """Return the place of the last valid token of each window, (B,): sum - 1 where they come first (GROK-11)."""
    place_N = torch.arange(1, valid_BN.shape[1] + 1, device=valid_BN.device)
    return (valid_BN * place_N).argmax(1)


def right_padded(windows: Sequence[Tensor], length: int) -> Tensor:
    """Return windows of different lengths as one batch, zeros after each one's last row: not valid (DATA-3).

    Args:
        windows: (T_i, C) each; the column `valid` says 1.
        length: Rows of the result.

    Raises:
        ValueError: A window is longer.
    """
    longest = max(len(window) for window in windows)
    if longest > length:
        raise ValueError(f"windows: expected at most max_len = {length} rows, found {longest}; shorten window_bars")
    return torch.stack([functional.pad(window, (0, 0, 0, length - len(window))) for window in windows])


def phases(positions: Tensor, periods: Sequence[float]) -> Tensor:
    """Return sine and cosine of each position within its period, (..., 2 x periods), sine first (GROK-5)."""
    angle = 2 * math.pi * positions / torch.tensor(periods, dtype=positions.dtype)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
