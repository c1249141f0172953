"""The training loop: steps from here to there, each judged by the stability telemetry."""

from __future__ import annotations

from trainables.config import FamilyConfig
from trainables.training.batches import StepPlan, Windows
from trainables.training.engine import Engine
from trainables.training.options import RunOptions
from trainables.training.schedule import learning_rate_factor
from trainables.training.stability import Stability


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
        micro_batches = [windows.batch(rows) for rows in plan.micro_batches(number)]
        step = engine.train_step(micro_batches, config.lr * factor)
        if stability.record(step.loss, step.gradient_norm):
            total += step.loss
            n_finite += 1
        stability.check(fold, step.gradient_norm, limits)
    return total / n_finite if n_finite else None
