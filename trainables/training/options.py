"""How a trial is run, not what it is: the options of an assignment, checked."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from trainables.config import StrictModel


class RunOptions(StrictModel):
    """Options of `Assignment.options`. None of them changes what a config means."""

    BESIDE_THE_RESULT: ClassVar = frozenset({"threads", "keep_checkpoints", "reuse_dir", "keep_fold_weights"})
    """Options that a fold's result does not follow from."""

    engine: Literal["auto", "deepspeed", "plain"] = "auto"
    """`auto`: DeepSpeed where it is installed, else the plain PyTorch loop."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is a device, else the CPU."""
    split: int = Field(default=1, ge=1)
    """Parts that each micro-batch comes in; accumulation grows by as much, so the effective batch stays (TRAIN-6)."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of PyTorch on the CPU; none: leave them as they are."""
    deterministic: bool = False
    """Refuse operations whose result depends on the order of threads, and cuDNN's choice by timing (C-50)."""
    flatness_samples: int = Field(default=1024, ge=1)
    """Most training rows of a fold on which flatness and training loss are measured (ANALYSIS-6)."""
    flatness_cost_frac: float = Field(default=0.1, gt=0)
    """Share of the gradients of one epoch that flatness may cost; it is measured on fewer rows accordingly."""
    flatness_least_samples: int = Field(default=128, ge=1)
    """Fewer rows than these say little, whatever they cost."""
    flatness_steps: int = Field(default=10, ge=0)
    """Lanczos steps of the top eigenvalue at the end of a fold; 0 leaves flatness out."""
    curves: bool = False
    """Keep losses, by output, gradient norm and tokens a second of every step in `curves/` (TRAIN-12, TRAIN-14)."""
    keep_checkpoints: int = Field(default=2, ge=2)
    """Newest checkpoints that are kept; two, so that a damaged newest one has a predecessor."""
    reuse_dir: str | None = None
    """Folder of fold results that are never trained twice (`trainables.training.results`); none: train everything."""
    keep_fold_weights: bool = False
    """Keep the weights of every complete fold, so that other trials can begin with them."""
    stability_min_steps: int = Field(default=50, ge=1)
    """Optimiser steps of a fold before the share of skipped ones is judged (TRAIN-13)."""
    stability_max_skipped_frac: float = Field(default=0.05, ge=0, le=1)
    """A trial with a larger share of non-finite steps has diverged (TRAIN-13)."""
    stability_max_gradient_norm: float = Field(default=1e5, gt=0)
    """Gradient norm before clipping that counts as an explosion (TRAIN-13)."""
    stability_explosions: int = Field(default=3, ge=1)
    """So many explosions in consecutive steps are a divergence (TRAIN-13)."""
