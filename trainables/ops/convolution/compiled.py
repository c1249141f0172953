"""The causal convolution with SiLU as one compiled pass forward and one backward (CPU, float32).

Letters: B batch, T time, C channels, K kernel length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainables.ops.compiled import ONE, exp32, gradients_of, in_parts, kernel, rows
from trainables.ops.convolution import reference


class CausalConvolutionSilu(torch.autograd.Function):
    """`reference.causal_convolution_silu` of (B, T, C); the sum before SiLU is computed again, not kept."""

    @staticmethod
    def forward(x_BTC: Tensor, weight_CK: Tensor, bias_C: Tensor) -> Tensor:
        batch, length, channels = x_BTC.shape
        y_BTC = x_BTC.new_empty(batch, length, channels)
        flat, stride = rows(x_BTC)
        weight_KC, bias, y = weight_CK.detach().t().contiguous().numpy(), bias_C.detach().numpy(), y_BTC.numpy()
        in_parts(batch, _forward, flat, stride, weight_KC, bias, y)
        return y_BTC

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient_BTC: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return gradients_of(reference.causal_convolution_silu, ctx.saved_tensors, (gradient_BTC,))
        x_BTC, weight_CK, bias_C = ctx.saved_tensors
        batch, length, channels = x_BTC.shape
        kernel_length = weight_CK.shape[1]
        gx_BTC = x_BTC.new_empty(batch, length, channels)
        parts_BKC = x_BTC.new_zeros(batch, kernel_length + 1, channels)
        flat, stride = rows(x_BTC)
        arrays = (weight_CK.t().contiguous().numpy(), bias_C.numpy(), gradient_BTC.contiguous().numpy())
        gx, parts = gx_BTC.numpy(), parts_BKC.numpy()
        in_parts(batch, _backward, flat, stride, *arrays, gx, parts)
        sums_KC = parts_BKC.sum(0)
        return gx_BTC, sums_KC[:-1].t(), sums_KC[-1]


@kernel
def _sum(before, t, flat, stride, first_row, weight, bias):
    """Write the convolution at one row, before SiLU."""
    length, channels = weight.shape
    if length == 4 and t >= 3:  # the papers' length in one pass over the channels instead of one a tap
        i = (first_row + t) * stride
        x0, x1 = flat[i - 3 * stride : i - 3 * stride + channels], flat[i - 2 * stride : i - 2 * stride + channels]
        x2, x3 = flat[i - stride : i - stride + channels], flat[i : i + channels]
        w0, w1, w2, w3 = weight[0], weight[1], weight[2], weight[3]
        for c in range(channels):
            before[c] = bias[c] + w0[c] * x0[c] + w1[c] * x1[c] + w2[c] * x2[c] + w3[c] * x3[c]
        return
    before[:] = bias
    for k in range(max(0, length - 1 - t), length):
        start = (first_row + t - length + 1 + k) * stride
        x, w = flat[start : start + channels], weight[k]
        for c in range(channels):
            before[c] += w[c] * x[c]


@kernel
def _forward(first, last, flat, stride, weight, bias, y):
    for b in range(first, last):
        for t in range(y.shape[1]):
            row = y[b, t]
            _sum(row, t, flat, stride, b * y.shape[1], weight, bias)
            for c in range(row.size):
                row[c] = row[c] / (ONE + exp32(-row[c]))


@kernel
def _backward(first, last, flat, stride, weight, bias, gradient, gx, parts):
    """Spread each row's gradient over the rows and weights that it came from; `parts` ends with the bias."""
    length, channels = weight.shape
    g = np.empty(channels, np.float32)
    for b in range(first, last):
        for t in range(gx.shape[1]):
            _sum(g, t, flat, stride, b * gx.shape[1], weight, bias)
            given, g_bias = gradient[b, t], parts[b, length]
            for c in range(channels):
                sigmoid = ONE / (ONE + exp32(-g[c]))
                g[c] = given[c] * sigmoid * (ONE + g[c] * (ONE - sigmoid))
                g_bias[c] += g[c]
            gx[b, t] = 0
            for k in range(max(0, length - 1 - t), length):
                row = t - length + 1 + k
                start = (b * gx.shape[1] + row) * stride
                x, w, g_w, g_x = flat[start : start + channels], weight[k], parts[b, k], gx[b, row]
                for c in range(channels):
                    g_w[c] += g[c] * x[c]
                    g_x[c] += g[c] * w[c]
