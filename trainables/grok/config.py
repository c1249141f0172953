"""One point of the grok space: every gene of the specification's chapters 12.1 and 12.2. Imports no torch.

Choices that the specification lists are named in the field's text; smaller numbers are allowed, because low-fidelity
profiles shrink a model below all of them. A field that a switch turns off is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from trainables.config import SizedConfig, Sizes, groups_named
from trainables.features.schemas import NQ
from trainables.grok import sizes

HORIZON_MINUTES = (5, 15, 30, 60, 120, 240)
"""The six horizons of the document (DATA-4)."""

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""The seven quantile levels of the document (GROK-12)."""

MEDIAN = LEVELS.index(0.5)

FEATURE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "price": NQ[0:3],
    "volume": NQ[3:6],
    "trend": NQ[6:14],
    "momentum": NQ[14:19],
    "volatility": NQ[19:22],
    "volume_weighted": NQ[22:23],
}
"""The six semantic groups in the order of the schema (FEAT-NQ-0); the gap's place is `gap_group`."""

GAP = NQ[23]

CALENDAR = ("minute_sin", "minute_cos", "month_sin", "month_cos", "year_sin", "year_cos", "weekday")
"""Columns beside the features: phases of the cyclic positions and the day of the week from 0, Monday (FEAT-NQ-8)."""

CONTEXT = (*CALENDAR, "raw_return", "valid")
"""All columns beside the features: also the unscaled return of the bar, and 1 where the row's features are known."""


class GrokConfig(SizedConfig):
    """Grok-SL: two-stage attention over a window of minutes, six horizons of quantiles (specification, chapter 3.1)."""

    sizes: ClassVar[Sizes] = sizes

    weight_decay: float = Field(default=1e-2, ge=0, le=1)
    """Decoupled weight decay (TRAIN-1)."""
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of AdamW's second moment (TRAIN-1)."""
    warmup_steps: int = Field(default=2000, ge=0)
    """Optimiser steps of linear warm-up; shortened to a tenth of all steps where it would be more than half of them."""
    grad_checkpoint: bool = True
    """Recompute each block in the backward pass instead of storing it (C-30)."""
    batch_size: int = Field(default=8, ge=1)
    """Windows per micro-batch: 8, 12, 16."""
    normalizer: Literal["zscore", "mad", "none"] = "zscore"
    """How features are scaled before the model, whose instance norm does not see it: there so that 16-bit inputs keep
    their digits, and so that a model without instance norm is a fair comparison (HYP-1)."""

    n_blocks: int = Field(default=8, ge=1)
    """Number of blocks: 8 to 12 (GROK-1)."""
    d_model: int = Field(default=512, ge=2)
    """Width: 256, 384, 512."""
    n_heads: int = Field(default=8, ge=1)
    """Attention heads of either stage: 4, 8, 16 (C-85)."""
    ffn_mult: int = Field(default=4, ge=1)
    """Width of the feed-forward layer over d_model: 2, 4."""
    window_bars: int = Field(default=6900, ge=2)
    """Rows of a window: 390, 1380, 6900 (DATA-1)."""
    max_len: int = Field(default=7000, ge=2)
    """Longest window that the model takes (DATA-3)."""
    train_stride: int | Literal["T"] = 240
    """Fewest bars between training windows: 240, 1380, or T, a whole window, as documented (DATA-5, C-13)."""
    eval_stride: int = Field(default=1, ge=1)
    """Every n-th row that can be scored is; the same for all trials (DATA-5)."""

    feature_groups: str = "all"
    """`all`, or names of feature groups joined by `+`: price, volume, trend, momentum, volatility, volume_weighted."""
    gap_group: Literal["price", "temporal", "all"] = "price"
    """Where the gap between bars is shown: in the price group, in a group of its own, or in every group (C-10)."""
    sma_windows: str = "5,10,20,50,100,200"
    """The six averages of the trend group, bars, increasing (FEAT-NQ-3)."""
    volume_delta: Literal["difference", "signed"] = "difference"
    """Meaning of the change of volume (C-91)."""

    use_in: bool = True
    """Normalise each window by its own statistics (GROK-3)."""
    in_epsilon: float = Field(default=1e-5, gt=0)
    """Added to the variance in the instance norm."""
    use_pe: bool = True
    """Add the cyclic positions (GROK-5)."""
    pe_input: bool = False
    """Add the positions to the features, not to the groups' embeddings (C-14)."""
    conv_stem: Literal["none", "k3", "k5"] = "none"
    """Causal convolution over so many rows before the blocks (GROK-15)."""
    patch: Literal["none", 8, 16] = "none"
    """Rows of a token (HYP-6)."""
    variable_attention: bool = True
    """Whether there is attention over groups (GROK-7)."""
    causal: bool = False
    """Whether a row's attention sees only the past; the readout is the last row either way (C-6)."""
    lgu: bool = True
    """Mix attention in by the lite gate; off: a plain residual (GROK-10)."""
    readout: Literal["flatten", "mean", "attn"] = "flatten"
    """How the groups of the last valid row become one state (GROK-11)."""

    heads: Literal["autoregressive", "independent"] = "autoregressive"
    """Whether a horizon's head sees the next shorter horizon's result (GROK-13)."""
    teacher_forcing_ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of training rows that see the true shorter return in place of the median; 1 is documented (C-7)."""
    quantile_param: Literal["free", "cumulative_softplus"] = "free"
    """Seven numbers, or a median and positive steps away from it (GROK-12)."""
    scale_conditioning: Literal["target_scale", "static_token", "none"] = "target_scale"
    """How the level of volatility, which the instance norm removes, reaches the forecast (C-9)."""
    return_unit: float = Field(default=3e-4, gt=0)
    """Log-return per root of a minute that losses count in, and heads without `target_scale`; 1 is documented."""
    sigma_floor: float = Field(default=1e-6, gt=0)
    """Smallest volatility of a window, log-return of a minute."""

    horizon_weight: Literal["minutes", "index", "hours", "uniform"] = "minutes"
    """Unit of h in the weight 1/log(h + 1) (LOSS-2, C-45)."""
    order_penalty: float = Field(default=1.0, ge=0)
    """Weight of crossing quantiles, 0.01..10 (LOSS-3; quantile_param free)."""
    lowvol_curriculum: bool = False
    """Train on windows below the median volatility only while the learning rate warms up (TRAIN-2)."""

    mc_samples: int = Field(default=20, ge=1)
    """Passes with dropout that a forecast averages: 1, 10, 20, 50; 1: one pass without dropout (GROK-14)."""
    max_pause_minutes: int = Field(default=14, ge=1)
    """A longer time without a bar closes the market: no horizon crosses it (DATA-4)."""
    baseline_span_bars: float = Field(default=390.0, ge=1)
    """Span of the moving volatility of the naive forecast that the score is compared with (ANALYSIS-4)."""

    target_deviation: tuple[float, ...] | None = None
    """Deviation of the return of each horizon among the training rows; filled in training, not by hand (WF-5)."""
    target_quantiles: tuple[tuple[float, ...], ...] | None = None
    """Quantiles of it, horizon by horizon; filled in training, not by hand (WF-5)."""

    @property
    def lookback(self) -> int:
        """Rows of a window, by the name that all families share."""
        return self.window_bars

    @property
    def training_stride(self) -> int:
        return self.window_bars if self.train_stride == "T" else self.train_stride

    @property
    def scoring_stride(self) -> int:
        return self.eval_stride

    @property
    def unscaled_columns(self) -> tuple[str, ...]:
        return CONTEXT

    @property
    def measured_rows(self) -> int:
        """Training rows that one pass in float32 can hold."""
        return self.batch_size

    @property
    def has_curvature(self) -> bool:
        """Whether second derivatives, for which attention must be written out, fit into memory (ANALYSIS-6)."""
        return sizes.written_out_bytes(self) <= sizes.MOST_WRITTEN_OUT_BYTES

    @property
    def patch_rows(self) -> int:
        return 1 if self.patch == "none" else self.patch

    @property
    def stem_rows(self) -> int:
        """Length of the convolution; 0: there is none."""
        return {"none": 0, "k3": 3, "k5": 5}[self.conv_stem]

    @property
    def averages(self) -> tuple[int, ...]:
        """The windows of `sma_windows`."""
        return tuple(int(window) for window in self.sma_windows.split(","))

    def seen_groups(self) -> dict[str, tuple[str, ...]]:
        """Return group -> its features, in the order in which the model sees them (GROK-4)."""
        groups = {name: FEATURE_GROUPS[name] for name in groups_named(self.feature_groups, FEATURE_GROUPS)}
        if self.gap_group == "all":
            return {name: (*features, GAP) for name, features in groups.items()}
        if self.gap_group == "temporal":
            return {**groups, "temporal": (GAP,)}
        return {name: (*features, GAP) if name == "price" else features for name, features in groups.items()}

    def seen_features(self) -> tuple[str, ...]:
        """Return the names of the features that the model sees, each once, in schema order."""
        seen = {feature for features in self.seen_groups().values() for feature in features}
        return tuple(name for name in NQ if name in seen)

    def at_fidelity(self, *, width_frac: float, depth_frac: float) -> GrokConfig:
        """Return the config with a share of `d_model` and `n_blocks`, as near as heads allow (SEARCH-16)."""
        width = max(1, round(width_frac * self.d_model / self.n_heads)) * self.n_heads
        depth = max(1, round(depth_frac * self.n_blocks))
        return self.model_validate({**self.model_dump(), "d_model": width, "n_blocks": depth})

    @classmethod
    def scored_lookback(cls, reach: Mapping[str, tuple[Any, ...]]) -> int:
        """Bars of history that every scored timestamp must have: the longest window that the space allows."""
        return int(max(cls.within(reach, "window_bars")))

    @model_validator(mode="after")
    def _heads_divide(self) -> GrokConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads: expected a divisor of d_model = {self.d_model}, found {self.n_heads}")
        return self

    @model_validator(mode="after")
    def _window_fits(self) -> GrokConfig:
        if self.window_bars > self.max_len:
            raise ValueError(f"window_bars: expected at most max_len = {self.max_len}, found {self.window_bars}")
        if self.train_stride != "T" and self.train_stride < 1:
            raise ValueError(f"train_stride: expected 1 or more bars, or T, found {self.train_stride}")
        if self.patch_rows > self.window_bars:
            raise ValueError(f"patch: expected at most window_bars = {self.window_bars}, found {self.patch}")
        return self

    @model_validator(mode="after")
    def _averages_increase(self) -> GrokConfig:
        parts = self.sma_windows.split(",")
        windows = [int(part) if part.isascii() and part.isdigit() else 0 for part in parts]
        if len(windows) != 6 or windows[0] < 2 or any(a >= b for a, b in pairwise(windows)):
            raise ValueError(
                f"sma_windows: expected six increasing numbers from 2 joined by commas, found {self.sma_windows!r}"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_known(self) -> GrokConfig:
        if "price" not in groups_named(self.feature_groups, FEATURE_GROUPS) and self.gap_group == "price":
            raise ValueError("gap_group: expected temporal or all where feature_groups leaves price out, found price")
        return self

    @model_validator(mode="after")
    def _switches_agree(self) -> GrokConfig:
        if self.pe_input and not self.use_pe:
            raise ValueError("pe_input: expected use_pe to be on, found it off; turn use_pe on or pe_input off")
        if self.heads == "independent" and self.teacher_forcing_ratio > 0:
            raise ValueError(
                f"teacher_forcing_ratio: expected 0 with heads independent, which see no shorter horizon, "
                f"found {self.teacher_forcing_ratio:g}"
            )
        return self
