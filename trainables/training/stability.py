"""Stability telemetry: tells a trial that left the finite numbers from one that stumbled (TRAIN-13)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainables.protocol import TrialDiverged
from trainables.training.options import RunOptions


@dataclass(slots=True, kw_only=True)
class Stability:
    """Counts of the steps of one fold; plain numbers, so that a checkpoint holds them.

    Attributes:
        n_steps: Optimiser steps seen.
        n_skipped: Steps whose loss or gradient was not finite; engines do not apply them.
        max_norm: Largest finite gradient norm before clipping.
        mean_norm: Mean of the finite norms.
        spread_norm: Sum of their squared deviations from it (Welford 1962: no cancellation).
        n_exploding: Length of the present run of steps above the limit.
    """

    n_steps: int = 0
    n_skipped: int = 0
    max_norm: float = 0.0
    mean_norm: float = 0.0
    spread_norm: float = 0.0
    n_exploding: int = 0

    def record(self, loss: float, gradient_norm: float) -> bool:
        """Count a step; return whether it was finite."""
        self.n_steps += 1
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self.n_skipped += 1
            return False
        self.max_norm = max(self.max_norm, gradient_norm)
        gap = gradient_norm - self.mean_norm
        self.mean_norm += gap / (self.n_steps - self.n_skipped)
        self.spread_norm += gap * (gradient_norm - self.mean_norm)
        return True

    def check(self, fold: int, gradient_norm: float, limits: RunOptions) -> None:
        """Judge the fold after a step. Requirement: TRAIN-13.

        Raises:
            TrialDiverged: Too large a share of steps was skipped, or the gradient exploded several times in a row.
        """
        is_exploding = gradient_norm > limits.stability_max_gradient_norm and math.isfinite(gradient_norm)
        self.n_exploding = self.n_exploding + 1 if is_exploding else 0
        if self.n_exploding >= limits.stability_explosions:
            raise TrialDiverged(
                f"fold {fold}, step {self.n_steps}: gradient norm above {limits.stability_max_gradient_norm:g} in "
                f"{self.n_exploding} consecutive steps, last {gradient_norm:.4g}; lower lr or grad_clip"
            )
        share = self.n_skipped / self.n_steps
        if self.n_steps >= limits.stability_min_steps and share > limits.stability_max_skipped_frac:
            raise TrialDiverged(
                f"fold {fold}, step {self.n_steps}: loss or gradient not finite in {share:.1%} of the steps, more than "
                f"{limits.stability_max_skipped_frac:.1%}; lower lr, or look at the inputs"
            )

    def metrics(self) -> dict[str, float]:
        """Return telemetry: gradient norm before clipping (max, mean, variance), shares of valid and skipped steps.

        Requirements: TRAIN-13, ANALYSIS-10. The variance (divided by n) is that which the lite gate is said to cut.
        """
        n_finite = self.n_steps - self.n_skipped
        if self.n_steps == 0:
            return {}
        measures = {"nan_rate": self.n_skipped / self.n_steps, "valid_rate": n_finite / self.n_steps}
        if n_finite:
            measures |= {
                "grad_norm_max": self.max_norm,
                "grad_norm_mean": self.mean_norm,
                "grad_norm_variance": self.spread_norm / n_finite,
            }
        return measures

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stability:
        return cls(**values)
