"""One point of the mlp space (specification, chapter 12.5). Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config import FamilyConfig, small_network_bytes
from trainables.data.config import DataConfig, SeriesConfig, absent
from trainables.errors import DataError

HIDDEN_WIDTHS = {"32-16": (32, 16), "64-32-16": (64, 32, 16), "128-64-32": (128, 64, 32)}
"""Hidden layers by name: 1,013, 3,573 and 12,245 parameters on ten inputs (MLP-1)."""
STAGE_INPUTS = {"10": 10, "20": 20, "30+": 42, "50+": 66}
"""Feature stages -> number of inputs; each begins with the columns of the one before (FEAT-SC-1..9)."""


class MlpConfig(FamilyConfig):
    """The ultra-conservative network: a norm, small dense layers, one logit for "the price rises"."""

    hidden: Literal["32-16", "64-32-16", "128-64-32"] = "32-16"
    """Widths of the hidden layers; larger ones only where the features have earned them (SEARCH-13)."""
    norm: Literal["layer", "batch"] = "layer"
    """Norm before the first and after every hidden layer (C-104)."""
    feature_stage: Literal["10", "20", "30+", "50+"] = "10"
    """Feature set; 50+ needs every source of `data.series`, so that the number of inputs is one."""
    label_horizon: int = Field(default=5, ge=1)
    """Bars ahead whose direction is the label: 1, 5, 15, 60 minutes in the source (DATA-26)."""
    levels_mode: Literal["relative", "raw"] = "relative"
    """Whether price levels among the features are taken relative to the close (C-16)."""
    lookback: Literal[1] = 1
    """Rows of a window: the network sees the present row only."""
    epochs: int = Field(default=30, ge=1)
    """Passes over the training rows of a fold: 30, 60."""
    batch_size: int = Field(default=512, ge=2)
    """Rows per micro-batch: 256, 512, 1024."""

    @model_validator(mode="after")
    def _batch_norm_keeps_float32(self) -> MlpConfig:
        if self.norm == "batch" and self.zero_stage > 0 and self.precision in ("bf16", "fp16"):
            raise ValueError(
                f"norm: batch statistics need float32 weights, found precision {self.precision} with zero_stage "
                f"{self.zero_stage}; set norm: layer, or zero_stage: 0"
            )
        return self

    rise_share: float | None = Field(default=None, ge=0, le=1)
    """Share of rises among the training rows of the fold; filled in training, not by hand (WF-5)."""

    @property
    def n_inputs(self) -> int:
        return STAGE_INPUTS[self.feature_stage]

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        return HIDDEN_WIDTHS[self.hidden]

    def n_parameters(self) -> int:
        """Return the exact number of trainable parameters (MLP-1)."""
        widths = (self.n_inputs, *self.hidden_widths, 1)
        linear = sum((before + 1) * after for before, after in pairwise(widths))
        return linear + 2 * sum(widths[:-1])

    def memory_bytes(self) -> int:
        units = self.n_inputs + sum(self.hidden_widths)
        return small_network_bytes(self.n_parameters(), units * self.batch_size)

    def forward_flops(self) -> float:
        widths = (self.n_inputs, *self.hidden_widths, 1)
        return 2.0 * sum(before * after for before, after in pairwise(widths))

    @classmethod
    def scored_lookback(cls, reach: Mapping[str, tuple[Any, ...]]) -> int:
        """Return 1: whatever the space allows, a row is judged on its own."""
        return 1

    @classmethod
    def check_data(cls, reach: Mapping[str, tuple[Any, ...]], data: DataConfig) -> None:
        """Refuse 50+ without all series: columns would be off, and the number of inputs is known before the data."""
        if "50+" not in reach.get("feature_stage", ()):
            return
        named = data.series.paths()
        off = absent(named)
        missing = [name for name in SeriesConfig.model_fields if name not in named or name in off]
        if missing:
            raise DataError(
                f"feature_stage: 50+ expected all series beside the market, found none of {', '.join(missing)}; name "
                "their files in data.series, or take 50+ out of the space"
            )
