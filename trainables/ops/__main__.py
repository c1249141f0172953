"""Compile the CPU kernels into their cache, once, so that no worker of a search waits for it: `python -m trainables.ops`.

They are compiled where they are first called, some ten seconds of one core in all, and every process that finds no cache
does it anew. The cache lies in `__pycache__` beside each kernel whatever PYTHONDONTWRITEBYTECODE says, in the user's own
cache where the checkout cannot be written, or in NUMBA_CACHE_DIR.
"""

from __future__ import annotations

import torch

from trainables.ops.convolution import causal_convolution_silu
from trainables.ops.norm import rms_norm
from trainables.ops.scan import LONGEST_CHUNK, ssd


def main() -> None:
    """Run each kernel forward and backward, over more rows than one chunk holds."""
    x_BTC = torch.randn(1, LONGEST_CHUNK + 1, 16, requires_grad=True)
    weight_CK, ones_C = torch.randn(16, 4, requires_grad=True), torch.ones(16)
    mixed_BTC = causal_convolution_silu(x_BTC, weight_CK, ones_C)
    step_BTH, rate_H = torch.rand(1, x_BTC.shape[1], 2), -torch.ones(2)
    y_BTHP, _ = ssd(mixed_BTC.unflatten(-1, (2, 8)), step_BTH, rate_H, mixed_BTC[..., :4], mixed_BTC[..., 4:8])
    y_BTC = rms_norm(y_BTHP.flatten(2), ones_C, gate=mixed_BTC, epsilon=1e-5)
    rms_norm(y_BTC, ones_C, epsilon=1e-5).sum().backward()


if __name__ == "__main__":
    main()
