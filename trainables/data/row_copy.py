"""Copy of runs of rows: the C library's memcpy, called from a compiled loop.

Measured at 1.3 times torch's strided index_select and at the rate of one plain copy (`benchmarks/windows.py`); a loop
over elements, which the compiler turns into vector moves, reaches a fifth of it.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray


@intrinsic
def _copy_bytes(typingctx, target, source, n_bytes):  # type: ignore[no-untyped-def]
    """Copy `n_bytes` from one address to another; numba has no memcpy of its own to call."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        byte = cgutils.voidptr_t
        to, origin = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, origin, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.intp), generate


@njit(cache=True, nogil=True)
def copy_runs(rows_NF: NDArray[np.float32], starts_B: NDArray[np.int64], out_BTF: NDArray[np.float32]) -> None:
    """Write to `out[i]` the rows from `starts[i]` on. All arrays contiguous; bounds are the caller's to check."""
    row_bytes = rows_NF.shape[1] * rows_NF.itemsize
    run_bytes = out_BTF.shape[1] * row_bytes
    source, target = rows_NF.ctypes.data, out_BTF.ctypes.data
    for i in range(len(starts_B)):
        _copy_bytes(target + i * run_bytes, source + starts_B[i] * row_bytes, run_bytes)
