"""Where the compiled CPU kernels can run. Imports no numba: a GPU machine may lack it."""

from __future__ import annotations

import torch
from torch import Tensor


def runs_here(*tensors: Tensor | None) -> bool:
    """Return whether the compiled kernels know these tensors: float32 on a CPU, outside of torch.compile and vmap."""
    given = [each for each in tensors if each is not None]
    return (
        all(each.dtype is torch.float32 and each.device.type == "cpu" for each in given)
        and not torch.compiler.is_compiling()
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(each) for each in given)
    )
