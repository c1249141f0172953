"""Root-mean-square norms: the compiled form where it can run, else plain PyTorch."""

from __future__ import annotations

from torch import Tensor

from trainables.ops.dispatch import runs_here
from trainables.ops.norm import reference


def rms_norm(x: Tensor, weight_C: Tensor, *, gate: Tensor | None = None, epsilon: float) -> Tensor:
    """Divide x, or x times SiLU(gate), by its root mean square over the last axis, and weight each channel.

    Source: Zhang & Sennrich (2019), arXiv 1910.07467, equation 4; with the gate Dao & Gu (2024), section 7.1.

    Returns:
        Of the shape of x. Gradients of any order.
    """
    if runs_here(x, weight_C, gate):
        from trainables.ops.norm import compiled

        return compiled.RMSNorm.apply(x, weight_C, gate, epsilon)
    return reference.rms_norm(x, weight_C, gate, epsilon)
