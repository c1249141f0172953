"""Which rows a step trains on, and the windows that end there. Everything is a pure function of seed and step.

Shape letters: N rows, F features, T rows of a window, B windows of a micro-batch, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.windows import gather
from trainables.training.family import Batch
from trainables.training.workers import ALONE, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRows:
    """What one process trains on in a step.

    Attributes:
        micro_batches: Row positions of each micro-batch.
        weights: Factor of each one's mean loss that makes the mean over all micro-batches, those of other processes
            included, the mean over the rows of the step (TRAIN-6).
    """

    micro_batches: list[NDArray[np.int64]]
    weights: list[float]


class StepPlan:
    """Row positions of every optimiser step of a fold; no state, so a trial resumes at any step.

    An epoch is a seeded permutation of runs of `run_length` training rows in time order (1: of single rows), cut evenly
    into steps of at most `batch_size * accum_steps` rows and each step evenly into `accum_steps` micro-batches: sizes
    differ by at most one run. Single rows are never dropped; of runs, the rows that do not fill one are left out at
    either end of an epoch, by a seeded choice. First steps may have a plan of their own (`begin_with`).

    Of several processes each has a micro-batch of its own at a time, so the step is that many times as large (TRAIN-4).
    `split` cuts every micro-batch once more, where it did not fit into memory: the rows of a step stay the same.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        *,
        batch_size: int,
        accum_steps: int,
        epochs: int,
        seed: int,
        run_length: int = 1,
        split: int = 1,
        workers: Workers = ALONE,
    ) -> None:
        """Plan the steps over `rows`, (n,) positions in time order; a row may occur repeatedly.

        Raises:
            ValueError: There are fewer runs than micro-batches of one step, or a micro-batch cannot hold a run.
        """
        n_runs = len(rows) // run_length
        if n_runs < accum_steps * workers.size:
            runs = "training rows" if run_length == 1 else f"runs of {run_length} training rows"
            raise ValueError(
                f"accum_steps: expected at most as many micro-batches as {runs} ({n_runs}), "
                f"found {accum_steps * workers.size}; lower it"
            )
        if batch_size < run_length:
            raise ValueError(
                f"batch_size: expected at least one run of {run_length} rows, found {batch_size}; raise it"
            )
        self._rows = rows
        self._run_length = run_length
        self._workers = workers
        self.n_micro_batches = accum_steps * split
        self._seed = seed
        self._epoch = -1
        self._order = rows
        self.steps_per_epoch = math.ceil(n_runs / (batch_size // run_length * accum_steps * workers.size))
        self.n_steps = epochs * self.steps_per_epoch
        self._first: StepPlan | None = None
        self._n_first_steps = 0

    def begin_with(self, first: StepPlan, n_steps: int) -> None:
        """Take the first `n_steps` steps from another plan, over easier rows, as often as that takes (TRAIN-2)."""
        self._first, self._n_first_steps = first, n_steps

    def step(self, number: int) -> StepRows:
        """Return this process's part of a step, counted from 0 over all epochs.

        A step at the end of a short epoch may have fewer runs than micro-batches: an empty one takes a row of its
        neighbour with weight zero, because every process has to take part in every exchange.
        """
        everything = self.micro_batches(number)
        n_rows = sum(map(len, everything))
        own = everything[self._workers.rank :: self._workers.size]
        filler = next(rows for rows in everything if len(rows))[: self._run_length]
        return StepRows(
            micro_batches=[rows if len(rows) else filler for rows in own],
            weights=[len(rows) * len(everything) / n_rows for rows in own],
        )

    def micro_batches(self, step: int) -> list[NDArray[np.int64]]:
        """Return the row positions of each micro-batch of a step, over all processes; the first have more rows."""
        if self._first is not None and step < self._n_first_steps:
            return self._first.micro_batches(step)
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self._permuted(np.random.default_rng((self._seed, epoch)))
        runs = np.array_split(
            np.array_split(self._order, self.steps_per_epoch)[place], self.n_micro_batches * self._workers.size
        )
        return [run.reshape(-1) for run in runs]

    def _permuted(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the epoch's runs, (n_runs, run_length)."""
        n_runs, n_over = divmod(len(self._rows), self._run_length)
        first = int(rng.integers(n_over + 1))
        return rng.permutation(self._rows[first : first + n_runs * self._run_length].reshape(n_runs, -1))


class Windows:
    """Scaled features and targets of a fold, as batches on a device."""

    def __init__(
        self,
        features_NF: NDArray[np.float32],
        targets_NK: NDArray[np.float32],
        *,
        lookback: int,
        device: torch.device,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Keep the arrays; `normalise` maps windows (B, T, F) to windows, for scaling by a window's own statistics."""
        self._features = features_NF
        self._targets = torch.from_numpy(targets_NK)
        self._lookback = lookback
        self._device = device
        self._normalise = normalise

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the windows that end at `rows`, and the targets of these rows."""
        windows = gather(self._features, rows, self._lookback).to(self._device, non_blocking=True)
        if self._normalise is not None:
            windows = self._normalise(windows)
        targets = self._targets.index_select(0, torch.from_numpy(rows)).to(self._device, non_blocking=True)
        return Batch(windows=windows, targets=targets)

    def batches(self, rows: NDArray[np.int64], size: int) -> Iterator[Batch]:
        """Yield consecutive batches of at most `size` windows over `rows`, in their order."""
        for start in range(0, len(rows), size):
            yield self.batch(rows[start : start + size])
