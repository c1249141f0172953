"""Root-mean-square norms, with and without a gate, as one compiled pass forward and one backward (CPU, float32).

Letters: R rows (all axes but the last), C channels.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from trainables.ops.compiled import ONE, exp32, gradients_of, in_parts, kernel, rows
from trainables.ops.norm import reference

PARTS = 16
"""Parts of the rows that sum the weight's gradient on their own; a fixed number, so that threads change no bit."""


class RMSNorm(torch.autograd.Function):
    """`reference.rms_norm`; what is kept are the inputs and one number a row."""

    @staticmethod
    def forward(ctx, x: Tensor, weight_C: Tensor, gate: Tensor | None, epsilon: float) -> Tensor:
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        n_rows, channels = x.numel() // x.shape[-1], x.shape[-1]
        inverse_R = x.new_empty(n_rows)
        ctx.save_for_backward(x, weight_C, gate, inverse_R)
        ctx.epsilon = epsilon
        arrays = (*rows(x), *(rows(x) if gate is None else rows(gate)), gate is not None)
        outputs = (y.view(n_rows, channels).numpy(), inverse_R.numpy(), np.float32(epsilon))
        weight = weight_C.detach().numpy()
        in_parts(n_rows, _forward, *arrays, weight, *outputs)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_C, gate, inverse_R = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(_plain, epsilon=ctx.epsilon)
            return *gradients_of(plain, (x, weight_C, gate), (gradient,)), None
        n_rows, channels = inverse_R.numel(), x.shape[-1]
        gx = torch.empty_like(x, memory_format=torch.contiguous_format)
        g_gate = gx if gate is None else torch.empty_like(gx)
        parts_PC = x.new_zeros(PARTS, channels)
        arrays = (*rows(x), *(rows(x) if gate is None else rows(gate)), gate is not None)
        given = (weight_C.numpy(), inverse_R.numpy(), *rows(gradient))
        found = (gx.view(n_rows, channels).numpy(), g_gate.view(n_rows, channels).numpy(), parts_PC.numpy())
        in_parts(PARTS, _backward, *arrays, *given, *found)
        return gx, parts_PC.sum(0), None if gate is None else g_gate, None


def _plain(x: Tensor, weight_C: Tensor, gate: Tensor | None, *, epsilon: float) -> Tensor:
    return reference.rms_norm(x, weight_C, gate, epsilon)


@kernel
def _gated(v, x, gate, has_gate):
    if not has_gate:
        v[:] = x
        return
    for c in range(v.size):
        v[c] = x[c] * gate[c] / (ONE + exp32(-gate[c]))


@kernel
def _forward(first, last, x, x_stride, gate, gate_stride, has_gate, weight, y, inverse, epsilon):
    channels = weight.size
    for r in range(first, last):
        row = y[r]
        i, j = r * x_stride, r * gate_stride
        _gated(row, x[i : i + channels], gate[j : j + channels], has_gate)
        total = np.float32(0)
        for c in range(channels):
            total += row[c] * row[c]
        scale = ONE / np.sqrt(total / np.float32(channels) + epsilon)
        inverse[r] = scale
        for c in range(channels):
            row[c] = row[c] * scale * weight[c]


@kernel
def _backward(
    first, last, x, x_stride, gate, gate_stride, has_gate, weight, inverse, gradient, g_stride, gx, g_gate, parts
):
    """With v = x SiLU(z) and y = v s w: dv = s (g w - v s^2 mean(g w v)), then the product rule for x and z."""
    channels, n_rows, n_parts = weight.size, inverse.size, parts.shape[0]
    v = np.empty(channels, np.float32)
    for part in range(first, last):
        g_weight = parts[part]
        for r in range(n_rows * part // n_parts, n_rows * (part + 1) // n_parts):
            i, j, o = r * x_stride, r * gate_stride, r * g_stride
            x_r, z_r, g = x[i : i + channels], gate[j : j + channels], gradient[o : o + channels]
            to_x, to_gate, scale = gx[r], g_gate[r], inverse[r]
            _gated(v, x_r, z_r, has_gate)
            total = np.float32(0)
            for c in range(channels):
                total += g[c] * weight[c] * v[c]
                g_weight[c] += g[c] * v[c] * scale
            pull = total * scale * scale / np.float32(channels)
            for c in range(channels):
                to_x[c] = scale * (g[c] * weight[c] - v[c] * pull)
            if has_gate:
                for c in range(channels):
                    z, gv = z_r[c], to_x[c]
                    sigmoid = ONE / (ONE + exp32(-z))
                    to_gate[c] = gv * x_r[c] * sigmoid * (ONE + z * (ONE - sigmoid))
                    to_x[c] = gv * z * sigmoid
