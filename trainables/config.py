"""The base of every family's config: common fields of chapter 12.1, and what the planner may ask without torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from trainables.data.config import DataConfig

NEEDS_CUDA = ("tf32", "fp16")
"""Number formats that no CPU trains in."""


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
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of AdamW's mean of squared gradients."""
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
    patience: int | None = Field(default=None, ge=1)
    """A fold stops after so many epochs without a lower loss and goes back to its best weights; none: no early stop."""
    stop_rows: Literal["training_tail", "validation"] = "training_tail"
    """Rows of that loss: the end of the training rows, which are then not trained on, or the scored rows themselves,
    as documented: what is scored has then also chosen the epoch (TRAIN-3)."""
    stop_frac: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training rows that `training_tail` holds out; labels that reach into it are purged."""

    @property
    def price_normalizer(self) -> Literal["returns", "zscore", "minmax"] | None:
        """How price columns are scaled where it is not as the others are (DATA-11)."""
        return None

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

    @property
    def training_stride(self) -> int:
        """Fewest rows between two windows that are trained on; overlapping targets say the same twice (DATA-5)."""
        return 1

    @property
    def scoring_stride(self) -> int:
        """Every n-th row that can be scored is; the same for all trials of a search (DATA-5)."""
        return 1

    @property
    def unscaled_columns(self) -> tuple[str, ...]:
        """Columns that no scaling touches: what a model needs as it is, such as the time of day."""
        return ()

    @property
    def measured_rows(self) -> int | None:
        """Most training rows that one pass in float32 can hold; none: as many as the options ask for."""
        return None

    @property
    def has_curvature(self) -> bool:
        """Whether second derivatives of the loss can be afforded (ANALYSIS-6)."""
        return True

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

    @classmethod
    def within(cls, reach: Mapping[str, tuple[Any, ...]], field: str) -> tuple[Any, ...]:
        """Return the values of a field that the space allows: its default where the space leaves it out."""
        return reach.get(field, (cls.model_fields[field].default,))

    @classmethod
    def check_data(cls, reach: Mapping[str, tuple[Any, ...]], data: DataConfig) -> None:
        """Refuse a `data` section that cannot carry every config within reach; nothing is asked for by default.

        Known from the settings alone, before anything is read: what a plan can say (`--dry-run`).

        Args:
            reach: Field -> the values that the space allows; fields left out have their default.
            data: The section.

        Raises:
            DataError: Something that the family needs is not named, or its file is not there.
        """


class Sizes(Protocol):
    """What a module `sizes` of a family holds: arithmetic on its config."""

    def parameters(self, config: Any) -> Mapping[str, int]:
        """Return the number of trainable parameters of each part of the model."""

    def memory_bytes(self, config: Any) -> int:
        """Return the estimated peak bytes of training on one device."""

    def forward_flops(self, config: Any) -> float:
        """Return the estimated floating-point operations of the forward pass of one window."""


class SizedConfig(FamilyConfig):
    """The config of a family whose sizes are counted in a module of their own."""

    sizes: ClassVar[Sizes]

    def n_parameters(self) -> int:
        return sum(self.sizes.parameters(self).values())

    def memory_bytes(self) -> int:
        return self.sizes.memory_bytes(self)

    def forward_flops(self) -> float:
        return self.sizes.forward_flops(self)


def small_network_bytes(n_parameters: int, n_units: int) -> int:
    """Return the estimated peak bytes of training a network of dense or recurrent layers in float32.

    Four numbers are kept per parameter: weight, gradient, two moments; eight per unit: products, norms, rectifiers or
    gates, dropout, and their gradients.

    Args:
        n_parameters: Trainable ones.
        n_units: Units of all layers, times the rows of a micro-batch.
    """
    return 4 * (4 * n_parameters + 8 * n_units)


def groups_named(spelled: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the feature groups that `all`, or names joined by `+`, stands for, in the order of `known`.

    Raises:
        ValueError: A name is unknown, or there twice.
    """
    every = tuple(known)
    chosen = every if spelled == "all" else tuple(spelled.split("+"))
    if set(chosen) - set(every) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"feature_groups: expected all, or different names of {', '.join(every)} joined by +, found {spelled!r}"
        )
    return tuple(group for group in every if group in chosen)
