"""Which rows a step trains on, and the windows that end there. Everything is a pure function of seed and step.

Shape letters: N rows, F features, T rows of a window, B windows of a micro-batch, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.windows import gather
from trainables.training.family import Batch


class StepPlan:
    """Row positions of every optimiser step of a fold; no state, so a trial resumes at any step.

    An epoch is a seeded permutation of the training rows, cut evenly into steps of at most `batch_size * accum_steps`
    rows and each step evenly into `accum_steps` micro-batches: sizes differ by at most one row, and no row is dropped.
    """

    def __init__(self, rows: NDArray[np.int64], *, batch_size: int, accum_steps: int, epochs: int, seed: int) -> None:
        """Plan the steps over `rows`, (n,) positions.

        Raises:
            ValueError: There are fewer rows than micro-batches of one step.
        """
        if len(rows) < accum_steps:
            raise ValueError(
                f"accum_steps: expected at most as many micro-batches as training rows ({len(rows)}), found {accum_steps}"
            )
        self._rows = rows
        self._accum_steps = accum_steps
        self._seed = seed
        self._epoch = -1
        self._order = rows
        self.steps_per_epoch = math.ceil(len(rows) / (batch_size * accum_steps))
        self.n_steps = epochs * self.steps_per_epoch

    def micro_batches(self, step: int) -> list[NDArray[np.int64]]:
        """Return the row positions of each micro-batch of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._rows)
        return np.array_split(np.array_split(self._order, self.steps_per_epoch)[place], self._accum_steps)


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
        """Keep the arrays; `normalise` maps windows (B, T, F) to windows, for scaling whose statistics are the window's."""
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
