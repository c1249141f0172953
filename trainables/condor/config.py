"""One point of the condor space: every gene of the specification's chapters 12.1 and 12.3. Imports no torch.

Two genes are renamed because pydantic or the common fields hold the name: `schema` is `feature_schema`, `batch (micro)`
is `batch_size`. Choices that the specification lists are named in the field's text; smaller numbers are allowed,
because low-fidelity profiles shrink a model below all of them. A field that a switch turns off is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from trainables.condor import sizes
from trainables.config import SizedConfig, Sizes, groups_named
from trainables.data.config import DataConfig
from trainables.errors import DataError
from trainables.features.schemas import CONDOR_BASE, CONDOR_DYNAMIC, PRIMITIVES

HORIZON_SESSIONS = (1, 3, 5, 10)
"""Sessions ahead of the four forecasts (CONDOR-16)."""

POLICY_RANGES = (
    ("call_offset", 0.0, 10.0),
    ("put_offset", 0.0, 10.0),
    ("wing_width", 2.0, 15.0),
    ("target_dte", 7.0, 45.0),
    ("win_probability", 0.0, 1.0),
    ("roi", -1.0, 1.0),
    ("max_loss_frac", 0.0, 1.0),
    ("confidence", 0.0, 1.0),
)
"""Name, lowest and highest value of each policy output, in the frozen order of CONDOR-13."""

REGIMES = ("low", "normal", "high")
"""Order of the regime outputs (CONDOR-12)."""

FEATURE_GROUPS: Mapping[str, tuple[str, ...]] = {
    "spot": CONDOR_BASE[0:5],
    "physics": CONDOR_BASE[5:10],
    "volatility": CONDOR_BASE[10:13],
    "technicals": CONDOR_BASE[13:17],
    "bands": CONDOR_BASE[17:22],
    "metadata": CONDOR_BASE[22:24],
    "dynamic": CONDOR_DYNAMIC,
    "primitives": PRIMITIVES,
}
"""Features by group, in the order of the schemas (FEAT-CB-24, FEAT-CB-32, FEAT-CB-P1..P20)."""

GROUPS_OF_SCHEMA = {24: 6, 32: 7, 52: 8}
"""How many of the groups, from the first, each feature schema has."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "production": {"d_model": 512, "n_layers": 24, "lookback": 120, "batch_size": 1024, "accum_steps": 1},
    "baseline": {"d_model": 1024, "n_layers": 32, "lookback": 128, "batch_size": 64, "accum_steps": 4},
    "longer_context": {"d_model": 1024, "n_layers": 32, "lookback": 256, "batch_size": 64, "accum_steps": 4},
    "lower_learning_rate": {
        "d_model": 1024, "n_layers": 32, "lookback": 128, "batch_size": 64, "accum_steps": 4, "lr": 5e-5,
    },
    "smaller": {"d_model": 512, "n_layers": 24, "lookback": 128, "batch_size": 64, "accum_steps": 4},
    "larger": {"d_model": 2048, "n_layers": 48, "lookback": 128, "batch_size": 64, "accum_steps": 4},
}  # fmt: skip
"""Named points: the two presets of CONDOR-7 and the rows of the recommended grid (SEARCH-3)."""


class CondorConfig(SizedConfig):
    """CondorBrain: a state-space backbone with policy, regime and forecast heads (specification, chapter 3.2)."""

    sizes: ClassVar[Sizes] = sizes

    accum_steps: int = Field(default=4, ge=1)
    """Micro-batches per optimiser step: 1, 2, 4, 8 (TRAIN-4: 64 x 4)."""
    normalizer: Literal["mad", "zscore", "instance", "minmax", "returns", "none"] = "mad"
    """How features are scaled (NORM-3; C-83)."""

    d_model: int = Field(default=512, ge=1)
    """Width of the backbone: 256, 512, 768, 1024, 2048."""
    n_layers: int = Field(default=24, ge=1)
    """Number of blocks: 8, 12, 16, 24, 32, 48."""
    d_state: int = Field(default=128, ge=1)
    """Size of the state of a channel: 16, 32, 64, 128, 256."""
    headdim: int = Field(default=64, ge=1)
    """Channels of a head, which share one decay: 32, 64, 128 (mamba2)."""
    expand: int = Field(default=2, ge=1)
    """Inner width over d_model: 1, 2."""
    d_conv: int = Field(default=4, ge=1)
    """Length of the causal convolution before the scan: 2, 3, 4."""
    ssm_variant: Literal["mamba2", "mamba1"] = "mamba2"
    """One decay per head (mamba2) or per channel and state (mamba1); C-32."""
    block: Literal["residual", "documented"] = "residual"
    """`documented` has no residual, norm, expansion or convolution: E <- SiLU(W E) * SSM(E) (CONDOR-2, C-31)."""
    discretisation: Literal["euler_B", "zoh_exact"] = "euler_B"
    """Input matrix of a step: dt B (as in mamba), or the exact zero-order hold (CONDOR-3)."""
    lookback: int = Field(default=120, ge=2)
    """Rows of a window: 60, 120, 128, 240, 256, 390, 512."""

    feature_schema: Literal[24, 32, 52] = 52
    """Number of features of a row: FEAT-CB-24, FEAT-CB-32, FEAT-CB-52."""
    feature_groups: str = "all"
    """`all`, or names of feature groups joined by `+`: spot, physics, volatility, technicals, bands, metadata, dynamic,
    primitives. What is left out is not shown to the model; the data set stays the same."""
    sequence_axis: Literal["time", "per_contract", "flat"] = "time"
    """What a row is (C-2). `time`: a bar, with the put nearest the money and 30 days; `per_contract`: a contract at a
    bar, windows inside one contract; `flat`: the documented stream of all contracts bar by bar, whose windows mix
    strikes. The last two need `data.chain`; of each moment the row of that put is scored."""
    ewma_alpha: float = Field(default=0.06, gt=0, lt=1)
    """Weight of the newest squared return in the volatility average, 0.01..0.3 (FEAT-CB-32)."""
    energy_alpha: float = Field(default=1000.0, gt=0)
    """Gain of the volatility energy, 10..10000 (FEAT-CB-34)."""
    rsi_beta: float = Field(default=0.5, ge=0)
    """Weight of the curvature in the dynamic RSI, 0..2 (FEAT-CB-35)."""
    adx_gamma: float = Field(default=0.1, gt=0)
    """Weight of the energy in the adaptive ADX, 0.01..1 (FEAT-CB-35, C-93)."""
    curvature: Literal["proxy", "menger_documented", "menger_scaled"] = "proxy"
    """Which curvature the dynamic features use (C-24)."""
    tda: bool = False
    """Compute the persistence signature (FEAT-CB-37)."""
    tda_dim: int = Field(default=3, ge=2)
    """Dimension of the delay embedding."""
    tda_delay: int = Field(default=5, ge=1)
    """Delay of the embedding in bars."""
    tda_window: int = Field(default=120, ge=8)
    """Bars of the embedding: 60, 120, 240."""
    momentum_n: int = Field(default=14, ge=1)
    """Bars of the momentum primitive: 5, 10, 14, 20, 50 (P008)."""
    feature_scaling: Literal["learned", "fixed", "none"] = "learned"
    """Whether features are weighted by group before the embedding, and whether the weights learn (FEAT-CB-W)."""
    scale_critical: float = Field(default=2.0, gt=0)
    """First weight of the option physics (FEAT-CB-W)."""
    scale_high: float = Field(default=1.5, gt=0)
    """First weight of spot, bands and trend (FEAT-CB-W)."""
    scale_medium: float = Field(default=1.0, gt=0)
    """First weight of technicals, dynamic features and primitives (FEAT-CB-W)."""
    scale_gating: float = Field(default=1.0, gt=0)
    """First weight of the volatility features (FEAT-CB-W)."""
    scale_static: float = Field(default=1.0, gt=0)
    """Weight of the contract's metadata; never learns (FEAT-CB-W)."""

    policy_activation: Literal["bounded", "softmax_documented"] = "bounded"
    """How policy outputs reach their ranges (C-18b)."""
    policy_conditioning: Literal["forecasts", "none"] = "forecasts"
    """Whether the policy head sees the detached forecasts (CONDOR-18, C-39)."""
    confidence_source: Literal["head", "entropy_norm", "entropy_documented"] = "head"
    """Where the confidence comes from (CONDOR-14, C-19)."""
    moe: Literal["none", "soft", "topk"] = "soft"
    """Policy head: one linear map, experts mixed by the gate, or the k best of them (CONDOR-15, CONDOR-20)."""
    n_experts: int = Field(default=3, ge=1)
    """Experts: 2, 3, 4, 8. The gate is the regime detector where there are three (C-37)."""
    moe_k: int = Field(default=1, ge=1)
    """Experts evaluated per row: 1, 2 (topk)."""
    moe_aux_alpha: float = Field(default=0.01, ge=0)
    """Weight of the balance term, 1e-4..1e-1 (LOSS-7)."""
    aux_scale: Literal["documented", "n_times"] = "documented"
    """Whether the balance term is multiplied by the number of experts (LOSS-7)."""
    gate_scale: Literal["prob", "renormalised_documented"] = "prob"
    """What weights the chosen experts; renormalised with k=1 gives the gate no gradient (C-41)."""
    separate_gates: bool = False
    """Give the experts a gate of their own instead of the regime detector (C-37)."""
    gate_input: Literal["hidden", "hidden_vol"] = "hidden"
    """`hidden_vol` shows the volatility features of the newest row to the gate as well (FEAT-CB-W)."""

    vol_gated_attn: bool = False
    """Insert volatility-gated attention (CONDOR-19)."""
    vga_layers: Literal["auto", "documented"] = "auto"
    """After which blocks: at a quarter, half and three quarters, or after the blocks of index 7, 15 and 23 (C-40)."""
    vga_heads: int = Field(default=8, ge=1)
    """Attention heads: 4, 8, 16."""
    vga_source: Literal["hidden", "vol_feature"] = "hidden"
    """Whose spread opens the gate: that of the hidden state or that of the implied volatility (C-21)."""
    vga_causal: bool = True
    """Whether a step sees only earlier steps, in the attention and in the gate's statistic (C-21)."""

    loss: Literal["base", "composite"] = "base"
    """LOSS-4, or LOSS-6, whose Sharpe, drawdown and turnover terms need batches in time order (C-48)."""
    target_scaling: Literal["range", "none_documented"] = "range"
    """Whether policy errors are divided by the range of the output (LOSS-5, C-47)."""
    risk_weighting: Literal["lambda_risk", "documented"] = "lambda_risk"
    """Whether lambda_risk weights the maximum-loss output in place of lambda_pnl (C-46)."""
    risk_loss: Literal["mse", "huber"] = "mse"
    """Error of the outputs 4 to 7 (C-90)."""
    lambda_stk: float = Field(default=1.0, ge=0)
    """Weight of strike offsets, width and days to expiry, 0.1..10 (LOSS-4)."""
    lambda_reg: float = Field(default=0.5, ge=0)
    """Weight of the regime's cross-entropy, 0.1..10 (LOSS-4)."""
    lambda_pnl: float = Field(default=2.0, ge=0)
    """Weight of win probability, return and confidence, 0.1..10 (LOSS-4)."""
    lambda_risk: float = Field(default=1.5, ge=0)
    """Weight of the maximum loss, 0.1..10 (LOSS-4, C-46)."""
    lambda1: float = Field(default=1.0, ge=0)
    """Weight of the prediction error in the composite loss, 0.01..3 (LOSS-6)."""
    lambda2: float = Field(default=0.3, ge=0)
    """Weight of the Sharpe ratio, 0.01..3 (LOSS-6)."""
    lambda3: float = Field(default=0.1, ge=0)
    """Weight of the drawdown, 0.01..3 (LOSS-6)."""
    lambda4: float = Field(default=0.05, ge=0)
    """Weight of the turnover, 0.01..3 (LOSS-6)."""
    seq_per_batch: int = Field(default=32, ge=2)
    """Consecutive rows of a chunk in a composite batch: 16, 32, 64 (C-48)."""
    sharpe_epsilon: float = Field(default=1e-6, gt=0)
    """Added to the variance in the Sharpe term (C-48)."""
    payoff_smoothing: float = Field(default=0.05, gt=0)
    """Width of the rounded corners of the condor payoff, in expected moves (LOSS-6)."""
    huber_delta: float = Field(default=1.0, gt=0)
    """Where the Huber loss turns from square to absolute, 0.1..5 (LOSS-4)."""
    w_forecast: float = Field(default=0.5, ge=0)
    """Weight of the forecast loss, 0..2 (LOSS-8)."""
    forecast_loss: Literal["crps", "nll"] = "crps"
    """Score of the Gaussian forecasts (LOSS-8)."""
    w_traj: float = Field(default=0.25, ge=0)
    """Weight of the trajectory loss, 0..2 (LOSS-9)."""
    w_diff: float = Field(default=0.25, ge=0)
    """Weight of the diffusion loss, 0..2 (LOSS-9)."""

    forecast_unit: float = Field(default=0.01, gt=0)
    """Log return per square root of a session that the forecast heads count in; 1 is the documented head."""
    sigma_floor: float = Field(default=1e-4, gt=0)
    """Smallest standard deviation of a forecast, log return (CONDOR-16)."""
    sessions_per_year: float = Field(default=252.0, gt=0)
    """Trading days a year: an ordinary annual volatility is `forecast_unit` times its root."""
    trajectory: bool = False
    """Predict the daily path of the coming sessions (CONDOR-17, C-82)."""
    trajectory_sessions: int = Field(default=45, ge=1)
    """Sessions of the path (CONDOR-17)."""
    gru_hidden: int = Field(default=128, ge=1)
    """Width of the trajectory's recurrent cell: 64, 128, 256."""
    diffusion: bool = False
    """Sample paths around the trajectory by denoising diffusion (CONDOR-21)."""
    diffusion_steps: int = Field(default=100, ge=2)
    """Noise levels: 50, 100, 250."""
    diffusion_hidden: int = Field(default=256, ge=1)
    """Width of the denoiser (CONDOR-21)."""
    diffusion_time_width: int = Field(default=32, ge=2, multiple_of=2)
    """Width of the noise level's embedding."""
    diffusion_sampling_steps: int = Field(default=20, ge=1)
    """Steps of the sampler (CONDOR-21)."""
    diffusion_samples: int = Field(default=64, ge=1)
    """Paths sampled per row (CONDOR-21)."""

    label_mode: Literal["soft_hindsight", "argmax_hindsight", "column"] = "soft_hindsight"
    """How the best condor of a row is found afterwards (DATA-23)."""
    regime_label_horizon: Literal[0, 390, 1950] = 390
    """Minutes of regular trading ahead at which the regime is to be predicted; 390 is one session (DATA-22, C-23)."""

    target_moments: tuple[tuple[float, float], ...] | None = None
    """Mean and deviation of the return over each horizon among the training rows; filled in training, not by hand."""

    @property
    def n_features(self) -> int:
        """Features that the model sees."""
        return len(self.seen_features())

    @property
    def d_inner(self) -> int:
        """Width inside a mixer."""
        return self.d_model if self.block == "documented" else self.expand * self.d_model

    @property
    def has_shared_gate(self) -> bool:
        """Whether the regime detector is also the experts' gate (C-37)."""
        return self.moe != "none" and self.n_experts == len(REGIMES) and not self.separate_gates

    @property
    def consecutive_rows(self) -> int:
        """Rows that must stay together and in time order in a batch: 1 but for the composite loss (C-48)."""
        return self.seq_per_batch if self.loss == "composite" else 1

    def seen_groups(self) -> tuple[str, ...]:
        """Return the names of the feature groups that the model sees, in schema order."""
        return groups_named(self.feature_groups, tuple(FEATURE_GROUPS)[: GROUPS_OF_SCHEMA[self.feature_schema]])

    def seen_features(self) -> tuple[str, ...]:
        """Return the names of the features that the model sees, in schema order."""
        return tuple(name for group in self.seen_groups() for name in FEATURE_GROUPS[group])

    def first_scales(self) -> dict[str, float]:
        """Return the first weight of each feature that the model sees (FEAT-CB-W)."""
        weights = {
            "spot": self.scale_high,
            "physics": self.scale_critical,
            "volatility": self.scale_gating,
            "technicals": self.scale_medium,
            "bands": self.scale_high,
            "metadata": self.scale_static,
            "dynamic": self.scale_medium,
            "primitives": self.scale_medium,
        }
        return {name: weights[group] for group in self.seen_groups() for name in FEATURE_GROUPS[group]}

    def attention_layers(self) -> tuple[int, ...]:
        """Return the indices of the blocks that attention follows, from 0 (CONDOR-19, C-40)."""
        if not self.vol_gated_attn:
            return ()
        if self.vga_layers == "documented":
            return (7, 15, 23)
        return tuple(k * self.n_layers // 4 - 1 for k in (1, 2, 3))

    def at_fidelity(self, *, width_frac: float, depth_frac: float) -> CondorConfig:
        """Return the config with a share of `d_model` and `n_layers`, as near as heads and attention allow."""
        inner = 1 if self.block == "documented" else self.expand
        unit = self.headdim // math.gcd(self.headdim, inner) if self.ssm_variant == "mamba2" else 1
        fewest = 1
        if self.vol_gated_attn:
            unit = math.lcm(unit, self.vga_heads)
            fewest = max(4, self.attention_layers()[-1] + 1) if self.vga_layers == "documented" else 4
        width = max(unit, round(width_frac * self.d_model / unit) * unit)
        depth = max(fewest, round(depth_frac * self.n_layers))
        return self.model_validate({**self.model_dump(), "d_model": width, "n_layers": min(depth, self.n_layers)})

    @classmethod
    def check_data(cls, reach: Mapping[str, tuple[Any, ...]], data: DataConfig) -> None:
        """Refuse rows of contracts without a chain."""
        axes = sorted(set(reach.get("sequence_axis", ())) - {"time"})
        if axes and data.chain is None:
            raise DataError(
                f"sequence_axis: {axes[0]} expected a chain of contracts, found none; name its file in data.chain, or "
                "set sequence_axis: time"
            )

    @classmethod
    def scored_lookback(cls, reach: Mapping[str, tuple[Any, ...]]) -> int:
        """Bars of history that every scored timestamp must have: the longest look-back that the space allows."""
        return int(max(cls.within(reach, "lookback")))

    @model_validator(mode="after")
    def _widths_divide(self) -> CondorConfig:
        if self.ssm_variant == "mamba2" and self.d_inner % self.headdim:
            width = "d_model" if self.block == "documented" else "expand * d_model"
            raise ValueError(f"headdim: expected a divisor of {width} = {self.d_inner}, found {self.headdim}")
        if self.vol_gated_attn and self.d_model % self.vga_heads:
            raise ValueError(f"vga_heads: expected a divisor of d_model = {self.d_model}, found {self.vga_heads}")
        return self

    @model_validator(mode="after")
    def _attention_fits(self) -> CondorConfig:
        if self.vol_gated_attn and self.n_layers < 4:
            raise ValueError(f"vol_gated_attn: expected n_layers of at least 4, found {self.n_layers}; turn it off")
        if self.vol_gated_attn and max(self.attention_layers()) >= self.n_layers:
            raise ValueError(
                f"vga_layers: expected block indices below n_layers = {self.n_layers}, "
                f"found {max(self.attention_layers())}; use auto"
            )
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> CondorConfig:
        if self.moe == "topk" and self.moe_k > self.n_experts:
            raise ValueError(f"moe_k: expected at most n_experts = {self.n_experts}, found {self.moe_k}")
        return self

    @model_validator(mode="after")
    def _switches_agree(self) -> CondorConfig:
        if self.diffusion and not self.trajectory:
            raise ValueError(
                "diffusion: expected trajectory to be on, found it off; turn trajectory on or diffusion off"
            )
        if self.loss == "composite" and self.batch_size % self.seq_per_batch:
            raise ValueError(
                f"seq_per_batch: expected a divisor of batch_size = {self.batch_size} with loss composite, "
                f"found {self.seq_per_batch}"
            )
        if self.loss == "composite" and self.policy_activation == "softmax_documented":
            raise ValueError(
                "policy_activation: expected bounded with loss composite, found softmax_documented, "
                "whose outputs are no offsets and widths"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_known(self) -> CondorConfig:
        seen = self.seen_groups()
        needs_volatility = self.gate_input == "hidden_vol" or (self.vol_gated_attn and self.vga_source == "vol_feature")
        if needs_volatility and "volatility" not in seen:
            raise ValueError(
                f"feature_groups: expected the group volatility, which gate_input or vga_source asks for, "
                f"found {self.feature_groups!r}"
            )
        return self

    @model_validator(mode="after")
    def _is_built(self) -> CondorConfig:
        """Refuse by name what has a place here and no code yet."""
        for field, built in _BUILT.items():
            if getattr(self, field) not in built:
                every = get_args(type(self).model_fields[field].annotation)
                missing = ", ".join(str(value) for value in (every or (False, True)) if value not in built)
                raise ValueError(
                    f"{field}: expected one of {', '.join(map(str, built))}, found {getattr(self, field)}; "
                    f"not built yet: {missing}"
                )
        return self


_BUILT: Mapping[str, tuple[Any, ...]] = {
    "label_mode": ("soft_hindsight", "argmax_hindsight"),
}
"""Fields of which only some values have code, with those values."""
