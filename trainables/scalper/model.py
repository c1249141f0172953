"""The networks: a trunk over the window, and a linear head for each thing that is predicted (SCALP-1..6).

Shape letters: B windows, T seconds, F features, D width of the trunk. Heads give logits; softmax is for outputs (C-44).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.scalper.config import ScalperConfig

Outputs = dict[str, Tensor]
"""`direction` (B, 3) logits, `move` (B,) in training standard deviations, `volatility` (B,) over the training mean,
positive, `exit` (B, 2) logits of leaving a long and a short position; those of the approach only."""


class FeedForward(nn.Sequential):
    """[Linear -> BatchNorm -> ReLU -> Dropout] three times, of the newest second: (B, T, F) to (B, D) (SCALP-1)."""

    def __init__(self, config: ScalperConfig, n_inputs: int) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise((n_inputs, *config.hidden_widths)):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(config.dropout)]
        super().__init__(*layers)

    def forward(self, windows_BTF: Tensor) -> Tensor:
        return super().forward(windows_BTF[:, -1])


class Recurrent(nn.Module):
    """Two LSTM or GRU layers, and a dense layer on the last step of the second: (B, T, F) to (B, D) (SCALP-2)."""

    def __init__(self, config: ScalperConfig, n_inputs: int) -> None:
        super().__init__()
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[config.arch]
        first, second = config.units
        self.first = cell(n_inputs, first, batch_first=True)
        self.second = cell(first, second, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(second, config.dense_units)

    def forward(self, windows_BTF: Tensor) -> Tensor:
        hidden_BTH, _ = self.first(windows_BTF)
        hidden_BTH, _ = self.second(self.dropout(hidden_BTH))
        return functional.relu(self.dense(self.dropout(hidden_BTH[:, -1])))


class Transformer(nn.Module):
    """Positions, attention layers, and the last step: (B, T, F) to (B, D) (SCALP-3).

    Every step sees all of the window, which ends at the second of decision.
    """

    def __init__(self, config: ScalperConfig, n_inputs: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(n_inputs, config.d_model)
        self.register_buffer("positions", sinusoids(config.seq_len, config.d_model), persistent=False)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.d_model,
                config.n_heads,
                dim_feedforward=config.ffn_mult * config.d_model,
                dropout=config.dropout,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, windows_BTF: Tensor) -> Tensor:
        n_steps = windows_BTF.shape[1]
        if n_steps > len(self.positions):
            raise ValueError(f"windows: expected at most seq_len = {len(self.positions)} steps, found {n_steps}")
        hidden_BTD = self.embedding(windows_BTF) + self.positions[-n_steps:]
        for layer in self.layers:
            hidden_BTD = layer(hidden_BTD)
        return self.norm(hidden_BTD[:, -1])


def sinusoids(n_positions: int, width: int) -> Tensor:
    """Return the positional encoding (n_positions, width): sines and cosines of falling frequency.

    Source: Vaswani et al. (2017), section 3.5.
    """
    position = torch.arange(n_positions, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = position * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


TRUNKS = {"ffn": FeedForward, "lstm": Recurrent, "gru": Recurrent, "transformer": Transformer}


class ScalperModel(nn.Module):
    """Maps windows (B, T, F) to `Outputs`; the heads of the hybrid share a trunk or have one each (SCALP-6)."""

    def __init__(self, config: ScalperConfig, n_inputs: int) -> None:
        super().__init__()
        is_separate = config.trunk == "separate"
        names = tuple(config.heads) if is_separate else ("shared",)
        self.trunks = nn.ModuleDict({name: TRUNKS[config.arch](config, n_inputs) for name in names})
        self.heads = nn.ModuleDict({name: nn.Linear(config.trunk_width, n) for name, n in config.heads.items()})

    def forward(self, windows_BTF: Tensor) -> Outputs:
        seen = {name: trunk(windows_BTF) for name, trunk in self.trunks.items()}
        raw = {name: head(seen.get(name, seen.get("shared"))) for name, head in self.heads.items()}
        outputs = {name: values.squeeze(-1) for name, values in raw.items()}
        if "volatility" in outputs:
            outputs["volatility"] = functional.softplus(outputs["volatility"])
        return outputs
