"""The vendor's kernels against the sequential scans; needs a CUDA device and mamba-ssm."""

import importlib.util

import pytest
import torch

from trainables.ops.scan import selective_scan, ssd

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is None, reason="no mamba-ssm"),
]
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2}
"""Largest difference over the largest value (CONDOR-4)."""


def compare(scan, inputs, dtype):
    """Outputs and all gradients, kernel in `dtype` against float64 on the same rounded numbers."""
    found = []
    for impl, kind in (("fused", dtype), ("sequential", torch.float64)):
        leaves = [each.to(dtype).to(kind).detach().requires_grad_() for each in inputs]
        y = scan(*leaves, impl=impl)[0]
        y.double().square().sum().backward()
        found.append([y.double(), *(leaf.grad.double() for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        assert torch.isfinite(one).all()
        assert (one - other).abs().max() <= TOLERANCE[dtype] * other.abs().max()


@pytest.mark.requirement("CONDOR-4")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("length", [1, 63, 120, 257])
def test_kernels_agree_with_the_sequential_scans(length, dtype):
    generator = torch.Generator(device="cuda").manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device="cuda")

    b, c = normal(2, length, 64), normal(2, length, 64)
    step, rate = normal(2, length, 4).abs() * 0.1, -normal(4).abs() - 0.5
    compare(ssd, (normal(2, length, 4, 64), step, rate, b, c), dtype)
    if dtype is torch.float32:
        narrow = (normal(2, length, 16), normal(2, length, 16))
        steps, rates = normal(2, length, 32).abs() * 0.1, -normal(32, 16).abs() - 0.5
        compare(selective_scan, (normal(2, length, 32), steps, rates, *narrow), dtype)
