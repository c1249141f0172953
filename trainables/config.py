"""The base of every family's config: common fields of chapter 12.1, and what the planner may ask without torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class StrictModel(BaseModel):
    """A section that a person writes: frozen, strict, closed, and without NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


OPTIMISATION_FIELDS = (
    "lr",
    "weight_decay",
    "lr_schedule",
    "warmup_steps",
    "grad_clip",
    "accum_steps",
    "dropout",
    "epochs",
    "batch_size",
)
"""Fields that neither the shapes of weights nor the inputs and labels depend on: two configs that differ in these only
may pass weights on."""


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

    @property
    def consecutive_rows(self) -> int:
        """Training rows that must stay together and in time order in a micro-batch."""
        return 1

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
