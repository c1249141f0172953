"""The training loop: steps from here to there, each judged by the stability telemetry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainables.config import FamilyConfig
from trainables.training.batches import StepPlan, Windows
from trainables.training.engine import Engine
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
    """

    fold: int
    step: int
    n_steps: int
    loss: float
    gradient_norm: float
    learning_rate: float
    n_rows: int


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
                )
            )
        if stability.record(step.loss, step.gradient_norm):
            total += step.loss
            n_finite += 1
        stability.check(fold, step.gradient_norm, limits)
    return total / n_finite if n_finite else None
