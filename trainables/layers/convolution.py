"""Short causal convolution before a scan (CONDOR-5). Letters: B batch, T time, C channels, K kernel length."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class CausalConvolution(nn.Module):
    """Convolve each channel with its own kernel over the newest `length` rows, rows before the first being zero.

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
        return self._over(functional.pad(x_BTC, (0, 0, self.weight_CK.shape[1] - 1, 0)))

    def resume(self, x_BTC: Tensor, state_BKC: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve rows that follow the rows of `state_BKC`; also return the rows that the next call needs."""
        rows_BTC = torch.cat([state_BKC, x_BTC], dim=1)
        return self._over(rows_BTC), rows_BTC[:, x_BTC.shape[1] :]

    def _over(self, rows_BTC: Tensor) -> Tensor:
        # channels-last, which is what (B, T, C) already is: twice as fast on a CPU as conv1d over a transposed copy
        image_BC1T = rows_BTC.transpose(1, 2).unsqueeze(2)
        kernel_C11K = self.weight_CK[:, None, None]
        y_BC1T = functional.conv2d(image_BC1T, kernel_C11K, self.bias_C, groups=kernel_C11K.shape[0])
        return y_BC1T.squeeze(2).transpose(1, 2)
