"""One point of the scalper space (specification, chapters 12.1 and 12.4). Imports no torch.

A field that `arch`, `approach` or another switch turns off is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config import FamilyConfig, groups_named, small_network_bytes
from trainables.features.schemas import (
    MES_BEFORE_WEEKDAY,
    MES_HIGHER,
    MES_LEVELS,
    MES_WEEKDAY,
    MES_WEEKDAY_CYCLICAL,
)

HIDDEN_WIDTHS = {"256-128-64": (256, 128, 64), "512-256-128": (512, 256, 128), "128-64-32": (128, 64, 32)}
"""Hidden layers of the feed-forward network by name (SCALP-1)."""
LSTM_UNITS = {"128-64": (128, 64), "64-32": (64, 32), "256-128": (256, 128)}
"""Units of the two recurrent layers by name (SCALP-2)."""
GATES = {"lstm": 4, "gru": 3}
"""Gates of a recurrent cell."""
CLASSES = ("down", "flat", "up")
"""Order of the direction's classes 0, 1, 2 (DATA-25)."""
FEATURE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "price": MES_BEFORE_WEEKDAY[0:20],
    "microstructure": MES_BEFORE_WEEKDAY[20:25],
    "technical": MES_BEFORE_WEEKDAY[25:37],
    "time": MES_BEFORE_WEEKDAY[37:40],
    "level": MES_LEVELS,
}
"""Features by group; `time` has the day of the week as well, and `htf` adds those of higher bars (FEAT-MES-1..10)."""
HEAD_OUTPUTS = {
    "classification": {"direction": len(CLASSES)},
    "rl": {"direction": len(CLASSES)},
    "regression": {"move": 1},
    "hybrid": {"direction": len(CLASSES), "volatility": 1, "exit": 2},
}
"""Approach -> head -> number of outputs (SCALP-5, SCALP-6)."""
BATCH_NORM_ARCH = "ffn"


class ScalperConfig(FamilyConfig):
    """Seconds-to-minutes direction of a future from one-second bars (chapter 3.3)."""

    lr: float = Field(default=3e-4, gt=0, le=1)
    """Peak learning rate, 1e-4..1e-3 (TRAIN-3)."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout probability, 0.2..0.4 (TRAIN-3)."""
    epochs: int = Field(default=100, ge=1)
    """Most passes over the training rows of a fold, 50..100 (TRAIN-3)."""
    patience: int | None = Field(default=10, ge=1)
    """A fold stops after so many epochs without a lower loss: 5, 10, 20; none: no early stop (TRAIN-3)."""
    batch_size: int = Field(default=512, ge=2)
    """Windows per micro-batch: 256, 512, 1024."""

    arch: Literal["ffn", "lstm", "gru", "transformer"] = "ffn"
    """Network: of the newest second alone, or of a sequence that ends with it (SCALP-1..3, SCALP-9)."""
    approach: Literal["classification", "regression", "rl", "hybrid"] = "hybrid"
    """What is trained: the class of the move, its size, a one-step policy, or direction, volatility and exit."""
    hidden: Literal["256-128-64", "512-256-128", "128-64-32"] = "256-128-64"
    """Widths of the feed-forward network."""
    lstm_units: Literal["128-64", "64-32", "256-128"] = "128-64"
    """Units of the two recurrent layers."""
    dense_units: int = Field(default=32, ge=1)
    """Units of the dense layer after the recurrent ones (SCALP-2)."""
    n_layers: int = Field(default=2, ge=1)
    """Attention layers of the transformer, 1..6."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads: 2, 4, 8."""
    d_model: int = Field(default=64, ge=2, multiple_of=2)
    """Width of the transformer: 32, 64, 128."""
    ffn_mult: int = Field(default=4, ge=1)
    """Width of the dense part of an attention layer over `d_model`."""
    seq_len: int = Field(default=120, ge=2)
    """Seconds of a sequence: 30, 60, 120, 300 (lstm, gru, transformer)."""
    trunk: Literal["shared", "separate"] = "shared"
    """Whether the heads of the hybrid share a network or have one each (SCALP-6)."""

    horizon_s: int = Field(default=60, ge=1)
    """N, seconds ahead: 5, 10, 30, 60, 300 (DATA-25)."""
    ticks_x: int = Field(default=2, ge=1)
    """X: a move of so many ticks has a direction: 1, 2, 3, 4, 6, 8 (DATA-25)."""
    flat_inclusive: bool = False
    """A move of just X ticks is flat (C-8)."""
    tick: float = Field(default=0.25, gt=0)
    """Smallest move of the price, times the market's `price_scale`: 0.25 for MES, 0.01 for SPY."""
    tick_value_usd: float = Field(default=1.25, gt=0)
    """Dollars of a tick of one contract."""
    cost_ticks: float = Field(default=1.0, ge=0)
    """Cost of a trade in ticks, for the policy's reward and for what waiting must bring."""
    exit_tp_ticks: int = Field(default=4, ge=1)
    """Take-profit of the exit labels, 1..20 ticks (hybrid)."""
    exit_sl_ticks: int = Field(default=4, ge=1)
    """Stop of the exit labels, 1..20 ticks (hybrid)."""
    risk_per_trade_usd: float = Field(default=50.0, gt=0)
    """Dollars that a move of one predicted volatility may cost (SCALP-8)."""
    max_contracts: int = Field(default=10, ge=1)
    """Largest position (SCALP-8)."""

    session: Literal["rth", "rth_plus_eth"] = "rth"
    """Seconds that are trained on: regular hours, or all that `data.session` keeps (DATA-9)."""
    price_norm: Literal["returns", "zscore", "minmax"] = "returns"
    """How price columns are scaled: ratios to the row's close, z-scores or shares of the training range (DATA-11)."""
    normalizer: Literal["zscore", "minmax", "mad"] = "zscore"  # type: ignore[assignment]
    """How all other columns are scaled (NORM-4)."""
    htf: bool = True
    """Show trend and momentum of completed 1- and 5-minute bars (DATA-12)."""
    weekday: Literal["one_hot", "cyclical"] = "one_hot"
    """Encoding of the day of the week (FEAT-MES-9)."""
    feature_groups: str = "all"
    """`all`, or names joined by `+`: price, microstructure, technical, time, level."""
    train_stride: int = Field(default=1, ge=1)
    """Every so many-th training row is trained on: labels of neighbouring seconds overlap and say much the same."""

    imbalance: Literal["weights", "focal", "oversample", "none"] = "weights"
    """What is done about rare directions (LOSS-10; classification and hybrid)."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """Focus on hard rows, 0.5..5; 0 is cross-entropy (focal)."""
    w_volatility: float = Field(default=1.0, ge=0)
    """Weight of the volatility's squared error (hybrid)."""
    w_exit: float = Field(default=1.0, ge=0)
    """Weight of the exits' cross-entropy (hybrid)."""

    class_counts: tuple[int, int, int] | None = None
    """Rows down, flat and up among the training rows of the fold; filled in training, not by hand (WF-5)."""
    move_scale_ticks: float | None = Field(default=None, gt=0)
    """Standard deviation of their moves; filled in training, not by hand (WF-5)."""
    volatility_scale_ticks: float | None = Field(default=None, gt=0)
    """Mean of their volatility; filled in training, not by hand (WF-5)."""

    @property
    def price_normalizer(self) -> Literal["returns", "zscore", "minmax"]:
        return self.price_norm

    @property
    def training_stride(self) -> int:
        """Rows between training windows, by the name that all families share."""
        return self.train_stride

    @property
    def lookback(self) -> int:
        """Rows of a window: 1 for the feed-forward network."""
        return 1 if self.arch == "ffn" else self.seq_len

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        return HIDDEN_WIDTHS[self.hidden]

    @property
    def units(self) -> tuple[int, int]:
        return LSTM_UNITS[self.lstm_units]

    @property
    def heads(self) -> Mapping[str, int]:
        """Head -> number of its outputs."""
        return HEAD_OUTPUTS[self.approach]

    @property
    def trunk_width(self) -> int:
        """Width of what the heads see."""
        return {"ffn": self.hidden_widths[-1], "transformer": self.d_model}.get(self.arch, self.dense_units)

    def seen_groups(self) -> tuple[str, ...]:
        """Return the names of the feature groups that the model sees, in the order of `FEATURE_GROUPS`."""
        return groups_named(self.feature_groups, FEATURE_GROUPS)

    def seen_features(self) -> tuple[str, ...]:
        """Return the names of the features that the model sees."""
        names = [name for group in self.seen_groups() for name in FEATURE_GROUPS[group]]
        if "time" in self.seen_groups():
            names += MES_WEEKDAY if self.weekday == "one_hot" else MES_WEEKDAY_CYCLICAL
        return (*names, *(MES_HIGHER if self.htf else ()))

    def at_fidelity(self, *, width_frac: float, depth_frac: float) -> ScalperConfig:
        """Return the config with a share of a transformer's width and layers; other networks are small as they are."""
        if self.arch != "transformer":
            return self
        unit = self.n_heads * (1 if self.n_heads % 2 == 0 else 2)
        width = max(1, round(width_frac * self.d_model / unit)) * unit
        depth = max(1, round(depth_frac * self.n_layers))
        return self.model_validate({**self.model_dump(), "d_model": width, "n_layers": depth})

    def n_parameters(self) -> int:
        """Return the exact number of trainable parameters."""
        outputs = sum((self.trunk_width + 1) * n for n in self.heads.values())
        return self._n_trunks() * self._trunk_parameters() + outputs

    def memory_bytes(self) -> int:
        units = self._n_trunks() * self._units_of_a_row() * self.lookback * self.batch_size
        if self.arch == "transformer":
            units += self._n_trunks() * self.n_layers * self.n_heads * self.lookback**2 * self.batch_size
        return small_network_bytes(self.n_parameters(), units)

    def forward_flops(self) -> float:
        products = float(self._trunk_products() * self.lookback)
        if self.arch == "transformer":
            products += 2.0 * self.n_layers * self.d_model * self.lookback**2
        return 2.0 * self._n_trunks() * products

    @classmethod
    def scored_lookback(cls, reach: Mapping[str, tuple[Any, ...]]) -> int:
        """Return the longest sequence that the space allows; 1 where every network sees one second only."""
        return int(max(cls.within(reach, "seq_len"))) if set(cls.within(reach, "arch")) != {"ffn"} else 1

    def _n_trunks(self) -> int:
        return len(self.heads) if self.trunk == "separate" else 1

    def _trunk_parameters(self) -> int:
        n = len(self.seen_features())
        if self.arch == "ffn":
            return sum((before + 1) * after + 2 * after for before, after in pairwise((n, *self.hidden_widths)))
        if self.arch == "transformer":
            d, wide = self.d_model, self.ffn_mult * self.d_model
            layer = 4 * (d * d + d) + (d + 1) * wide + (wide + 1) * d + 4 * d
            return (n + 1) * d + self.n_layers * layer + 2 * d
        recurrent = sum(GATES[self.arch] * after * (before + after + 2) for before, after in pairwise((n, *self.units)))
        return recurrent + (self.units[-1] + 1) * self.dense_units

    def _trunk_products(self) -> int:
        """Return multiplications per row of a window, attention's own products left out."""
        n = len(self.seen_features())
        if self.arch == "ffn":
            return sum(before * after for before, after in pairwise((n, *self.hidden_widths)))
        if self.arch == "transformer":
            return n * self.d_model + self.n_layers * (4 + 2 * self.ffn_mult) * self.d_model**2
        return sum(GATES[self.arch] * after * (before + after) for before, after in pairwise((n, *self.units)))

    def _units_of_a_row(self) -> int:
        n = len(self.seen_features())
        if self.arch == "ffn":
            return n + sum(self.hidden_widths)
        if self.arch == "transformer":
            return n + self.n_layers * (6 + self.ffn_mult) * self.d_model
        return n + GATES[self.arch] * sum(self.units)

    @model_validator(mode="after")
    def _width_divides(self) -> ScalperConfig:
        if self.arch == "transformer" and self.d_model % self.n_heads:
            raise ValueError(f"n_heads: expected a divisor of d_model = {self.d_model}, found {self.n_heads}")
        return self

    @model_validator(mode="after")
    def _groups_are_known(self) -> ScalperConfig:
        groups_named(self.feature_groups, FEATURE_GROUPS)
        return self

    @model_validator(mode="after")
    def _batch_norm_keeps_float32(self) -> ScalperConfig:
        if self.arch == BATCH_NORM_ARCH and self.zero_stage > 0 and self.precision in ("bf16", "fp16"):
            raise ValueError(
                f"arch: ffn has batch statistics, which need float32 weights, found precision {self.precision} with "
                f"zero_stage {self.zero_stage}; set zero_stage: 0, or another arch"
            )
        return self
