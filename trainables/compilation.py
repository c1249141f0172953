"""Compile what the default search runs, once, so that no worker waits for it: `python -m trainables.compilation`.

Each function is compiled where it is first called, some twenty seconds of one core in all, and every process that finds
no cache does it anew. The cache lies in `__pycache__` beside each function whatever PYTHONDONTWRITEBYTECODE says, in
the user's own cache where the checkout cannot be written, or in NUMBA_CACHE_DIR.
"""

from __future__ import annotations

import torch

from trainables.condor.labels import LabelSettings, condor_labels
from trainables.data.config import DataConfig, Unfolded
from trainables.data.loader import load_market
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings
from trainables.ops.convolution import causal_convolution_silu
from trainables.ops.norm import rms_norm
from trainables.ops.scan import LONGEST_CHUNK, ssd


def main() -> None:
    """Run the kernels, and make the features and labels of condor on its default market."""
    run_kernels()
    market = load_market(DataConfig(), Unfolded(), vault="open")
    compute("condor52", market, FeatureSettings())
    condor_labels(market, LabelSettings())


def run_kernels() -> None:
    """Run each kernel of `trainables.ops` forward and backward, over more rows than one chunk holds."""
    x_BTC = torch.randn(1, LONGEST_CHUNK + 1, 16, requires_grad=True)
    weight_CK, ones_C = torch.randn(16, 4, requires_grad=True), torch.ones(16)
    mixed_BTC = causal_convolution_silu(x_BTC, weight_CK, ones_C)
    step_BTH, rate_H = torch.rand(1, x_BTC.shape[1], 2), -torch.ones(2)
    y_BTHP, _ = ssd(mixed_BTC.unflatten(-1, (2, 8)), step_BTH, rate_H, mixed_BTC[..., :4], mixed_BTC[..., 4:8])
    y_BTC = rms_norm(y_BTHP.flatten(2), ones_C, gate=mixed_BTC, epsilon=1e-5)
    rms_norm(y_BTC, ones_C, epsilon=1e-5).sum().backward()


if __name__ == "__main__":
    main()
