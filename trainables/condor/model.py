"""CondorBrain: features, embedding, a state-space backbone, and heads on the last state (CONDOR-1).

Letters: B batch, T time, F features, D width, E experts, H horizons, J sessions of a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainables.condor import sizes
from trainables.condor.config import HORIZON_SESSIONS, POLICY_RANGES, REGIMES, CondorConfig
from trainables.features.schemas import CONDOR_BASE
from trainables.layers.blocks import DocumentedBlock, ResidualBlock
from trainables.layers.diffusion import DiffusionHead
from trainables.layers.experts import SoftMoE, TopKMoE
from trainables.layers.feature_scaling import FeatureScaling
from trainables.layers.heads import BoundedOutputs, ForecastHead, RegimeDetector, entropy, normalised_entropy
from trainables.layers.mamba1 import ChannelScan, Mamba1Mixer
from trainables.layers.mamba2 import Mamba2Mixer, ProjectedHeadScan, State
from trainables.layers.norms import RMSNorm
from trainables.layers.trajectory import HorizonForecaster
from trainables.layers.vol_gated_attention import VolGatedAttn

OUTPUT_NAMES = (
    *(name for name, _, _ in POLICY_RANGES),
    *(f"p_{regime}" for regime in REGIMES),
    *(f"{number}_{sessions}d" for sessions in HORIZON_SESSIONS for number in ("mu", "sigma", "p_up")),
)
"""The 23 public outputs: 0-7 policy, 8-10 regime, 11-22 forecasts, horizon by horizon (CONDOR-9, C-81). Frozen."""

Outputs = dict[str, Tensor | dict[str, Tensor] | None]
"""What the model returns; every tensor has the batch first.

`policy` (B, 8), `regime_logits` (B, 3), `mu`, `sigma` and `p_up_logits` (B, 4); `gate` (B, E), the experts'
probabilities, with `moe`; `trajectory` (B, J, 4) with `trajectory`; `state` (B, D) with `diffusion`, and, in training,
`denoiser`, its parameters by name, which the loss needs.
"""


class DerivedViews(NamedTuple):
    """Quantities that a trader reads off the policy (CONDOR-11, C-35); prices in the market's units."""

    short_call: Tensor
    short_put: Tensor
    long_call: Tensor
    long_put: Tensor
    width: Tensor
    roi: Tensor
    p_regime: Tensor


class CondorModel(nn.Module):
    """Map windows of features to the outputs of `Outputs`.

    Args:
        config: A checked config.
        feature_names: Names of the columns of a window.

    Raises:
        ValueError: The data have not all the features that the config wants to see.
    """

    def __init__(self, config: CondorConfig, feature_names: tuple[str, ...]) -> None:
        super().__init__()
        missing = [name for name in config.seen_features() if name not in feature_names]
        if missing:
            raise ValueError(
                f"features: expected {', '.join(missing)} among the columns, found {len(feature_names)} others"
            )
        self.config = config
        d = config.d_model
        self.feature_scaling = _feature_scaling(config, feature_names)
        self.embedding = nn.Sequential(nn.Linear(config.n_features, d), nn.LayerNorm(d))
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.n_layers))
        self.attentions = nn.ModuleDict({str(index): _attention(config) for index in config.attention_layers()})
        self.norm = RMSNorm(d)
        self.regime = RegimeDetector(sizes.gate_width(config), len(REGIMES))
        self.forecast = ForecastHead(d, HORIZON_SESSIONS, unit=config.forecast_unit, sigma_floor=config.sigma_floor)
        self.policy = _policy(config)
        has_gate = config.moe != "none" and not config.has_shared_gate
        self.gate = nn.Linear(sizes.gate_width(config), config.n_experts) if has_gate else None
        self.bounds = BoundedOutputs([(low, high) for _, low, high in POLICY_RANGES])
        self.trajectory = (
            HorizonForecaster(d, sessions=config.trajectory_sessions, hidden=config.gru_hidden)
            if config.trajectory
            else None
        )
        self.diffusion = _diffusion(config) if config.diffusion else None
        gate_columns = [feature_names.index(n) for n in CONDOR_BASE[10:13]] if config.gate_input == "hidden_vol" else []
        self.register_buffer("gate_columns", torch.tensor(gate_columns, dtype=torch.long), persistent=False)
        iv = [feature_names.index("iv")] if config.attention_layers() and config.vga_source == "vol_feature" else []
        self.register_buffer("volatility_column", torch.tensor(iv, dtype=torch.long), persistent=False)

    def forward(self, windows_BTF: Tensor) -> Outputs:
        x_BTD = self.embedding(self.feature_scaling(windows_BTF))
        volatility_BT1 = self._volatility(windows_BTF)
        for index, block in enumerate(self.blocks):
            x_BTD = self._recomputed(block, x_BTD)
            if str(index) in self.attentions:
                x_BTD = self._recomputed(partial(self.attentions[str(index)], volatility_BTV=volatility_BT1), x_BTD)
        return self._heads(x_BTD[:, -1], windows_BTF[:, -1])

    def first_state(self, batch: int) -> tuple[State, ...]:
        """Return the recurrent state before the first row: of each block, and of the attention that follows it."""
        states = []
        for index, block in enumerate(self.blocks):
            states.append(block.first_state(batch))
            if str(index) in self.attentions:
                states.append(self.attentions[str(index)].first_state(batch))
        return tuple(states)

    def step(self, row_BF: Tensor, state: tuple[State, ...]) -> tuple[Outputs, tuple[State, ...]]:
        """Take one more row: the outputs of a window that ends with it, and the state after it (CONDOR-6).

        The cost does not depend on the rows before, save that attention looks at up to `lookback` of them.
        """
        rows_B1F, states, old = row_BF.unsqueeze(1), [], iter(state)
        x_B1D = self.embedding(self.feature_scaling(rows_B1F))
        volatility_B11 = self._volatility(rows_B1F)
        for index, block in enumerate(self.blocks):
            x_B1D, new = block.resume(x_B1D, next(old))
            states.append(new)
            if str(index) in self.attentions:
                x_B1D, new = self.attentions[str(index)].resume(x_B1D, next(old), volatility_B11)
                states.append(new)
        return self._heads(x_B1D[:, -1], row_BF), tuple(states)

    def _recomputed(self, layer: nn.Module | partial, x_BTD: Tensor) -> Tensor:
        if self.config.grad_checkpoint and self.training and torch.is_grad_enabled():
            return checkpoint(layer, x_BTD, use_reentrant=False)
        return layer(x_BTD)

    def _volatility(self, windows_BTF: Tensor) -> Tensor | None:
        return windows_BTF.index_select(-1, self.volatility_column) if len(self.volatility_column) else None

    def _heads(self, last_BD: Tensor, row_BF: Tensor) -> Outputs:
        state_BD = self.norm(last_BD)
        gate_input = torch.cat([state_BD, row_BF.index_select(-1, self.gate_columns)], dim=-1)
        regime_logits = self.regime(gate_input)
        forecast = self.forecast(state_BD)
        outputs: Outputs = {"regime_logits": regime_logits, **forecast._asdict()}
        policy_input = state_BD
        if self.config.policy_conditioning == "forecasts":
            policy_input = torch.cat([state_BD, self._in_units(forecast)], dim=-1)
        if self.config.moe == "none":
            raw_B8 = self.policy(policy_input)
        else:
            gate_logits = regime_logits if self.gate is None else self.gate(gate_input)
            outputs["gate"] = gate_logits.softmax(-1)
            raw_B8 = self.policy(policy_input, outputs["gate"])
        outputs["policy"] = self._activated(raw_B8, regime_logits)
        if self.trajectory is not None:
            outputs["trajectory"] = self.trajectory(state_BD)
        if self.diffusion is not None:
            outputs["state"] = state_BD
            if self.training:
                outputs["denoiser"] = dict(self.diffusion.named_parameters())
        return outputs

    def _in_units(self, forecast: NamedTuple) -> Tensor:
        """Return the forecasts, means and deviations in units of an ordinary move (CONDOR-18, C-39).

        Detached in training, so that the policy does not bend the forecasts. Not in evaluation, where the curvature of
        the loss is measured, which a cut gradient would falsify.
        """
        scale = self.forecast.scale
        numbers = torch.cat([forecast.mu / scale, forecast.sigma / scale, forecast.p_up_logits.sigmoid()], dim=-1)
        return numbers.detach() if self.training else numbers

    def _activated(self, raw_B8: Tensor, regime_logits: Tensor) -> Tensor:
        """Bring the policy into its ranges, and take the confidence from where the config says (C-18b, C-19)."""
        is_softmax = self.config.policy_activation == "softmax_documented"
        policy_B8 = raw_B8.softmax(-1) if is_softmax else self.bounds(raw_B8)
        if self.config.confidence_source == "head":
            return policy_B8
        if self.config.confidence_source == "entropy_norm":
            confidence_B = 1 - normalised_entropy(regime_logits.softmax(-1))
        else:
            confidence_B = 1 - entropy(policy_B8 if is_softmax else regime_logits.softmax(-1))
        return torch.cat([policy_B8[:, :-1], confidence_B[:, None]], dim=-1)


def public_outputs(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the 23 public outputs (B, 23) in the order of `OUTPUT_NAMES` (CONDOR-9)."""
    forecasts_BH3 = torch.stack([outputs["mu"], outputs["sigma"], outputs["p_up_logits"].sigmoid()], dim=-1)
    return torch.cat([outputs["policy"], outputs["regime_logits"].softmax(-1), forecasts_BH3.flatten(1)], dim=-1)


def derived_views(outputs: Mapping[str, Tensor], spot_B: Tensor, sigma_atm_B: Tensor) -> DerivedViews:
    """Return strikes, width, return and regime (CONDOR-11, CONDOR-13, C-36).

    Args:
        outputs: Of the model, with bounded policy.
        spot_B: Price of the underlying.
        sigma_atm_B: Expected move in price units: spot times implied volatility times sqrt(days / 365).
    """
    call_B, put_B, width_B = outputs["policy"][:, :3].unbind(-1)
    short_call, short_put = spot_B + call_B * sigma_atm_B, spot_B - put_B * sigma_atm_B
    return DerivedViews(
        short_call=short_call,
        short_put=short_put,
        long_call=short_call + width_B,
        long_put=short_put - width_B,
        width=width_B,
        roi=outputs["policy"][:, 5],
        p_regime=outputs["regime_logits"].softmax(-1),
    )


def sampled_trajectories(model: CondorModel, outputs: Outputs, generator: torch.Generator) -> Tensor:
    """Return sampled paths (B, M, J, 4) around the predicted one, in the units of the trajectory (CONDOR-21).

    Raises:
        ValueError: The model has no diffusion head.
    """
    if model.diffusion is None:
        raise ValueError("diffusion: expected a model with a diffusion head, found none; turn diffusion on")
    config = model.config
    residual_BMX = model.diffusion.sample(
        outputs["state"],
        n_samples=config.diffusion_samples,
        n_steps=config.diffusion_sampling_steps,
        generator=generator,
    )
    path_B1J4 = outputs["trajectory"].unsqueeze(1)
    scale_J4 = trajectory_scale(config).to(path_B1J4)
    return path_B1J4 + residual_BMX.unflatten(-1, scale_J4.shape) * scale_J4


def trajectory_scale(config: CondorConfig) -> Tensor:
    """Return what standardises a path, (J, 4): an ordinary move up to each session, an ordinary annual volatility."""
    session_J = torch.arange(1, config.trajectory_sessions + 1, dtype=torch.float32)
    move_J = config.forecast_unit * session_J.sqrt()
    volatility_J = torch.full_like(move_J, config.forecast_unit * config.sessions_per_year**0.5)
    return torch.stack([move_J, move_J, move_J, volatility_J], dim=-1)


def _feature_scaling(config: CondorConfig, feature_names: tuple[str, ...]) -> FeatureScaling:
    scales = config.first_scales()
    static = CONDOR_BASE[22:24]
    return FeatureScaling(
        columns=[feature_names.index(name) for name in scales],
        first_scales=[1.0 if config.feature_scaling == "none" else value for value in scales.values()],
        learns=[config.feature_scaling == "learned" and name not in static for name in scales],
    )


def _block(config: CondorConfig) -> nn.Module:
    d, scan = config.d_model, {"d_state": config.d_state, "discretisation": config.discretisation}
    is_mamba2 = config.ssm_variant == "mamba2"
    if config.block == "documented":
        bare = (
            ProjectedHeadScan(d, head_dim=config.headdim, **scan)
            if is_mamba2
            else ChannelScan(d, rank=sizes.step_rank(config), **scan)
        )
        return DocumentedBlock(d, bare, config.dropout)
    wide = {"expand": config.expand, "d_conv": config.d_conv, **scan}
    mixer = Mamba2Mixer(d, head_dim=config.headdim, **wide) if is_mamba2 else Mamba1Mixer(d, **wide)
    return ResidualBlock(d, mixer, config.dropout)


def _attention(config: CondorConfig) -> VolGatedAttn:
    return VolGatedAttn(
        config.d_model,
        heads=config.vga_heads,
        gate_hidden=sizes.gate_hidden(config.d_model),
        volatility_width=config.d_model if config.vga_source == "hidden" else 1,
        is_causal=config.vga_causal,
        window=config.lookback,
    )


def _policy(config: CondorConfig) -> nn.Module:
    width, n_outputs = sizes.policy_width(config), len(POLICY_RANGES)
    if config.moe == "none":
        return nn.Linear(width, n_outputs)
    shape = (config.n_experts, width, sizes.expert_hidden(config.d_model), n_outputs)
    if config.moe == "soft":
        return SoftMoE(*shape)
    return TopKMoE(*shape, k=config.moe_k, gate_scale=config.gate_scale)


def _diffusion(config: CondorConfig) -> DiffusionHead:
    return DiffusionHead(
        config.trajectory_sessions * sizes.N_PATH_COLUMNS,
        config.d_model,
        levels=config.diffusion_steps,
        hidden=config.diffusion_hidden,
        time_width=config.diffusion_time_width,
    )
