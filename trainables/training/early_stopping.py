"""Early stopping of a fold: which rows it looks at, when it is over, and the weights to go back to (TRAIN-3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainables.config import FamilyConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldRows


@dataclass(slots=True, kw_only=True)
class EarlyStopping:
    """Counts of epochs, plain numbers, and the best weights, tensors: a checkpoint holds both.

    Attributes:
        patience: Epochs without a lower loss after which the fold is over.
        n_epochs: Epochs heard.
        best_epoch: The one with the lowest loss, from 1; 0 before any was finite.
        best_loss: Its loss; None before any was finite.
        best: Weights and buffers after it, on the CPU.
    """

    patience: int
    n_epochs: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    def hear(self, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Take in the loss after an epoch, and keep its weights where it is the lowest; NaN is never the lowest."""
        self.n_epochs += 1
        if np.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.best_epoch = loss, self.n_epochs
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    @property
    def is_over(self) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return self.n_epochs - self.best_epoch >= self.patience

    def metrics(self) -> dict[str, float]:
        """Return how many epochs were trained and which was the best."""
        return {"epochs_trained": float(self.n_epochs), "best_epoch": float(self.best_epoch)}

    def to_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {"n_epochs": self.n_epochs, "best_epoch": self.best_epoch, "best_loss": self.best_loss}

    def restore(self, counts: Mapping[str, Any], best: Mapping[str, Tensor]) -> None:
        """Go on from what a checkpoint holds."""
        self.n_epochs, self.best_epoch, self.best_loss = (
            counts[name] for name in ("n_epochs", "best_epoch", "best_loss")
        )
        self.best = dict(best)


def hold_out(config: FamilyConfig, dataset: Dataset, rows: FoldRows) -> tuple[FoldRows, NDArray[np.int64]]:
    """Return the fold's rows without those that early stopping looks at, and these.

    Of `training_tail` the last `stop_frac` of the training rows are held out, and rows whose label reaches the first of
    them are left out of training, as between training and validation (WF-4).

    Raises:
        ValueError: Nothing would be left to train on.
    """
    if config.patience is None:
        return rows, rows.validation[:0]
    if config.stop_rows == "validation":
        return rows, rows.validation
    n_held = max(1, round(config.stop_frac * len(rows.train)))
    held = rows.train[-n_held:]
    train = rows.train[:-n_held]
    train = train[dataset.label_end[train] < dataset.known_time[held[0]]]
    if not len(train):
        raise ValueError(
            f"patience: expected training rows beside the {n_held} that early stopping holds out, found none of "
            f"{len(rows.train)}; lower stop_frac, or set patience: null"
        )
    return replace(rows, train=train), held
