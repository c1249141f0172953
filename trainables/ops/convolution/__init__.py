"""A short causal convolution with SiLU: the compiled form where it can run, else plain PyTorch.

Letters: B batch, T time, C channels, K kernel length.
"""

from __future__ import annotations

from torch import Tensor

from trainables.ops.convolution import reference
from trainables.ops.dispatch import runs_here


def causal_convolution_silu(x_BTC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
    """Convolve each channel with its own kernel over the newest K rows, then SiLU; rows before the first are zero.

    Returns:
        (B, T, C). Gradients of any order.
    """
    if runs_here(x_BTC, weight_CK, bias_C):
        from trainables.ops.convolution import compiled

        return compiled.CausalConvolutionSilu.apply(x_BTC, weight_CK, bias_C)
    return reference.causal_convolution_silu(x_BTC, weight_CK, bias_C)
