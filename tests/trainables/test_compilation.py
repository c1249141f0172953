"""`trainables.compilation` leaves nothing to compile for a mixer that trains."""

import pytest
import torch

from trainables.compilation import run_kernels
from trainables.layers.blocks import ResidualBlock
from trainables.layers.mamba2 import Mamba2Mixer
from trainables.ops.convolution import compiled as convolution
from trainables.ops.norm import compiled as norm
from trainables.ops.scan import passes

KERNELS = [
    kernel
    for module in (convolution, norm, passes)
    for kernel in vars(module).values()
    if hasattr(kernel, "signatures")
]


@pytest.mark.parametrize("length", [5, 150])
def test_a_mixer_needs_no_other_form_of_a_kernel(length):
    run_kernels()
    before = {id(kernel): set(kernel.signatures) for kernel in KERNELS}
    block = ResidualBlock(8, Mamba2Mixer(8, expand=2, head_dim=4, d_state=4, d_conv=3), 0.1)
    block(torch.randn(2, length, 8)).square().mean().backward()
    assert {id(kernel): set(kernel.signatures) for kernel in KERNELS} == before
    called = [kernel for kernel in KERNELS if before[id(kernel)]]
    assert len(called) >= 12
