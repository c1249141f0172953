"""Small datasets with chosen times, for tests of folds and windows."""

from __future__ import annotations

import numpy as np

from trainables.data.dataset import NO_LABEL, Dataset
from trainables.data.zones import NS_PER_DAY


def make_dataset(n_rows, *, start=0, step=NS_PER_DAY, label_span=NS_PER_DAY, segment=None, usable=None):
    """Rows at a fixed step; each label takes `label_span` ns (a number or an array); NO_LABEL stays NO_LABEL."""
    known = start + step * np.arange(n_rows, dtype=np.int64)
    span = np.broadcast_to(np.asarray(label_span, dtype=np.int64), (n_rows,))
    has_label = span != NO_LABEL
    return Dataset(
        known_time=known,
        features=np.arange(2 * n_rows, dtype=np.float32).reshape(n_rows, 2),
        feature_names=("a", "b"),
        targets=np.zeros((n_rows, 1), dtype=np.float32),
        target_names=("y",),
        label_end=np.where(has_label, known + np.where(has_label, span, 0), NO_LABEL),
        usable=np.ones(n_rows, dtype=bool) if usable is None else usable,
        segment=np.zeros(n_rows, dtype=np.int64) if segment is None else segment,
        marks={},
        snapshot="test",
    )
