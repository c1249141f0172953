"""A denoising diffusion head over flat vectors (CONDOR-21).

Sources: Ho, Jain & Abbeel (2020), arXiv 2006.11239; cosine schedule of Nichol & Dhariwal (2021), arXiv 2102.09672,
equation 17; sampler of Song, Meng & Ermon (2021), arXiv 2010.02502, equation 12 without noise.
Letters: B batch, X target numbers, D width of the condition, M samples, S noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as functional
from torch import Generator, Tensor, nn


def signal_shares(levels: int, offset: float = 0.008) -> Tensor:
    """Return the share of signal variance left at noise levels 1 to S, (S,), falling from nearly 1 to nearly 0."""
    place = torch.arange(levels + 1, dtype=torch.float64) / levels
    curve = torch.cos((place + offset) / (1 + offset) * math.pi / 2).square()
    return (curve[1:] / curve[0]).clamp(1e-5, 1.0).float()


def add_noise(target_BX: Tensor, noise_BX: Tensor, share_B1: Tensor) -> Tensor:
    """Return sqrt(share) target + sqrt(1 - share) noise (Ho, Jain & Abbeel 2020, equation 4)."""
    return share_B1.sqrt() * target_BX + (1 - share_B1).sqrt() * noise_BX


class DiffusionHead(nn.Module):
    """Predict the clean target from a noisy one, the noise level and the state.

    Args:
        n_target: Numbers of a target.
        d_model: Width of the state.
        levels: Noise levels.
        hidden: Hidden width.
        time_width: Width of the noise level's embedding, even.
    """

    def __init__(self, n_target: int, d_model: int, *, levels: int, hidden: int, time_width: int) -> None:
        super().__init__()
        self.n_target, self.levels, self.time_width = n_target, levels, time_width
        self.first = nn.Linear(n_target + d_model + time_width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, n_target)

    def forward(self, noisy_BX: Tensor, level_B: Tensor, state_BD: Tensor) -> Tensor:
        return denoise(dict(self.named_parameters()), noisy_BX, level_B, state_BD, self.time_width)

    @torch.no_grad()
    def sample(self, state_BD: Tensor, *, n_samples: int, n_steps: int, generator: Generator) -> Tensor:
        """Return (B, M, X) samples; the same generator state gives the same samples."""
        batch = len(state_BD)
        shares = signal_shares(self.levels).to(state_BD)
        repeated = state_BD.repeat_interleave(n_samples, dim=0)
        x = torch.randn(len(repeated), self.n_target, generator=generator, dtype=torch.float32).to(state_BD)
        places = torch.linspace(self.levels - 1, 0, min(n_steps, self.levels)).round().long()
        for place, following in zip(places, [*places[1:], None], strict=True):
            share = shares[place]
            clean = self(x, place.expand(len(x)).to(x.device), repeated)
            noise = (x - share.sqrt() * clean) / (1 - share).sqrt()
            x = clean if following is None else add_noise(clean, noise, shares[following])
        return x.view(batch, n_samples, self.n_target)


def denoise(
    weights: Mapping[str, Tensor], noisy_BX: Tensor, level_B: Tensor, state_BD: Tensor, time_width: int
) -> Tensor:
    """Apply a `DiffusionHead` given by its parameters: a loss function has them where it has no module.

    Args:
        weights: Parameters by name.
        noisy_BX: Noisy targets.
        level_B: Noise levels from 0.
        state_BD: Conditions.
        time_width: Width of the noise level's embedding.
    """
    inputs = torch.cat([noisy_BX, state_BD, _embedding(level_B, time_width).to(noisy_BX)], dim=-1)
    hidden = functional.silu(functional.linear(inputs, weights["first.weight"], weights["first.bias"]))
    hidden = hidden + functional.silu(functional.linear(hidden, weights["second.weight"], weights["second.bias"]))
    return functional.linear(hidden, weights["last.weight"], weights["last.bias"])


def _embedding(level_B: Tensor, width: int) -> Tensor:
    """Return sines and cosines of the level at geometric frequencies (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(width // 2, device=level_B.device) / (width // 2))
    angle = level_B[:, None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
