"""Root-mean-square norms in plain PyTorch: any device and floating type. The judge of the compiled form."""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, gate: Tensor | None, epsilon: float) -> Tensor:
    """Return the norm of x over its last axis, or of x times SiLU(gate)."""
    if gate is not None:
        x = x * functional.silu(gate)
    return functional.rms_norm(x, weight.shape, weight, epsilon)
