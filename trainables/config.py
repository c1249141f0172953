"""The base of every family's config: common fields of chapter 12.1, and what the planner may ask without torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

NEEDS_CUDA = ("tf32", "fp16")
"""Number formats that no CPU trains in."""


class StrictModel(BaseModel):
    """A section that a person writes: frozen, strict, closed, and without NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class FamilyConfig(StrictModel):
    """Fields common to all families (specification, chapter 12.1)."""

    lr: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """Decoupled weight decay."""
    lr_schedule: Literal["cosine", "constant", "onecycle"] = "cosine"
    """Shape of the learning rate after warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps of linear warm-up; shortened to a tenth of all steps where it would be more than half of them."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest allowed norm of the gradient."""
    precision: Literal["bf16", "fp32", "tf32", "fp16"] = "fp32"
    """Number format of the forward and backward pass."""
    accum_steps: int = Field(default=1, ge=1)
    """Micro-batches per optimiser step."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage of DeepSpeed."""
    grad_checkpoint: bool = False
    """Recompute activations instead of storing them."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability."""
    normalizer: Literal["mad", "zscore", "instance", "minmax", "returns", "none"] = "zscore"
    """How features are scaled; statistics come from the training rows of the fold (instance: from the window)."""
    norm_scope: Literal["train_fold", "global_documented"] = "train_fold"
    """Rows that the statistics come from; `global_documented` leaks and marks the run (C-5)."""
    clip_value: float = Field(default=10.0, gt=0)
    """Scaled features are clipped to plus or minus this."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training rows of a fold."""
    batch_size: int = Field(default=64, ge=1)
    """Windows per micro-batch."""

    def cannot_run(self, *, has_gpu: bool, engine: str) -> str | None:
        """Say in one line why a trial with this config could not begin with these resources; None where it could.

        What only a device can tell, such as a GPU older than Ampere, is told by the trial (TRAIN-8).
        """
        if self.precision in NEEDS_CUDA and not has_gpu:
            return (
                f"precision: expected resources.gpus_per_trial above 0 for {self.precision}, found 0; use fp32 or bf16"
            )
        if self.precision == "fp16" and self.zero_stage == 0 and engine == "deepspeed":
            return "zero_stage: expected 1, 2 or 3 with precision fp16 on deepspeed, found 0; set zero_stage: 1"
        return None

    @property
    def consecutive_rows(self) -> int:
        """Training rows that must stay together and in time order in a micro-batch."""
        return 1

    def at_fidelity(self, *, width_frac: float, depth_frac: float) -> Self:
        """Return the config with a share of its width and depth (SEARCH-16); one that has neither stays as it is."""
        return self

    @abstractmethod
    def n_parameters(self) -> int:
        """Number of trainable parameters, computed without building the model."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """Estimated peak bytes of training on one device: weights, gradients, optimiser state, activations."""

    @abstractmethod
    def forward_flops(self) -> float:
        """Estimated floating-point operations of the forward pass of one window."""

    @classmethod
    @abstractmethod
    def scored_lookback(cls, reach: Mapping[str, tuple[Any, ...]]) -> int:
        """Bars of history that every scored timestamp must have: the longest look-back that the space allows."""
