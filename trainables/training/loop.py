"""The training loop: steps from here to there, each judged by the stability telemetry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainables.config import FamilyConfig
from trainables.training.batches import StepPlan, Windows
from trainables.training.engine import Engine
from trainables.training.family import Batch, Family
from trainables.training.options import RunOptions
from trainables.training.schedule import learning_rate_factor
from trainables.training.stability import Stability

OnStep = Callable[["StepReport"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """Told after every optimiser step.

    Attributes:
        fold: Fold number.
        step: Steps of the fold that are done.
        n_steps: Steps of the whole fold.
        loss: Mean training loss over the rows of the step; not finite where it was skipped.
        gradient_norm: Before clipping.
        learning_rate: Of the step.
        n_rows: Windows that this process trained on.
        heads: Mean loss of each output over them, where the trial keeps curves (TRAIN-12).
    """

    fold: int
    step: int
    n_steps: int
    loss: float
    gradient_norm: float
    learning_rate: float
    n_rows: int
    heads: Mapping[str, float] = field(default_factory=dict)


class HeadLosses:
    """A family's training loss that notes the loss of each output on the way, as means over the rows of a step."""

    def __init__(self, family: Family, config: Any) -> None:
        self._family = family
        self._config = config
        self._sums: dict[str, Tensor] = {}
        self._n_rows = 0

    def __call__(self, outputs: Any, batch: Batch) -> Tensor:
        loss = self._family.loss(self._config, outputs, batch)
        with torch.no_grad():
            for name, value in self._family.head_losses(self._config, outputs, batch).items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * len(batch.targets)
        self._n_rows += len(batch.targets)
        return loss

    def take(self) -> dict[str, float]:
        """Return the means since the last call."""
        sums, n_rows = self._sums, self._n_rows
        self._sums, self._n_rows = {}, 0
        if not sums:
            return {}
        return dict(zip(sums, (torch.stack(list(sums.values())) / n_rows).tolist(), strict=True))


def train_steps(
    engine: Engine,
    windows: Windows,
    plan: StepPlan,
    config: FamilyConfig,
    *,
    steps: range,
    stability: Stability,
    fold: int,
    limits: RunOptions,
    on_step: OnStep | None = None,
    heads: HeadLosses | None = None,
) -> float | None:
    """Train the given steps and return the mean objective of the finite ones, None where there was none.

    Learning rate and rows depend on the step's number alone: where a range is cut into two, the result is the same.

    Raises:
        TrialDiverged: See `Stability.check`; `stability` is updated in place.
    """
    total, n_finite = 0.0, 0
    for number in steps:
        factor = learning_rate_factor(
            config.lr_schedule, number, total_steps=plan.n_steps, warmup_steps=config.warmup_steps
        )
        rows = plan.step(number)
        micro_batches = [windows.batch(part) for part in rows.micro_batches]
        step = engine.train_step(micro_batches, config.lr * factor, rows.weights)
        if on_step is not None:
            on_step(
                StepReport(
                    fold=fold,
                    step=number + 1,
                    n_steps=plan.n_steps,
                    loss=step.loss,
                    gradient_norm=step.gradient_norm,
                    learning_rate=config.lr * factor,
                    n_rows=sum(map(len, rows.micro_batches)),
                    heads={} if heads is None else heads.take(),
                )
            )
        if stability.record(step.loss, step.gradient_norm):
            total += step.loss
            n_finite += 1
        stability.check(fold, step.gradient_norm, limits)
    return total / n_finite if n_finite else None
