"""Curves of a trial: what every optimiser step was, a file a fold, written at every rung (TRAIN-12, TRAIN-14)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainables.durable import write_durably
from trainables.training.loop import StepReport


class Curves:
    """Collects the steps of the fold that is trained; a resumed fold goes on with those that are on disk."""

    def __init__(self, folder: Path, *, lookback: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Write below `folder`; `lookback` turns rows into tokens, which are rows of windows."""
        self._folder = folder
        self._lookback = lookback
        self._clock = clock
        self._before = clock()
        self._fold = -1
        self._rows: list[dict[str, float]] = []

    def add(self, step: StepReport) -> None:
        """Take in a step; steps that follow it and are there already were those of a lost attempt."""
        if step.fold != self._fold:
            self._fold = step.fold
            self._rows = pq.read_table(self._path).to_pylist() if self._path.is_file() else []
        while self._rows and self._rows[-1]["step"] >= step.step:
            self._rows.pop()
        now = self._clock()
        seconds, self._before = now - self._before, now
        self._rows.append(
            {
                "step": step.step,
                "batch/train_loss": step.loss,
                "batch/gradient_norm": step.gradient_norm,
                "batch/learning_rate": step.learning_rate,
                "tokens_per_s": step.n_rows * self._lookback / max(seconds, 1e-9),
                **{f"batch/{name}": value for name, value in step.heads.items()},
            }
        )

    @property
    def _path(self) -> Path:
        return self._folder / f"fold-{self._fold:02d}.parquet"

    def write(self) -> None:
        """Write all steps of the fold so far as Parquet, whole or not at all."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows)
            write_durably(self._path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
