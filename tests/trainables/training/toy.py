"""A family of two dozen parameters on synthetic rows, for tests of the walk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config import FamilyConfig
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import NO_LABEL, Dataset
from trainables.data.loader import load_times
from trainables.protocol import RungReport
from trainables.training.family import Batch, Family, Score

NAMES = ("move", "level", "noise")


class ToyConfig(FamilyConfig):
    lookback: int = 4
    width: int = 5
    epochs: int = 4
    batch_size: int = 16
    lr: float = 1e-2
    poison_loss: bool = False
    """Make every training loss NaN."""
    loss_gain: float = 1.0
    """Multiply every training loss, and so the gradient."""

    def n_parameters(self) -> int:
        return (self.lookback * len(NAMES) + 2) * self.width + 1

    def memory_bytes(self) -> int:
        return 16 * self.n_parameters()

    def forward_flops(self) -> float:
        return 2.0 * self.n_parameters()

    def at_fidelity(self, *, width_frac: float, depth_frac: float) -> ToyConfig:
        return self.model_copy(update={"width": max(1, round(width_frac * self.width))})

    @classmethod
    def scored_lookback(cls, reach: Mapping[str, tuple[Any, ...]]) -> int:
        return max(reach.get("lookback", (4,)))


class ToyModel(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(config.lookback * len(NAMES), config.width),
            nn.Tanh(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, 1),
        )

    def forward(self, windows_BTF: Tensor) -> Tensor:
        return self.layers(windows_BTF).squeeze(-1)


class ToyFamily(Family):
    name = "toy"

    def dataset(
        self, config: Any, data: DataConfig, folds: FoldsConfig, reach: Mapping[str, tuple[Any, ...]], store: Path
    ) -> Dataset:
        known_time = load_times(data, folds, vault="closed")
        rng = np.random.default_rng(7)
        move = rng.standard_normal(len(known_time)).astype(np.float32)
        features = np.stack([move, np.cumsum(move), rng.standard_normal(len(move))], axis=1).astype(np.float32)
        target = np.full((len(move), 1), np.nan, dtype=np.float32)
        target[:-1, 0] = 0.5 * move[:-1] + 0.1 * move[1:]
        label_end = np.append(known_time[1:], NO_LABEL)
        return Dataset(
            known_time=known_time,
            features=features,
            feature_names=NAMES,
            targets=target,
            target_names=("next",),
            label_end=label_end,
            usable=np.isfinite(target[:, 0]),
            segment=np.zeros(len(move), dtype=np.int64),
            marks={"target": "synthetic"},
            snapshot=f"toy-{len(move)}",
        )

    def build_model(self, config: Any, feature_names: tuple[str, ...]) -> nn.Module:
        return ToyModel(config)

    def loss(self, config: Any, outputs: Any, batch: Batch) -> Tensor:
        loss = self.reference_loss(config, outputs, batch).mean()
        return loss * (float("nan") if config.poison_loss else config.loss_gain)

    def reference_loss(self, config: Any, outputs: Any, batch: Batch) -> Tensor:
        return (outputs - batch.targets[:, 0]) ** 2

    def head_losses(self, config: Any, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        return {"next": self.reference_loss(config, outputs, batch).mean()}

    def score(self, config: Any, outputs: Any, targets: Tensor) -> Score:
        target = targets[:, 0].numpy()
        prediction = outputs.numpy()
        return Score(
            loss=(prediction - target) ** 2,
            crps=np.abs(prediction - target),
            forecasts={"1d": (prediction, target)},
            scales={"1d": np.ones_like(target)},
            columns={"twice": 2 * prediction},
            metrics={"bias": float((prediction - target).mean())},
        )


FAMILY = ToyFamily()


def toy_batches(n_steps: int, n_rows: int = 16, seed: int = 0) -> list[list[Batch]]:
    """Return for each step two micro-batches of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    cut = n_rows // 2 + 1
    steps = []
    for _ in range(n_steps):
        windows = torch.randn(n_rows, 4, len(NAMES), generator=generator)
        targets = torch.randn(n_rows, 1, generator=generator)
        halves = (slice(None, cut), slice(cut, None))
        steps.append([Batch(windows=windows[half], targets=targets[half]) for half in halves])
    return steps


def without_times(reports: Iterable[RungReport]) -> list[RungReport]:
    """Return reports without what differs between two equal trainings: the time that they took."""
    return [
        replace(report, seconds=0.0, metrics={k: v for k, v in report.metrics.items() if k != "latency_ms"})
        for report in reports
    ]
