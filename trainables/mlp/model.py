"""The network: Norm -> [Linear -> Norm -> ReLU -> Dropout] per hidden layer -> Linear to one logit (MLP-1)."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.mlp.config import MlpConfig

NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class Mlp(nn.Module):
    """Maps windows (B, 1, F) to logits (B,) of "the price rises"."""

    def __init__(self, config: MlpConfig, n_inputs: int) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        layers: list[nn.Module] = [norm(n_inputs)]
        width = n_inputs
        for following in config.hidden_widths:
            layers += [nn.Linear(width, following), norm(following), nn.ReLU(), nn.Dropout(config.dropout)]
            width = following
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, windows_B1F: Tensor) -> Tensor:
        return self.layers(windows_B1F[:, -1]).squeeze(-1)
