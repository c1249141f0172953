"""Short causal convolution before a scan (CONDOR-5). Letters: B batch, T time, C channels, K kernel length."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainables.ops.convolution import causal_convolution_silu, reference


class CausalConvolution(nn.Module):
    """Convolve each channel with its own kernel over the newest `length` rows, those before the first zero; then SiLU.

    Args:
        channels: Channels, each on its own.
        length: Kernel length, 1 or more.
    """

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(length)
        self.weight_CK = nn.Parameter(torch.empty(channels, length).uniform_(-bound, bound))
        self.bias_C = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def first_state(self, batch: int) -> Tensor:
        """Return the (B, K - 1, C) rows before the first: zero."""
        channels, length = self.weight_CK.shape
        return self.weight_CK.new_zeros(batch, length - 1, channels)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return causal_convolution_silu(x_BTC, self.weight_CK.to(x_BTC.dtype), self.bias_C.to(x_BTC.dtype))

    def resume(self, x_BTC: Tensor, state_BKC: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve rows that follow the rows of `state_BKC`; also return the rows that the next call needs."""
        rows_BTC = torch.cat([state_BKC, x_BTC], dim=1)
        weights = (self.weight_CK.to(x_BTC.dtype), self.bias_C.to(x_BTC.dtype))
        return reference.convolution_silu(rows_BTC, *weights), rows_BTC[:, x_BTC.shape[1] :]
