"""What a family adds to the shared walk over folds (`trainables.training.walk`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.config import FamilyConfig
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A micro-batch.

    Attributes:
        windows: (B, T, F) float32, scaled and clipped, newest row last.
        targets: (B, K) float32, columns as `Dataset.target_names`.
    """

    windows: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a fitted model says at each scored row; becomes the fold's evidence.

    Attributes:
        loss: (n,) the family's fixed reference loss (LOSS-11), independent of training-loss settings.
        crps: (n,) continuous ranked probability score (Brier score for a binary target), or None.
        forecasts: horizon label (`1d`, `5m`, ...) -> (prediction, realised value), each (n,): the pairs of the IC.
        scales: horizon label -> predicted standard deviation, (n,), where the model gives one.
        columns: What else the model says, by name, each (n,), such as quantiles or probabilities.
        outcomes: Further evidence columns that it does not say: what happened, and `baseline_loss`, `baseline_crps`,
            the scores of a naive forecast on the same rows (ANALYSIS-4).
        metrics: Further measures of the fold, such as `regime_accuracy`; finite.
    """

    loss: NDArray[np.float32]
    crps: NDArray[np.float32] | None
    forecasts: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    scales: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    outcomes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def predictions(self) -> dict[str, NDArray[np.float32]]:
        """Return what the model says under the names of the evidence: `prediction_<h>`, `scale_<h>`, and columns."""
        said = {f"prediction_{horizon}": prediction for horizon, (prediction, _) in self.forecasts.items()}
        return {**said, **{f"scale_{horizon}": scale for horizon, scale in self.scales.items()}, **self.columns}


class Family(Protocol):
    """A kind of model. One instance per family, named FAMILY, in its `trainable.py`; holds no state.

    A family inherits from this class: what has a body here does nothing special unless the family says otherwise.
    """

    name: str

    def dataset(
        self,
        config: Any,
        data: DataConfig,
        folds: FoldsConfig,
        reach: Mapping[str, tuple[Any, ...]],
        store: Path,
    ) -> Dataset:
        """Return features, targets and label ends, without any row of the vault; cached below `store` by content."""
        ...

    def build_model(self, config: Any, feature_names: tuple[str, ...]) -> nn.Module:
        """Return a fresh model; `model(windows_BTF)` gives the outputs that `loss` and `score` take."""
        ...

    def loss(self, config: Any, outputs: Any, batch: Batch) -> Tensor:
        """Return the scalar training loss of a micro-batch."""
        ...

    def reference_loss(self, config: Any, outputs: Any, batch: Batch) -> Tensor:
        """Return the (B,) reference loss (LOSS-11), differentiable: it is also what flatness is measured on."""
        ...

    def score(self, config: Any, outputs: Any, targets: Tensor) -> Score:
        """Turn the outputs for all scored rows, (n, ...), and their targets (n, K) into a score, without gradients."""
        ...

    def statistics(self, config: Any, targets_train: NDArray[np.float32]) -> Any:
        """Return the config with what the family takes from the targets of a fold's training rows (WF-5).

        Model, losses and score of the fold get this config, and the saved model holds it. Fields that are filled here
        are none that a person writes: class counts, scales of targets.

        Args:
            config: As the trial has it.
            targets_train: (n_train, K), columns as `Dataset.target_names`.
        """
        return config

    def draws(self, config: Any, targets_train: NDArray[np.float32]) -> NDArray[np.int64] | slice:
        """Return which of the training rows an epoch consists of, as positions in them; a row may occur repeatedly."""
        return slice(None)

    def export(self, folder: Path) -> None:
        """Write further files of a trained model below `folder`, which holds those of `artifact`."""

    def warmup_rows(self, config: Any, dataset: Dataset, train: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the training rows that learning-rate warm-up is limited to (TRAIN-2); None: there is no limit."""
        return None

    def forecast(self, config: Any, model: nn.Module, windows: Tensor) -> Any:
        """Return what a model in evaluation mode forecasts, as outputs that `score` takes; called without gradients."""
        return model(windows)

    def head_losses(self, config: Any, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Return the mean loss of each output on a micro-batch, scalars, for the curves; none unless it says so."""
        return {}


__all__ = ["Batch", "Family", "FamilyConfig", "Score"]
