"""What the compiled CPU kernels share: how they are compiled, an exponential of vectors, threads, rows of a view.

They are numba because numba is here anyway and needs no compiler at run time; they exist for float32 on a CPU only.
Each stands behind an autograd function whose second derivative is that of the plain PyTorch form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numba
import numpy as np
import torch
from torch import Tensor

SAFE_FAST_MATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning, so that a bad batch is seen."""

# a kernel's cache looks at its own file only: whoever changes exp32 deletes the folders __pycache__ beside the kernels
kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=SAFE_FAST_MATH)

ONE = np.float32(1)
HALF = np.float32(0.5)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST, HIGHEST = np.float32(-87.3), np.float32(88.0)
E2, E3, E4, E5, E6, E7 = (
    np.float32(value)
    for value in (0.50000001201, 0.16666665459, 0.041665795894, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
)
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)


@numba.njit(inline="always", fastmath=SAFE_FAST_MATH)
def exp32(x):
    """Return exp(x) in float32 to 1e-7 of its value, between exp(-87) and exp(88); the compiler makes vectors of it.

    exp(x) = 2^n exp(r) with |r| <= ln(2) / 2; the polynomial is that of Moshier's Cephes (expf).
    """
    x = min(max(x, LOWEST), HIGHEST)
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    tail = ((((E7 * r + E6) * r + E5) * r + E4) * r + E3) * r + E2
    power = np.int32((np.int32(n) + EXPONENT_BIAS) << MANTISSA_BITS).view(np.float32)
    return (tail * r * r + r + ONE) * power


def in_parts(n: int, run: Callable[..., None], *arguments: object) -> None:
    """Call `run(first, last, *arguments)` over the range 0..n, cut into as many parts as PyTorch has threads."""
    threads = min(torch.get_num_threads(), n)
    if threads <= 1:
        run(0, n, *arguments)
        return
    edges = [n * part // threads for part in range(threads + 1)]
    parts = [_pool().submit(run, first, last, *arguments) for first, last in pairwise(edges)]
    for part in parts:
        part.result()


def rows(x: Tensor) -> tuple[np.ndarray, int]:
    """Return the numbers of x from its first on, flat, and how far apart its rows are; copies only where it must.

    A part of the channels of a contiguous tensor comes as it is: flat and with unit stride, which compilers want.
    """
    x = x.detach()
    stride = x.stride(-2) if x.dim() > 1 else x.shape[-1]
    inner = x.stride(-1) == 1 or x.shape[-1] == 1
    uniform = all(x.stride(i) == x.stride(i + 1) * x.shape[i + 1] or x.shape[i] == 1 for i in range(x.dim() - 2))
    if not (inner and uniform and stride >= x.shape[-1]):
        x, stride = x.contiguous(), x.shape[-1]
    n_rows = x.numel() // x.shape[-1]
    return x.as_strided(((n_rows - 1) * stride + x.shape[-1],), (1,)).numpy(), stride


def gradients_of(
    plain: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a plain form's outputs by its inputs, such that they can be differentiated again."""
    # aliases, because one input may have been computed from another, and a gradient must not follow that way
    inputs = [None if each is None else each.view_as(each) for each in inputs]
    wanted = [each for each in inputs if each is not None and each.requires_grad]
    found = iter(torch.autograd.grad(plain(*inputs), wanted, gradients, create_graph=True, allow_unused=True))
    return tuple(next(found) if each is not None and each.requires_grad else None for each in inputs)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kernel")
