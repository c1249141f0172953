"""What a family trains on: features, targets and the times that make purging possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Rows in time order, or those of several contracts one after another.

    A sample is the window of `lookback` rows that ends at a row, with that row's targets.

    Attributes:
        known_time: (n_rows,) int64 ns UTC. When the features of a row are known: the moment of decision.
        features: (n_rows, n_features) float32, often a memory map; NaN where a feature is not known.
        feature_names: Names, in column order.
        targets: (n_rows, n_targets) float32; NaN where there is no label.
        target_names: Names, in column order.
        label_end: (n_rows,) int64 ns UTC. When the last of the row's labels is known; at or after known_time.
            Rows without a label hold the largest int64.
        usable: (n_rows,) bool. Features of the row itself are finite and the label exists.
        segment: (n_rows,) int64. Windows never cross segments.
        scored: (n_rows,) bool. The row of its moment that stands for it where there are several; None: every row does.
        marks: What is modelled, not measured.
        snapshot: Content hash of all of the above.
    """

    known_time: NDArray[np.int64]
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    targets: NDArray[np.float32]
    target_names: tuple[str, ...]
    label_end: NDArray[np.int64]
    usable: NDArray[np.bool_]
    segment: NDArray[np.int64]
    marks: Mapping[str, str]
    snapshot: str
    scored: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.known_time)


NO_LABEL = np.iinfo(np.int64).max
"""`label_end` of a row without a label."""
