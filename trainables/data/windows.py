"""Windows over rows: views that copy nothing, and the one copy that makes a batch (DATA-20).

Shape letters: N rows, F features, T rows of a window, B windows of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trainables.data.dataset import Dataset

if TYPE_CHECKING:
    from torch import Tensor


def windows_view(features_NF: NDArray[np.float32], lookback: int) -> NDArray[np.float32]:
    """Return all windows as a read-only view, (N - T + 1, T, F); window i ends at row i + T - 1.

    Raises:
        ValueError: There are fewer than `lookback` rows.
    """
    return sliding_window_view(features_NF, lookback, axis=0).swapaxes(1, 2)


def gather(
    features_NF: NDArray[np.float32], ends: NDArray[np.int64], lookback: int, out: Tensor | None = None
) -> Tensor:
    """Return the windows that end at the given rows, newest row last.

    One copy per window, at about the speed of a plain memory copy; `out` saves the allocation.

    Args:
        features_NF: (N, F) float32, rows contiguous; a memory map is fine, and is only read.
        ends: (B,) positions of last rows, each at least `lookback - 1`, in any order.
        lookback: T, at least 1.
        out: (B, T, F) float32, contiguous, overwritten and returned; none: a fresh tensor.

    Raises:
        ValueError: A window would begin before the first row or end after the last; `features_NF` or `out` does not
            fit or is not contiguous.
    """
    import torch  # here, because the planner needs the lengths of windows only, at once

    from trainables.data.row_copy import copy_runs

    n_rows, n_features = features_NF.shape
    starts = np.asarray(ends, dtype=np.int64) - (lookback - 1)
    if len(starts) and (starts.min() < 0 or starts.max() + lookback > n_rows):
        raise ValueError(f"ends: expected {lookback - 1} to {n_rows - 1}, found {ends.min()} to {ends.max()}")
    if features_NF.dtype != np.float32 or not features_NF.flags.c_contiguous:
        raise ValueError("features: expected float32 rows one after another in memory, found others; copy them once")
    shape = (len(starts), lookback, n_features)
    batch = out if out is not None else torch.empty(shape, dtype=torch.float32)
    if tuple(batch.shape) != shape or batch.dtype != torch.float32 or not batch.is_contiguous():
        raise ValueError(f"out: expected float32 {shape}, contiguous, found {batch.dtype} {tuple(batch.shape)}")
    copy_runs(np.asarray(features_NF), starts, batch.numpy())
    return batch


def history_length(dataset: Dataset) -> NDArray[np.int64]:
    """Return for each row how many rows in a row, itself included, have complete features within its segment.

    A window of T rows may end at a row where this is at least T: it then holds no NaN and crosses no segment.
    """
    complete = np.isfinite(dataset.features).all(axis=1)
    position = np.arange(len(dataset))
    starts = np.ones(len(dataset), dtype=bool)
    starts[1:] = dataset.segment[1:] != dataset.segment[:-1]
    before = np.where(starts, position - 1, -1)
    broken = np.where(complete, before, position)
    return position - np.maximum.accumulate(broken) if len(dataset) else position
