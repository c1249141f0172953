"""Evidence: what a trial predicted, and what it lost, at every scored timestamp of a complete fold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainables.durable import write_durably
from trainables.training.family import Score


def write_evidence(path: Path, known_time: NDArray[np.int64], score: Score, metadata: Mapping[str, str]) -> None:
    """Write one fold's evidence as Parquet, whole or not at all.

    Columns: `timestamp` (int64, ns UTC: the moment of decision), `loss`, `crps` where there is one,
    `prediction_<h>`, `target_<h>` and maybe `scale_<h>` of each horizon, and the score's further columns and
    outcomes, float32.

    Args:
        path: Target file; its folder is made.
        known_time: (n,) ns UTC, increasing.
        score: What the model said; all arrays (n,).
        metadata: Text by name, kept in the file's schema.

    Raises:
        ValueError: A column has another length than `known_time`.
    """
    columns: dict[str, NDArray] = {"timestamp": known_time, "loss": score.loss}
    if score.crps is not None:
        columns["crps"] = score.crps
    for horizon, (prediction, target) in score.forecasts.items():
        columns[f"prediction_{horizon}"] = prediction
        columns[f"target_{horizon}"] = target
    columns |= {f"scale_{horizon}": scale for horizon, scale in score.scales.items()}
    columns |= {**score.columns, **score.outcomes}
    for name, values in columns.items():
        if len(values) != len(known_time):
            raise ValueError(f"evidence.{name}: expected {len(known_time)} rows, found {len(values)}")
    arrays = [pa.array(v if n == "timestamp" else np.asarray(v, dtype=np.float32)) for n, v in columns.items()]
    table = pa.Table.from_arrays(arrays, names=list(columns)).replace_schema_metadata(dict(metadata))
    write_durably(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
