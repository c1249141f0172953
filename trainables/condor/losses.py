"""Losses of the condor family (LOSS-4 to LOSS-9) and the reference loss that trials are compared by (LOSS-11).

Everything is written in operations that have second derivatives: the curvature of the loss is measured.
Letters: B batch, C chunks, T consecutive rows of a chunk, H horizons, J sessions of a path, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from trainables.condor.config import HORIZON_SESSIONS, POLICY_RANGES, REGIMES, CondorConfig
from trainables.condor.model import Outputs, trajectory_scale
from trainables.layers.diffusion import add_noise, denoise, signal_shares
from trainables.layers.experts import chosen

REFERENCE = CondorConfig()
"""The settings of the reference loss: the defaults, whatever a trial trains with (LOSS-11)."""

EXTRA_TARGETS = ("regime_now", "sigma_atm", "move", "session_volatility")
"""Target columns that are no labels of an output: the regime of the row, what a condor's profit depends on, and the
moving volatility that a naive forecast says."""

DOCUMENTED_NAMES = {"target_dte": "dte", "win_probability": "pop", "max_loss_frac": "mdd"}
"""Short names that the source's curves use for outputs of the policy."""

ROI, RISK, CONFIDENCE = 5, 6, 7
"""Places in the policy (CONDOR-13)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Columns of the targets by meaning.

    Attributes:
        policy: (B, 8) in native units; column 7 is not used, the confidence's target is C-19.
        regime: (B,) class of the regime ahead.
        returns: (B, H) log return over each horizon.
        regime_now: (B,) class of the regime at the row itself (C-23).
        sigma_atm: (B,) expected move up to the best expiry, price units (C-36).
        move: (B,) realised move up to it, in units of `sigma_atm`.
        session_volatility: (B,) moving deviation of past log returns, of a session (ANALYSIS-4).
        path: (B, J, 4) as the trajectory, or None.
    """

    policy: Tensor
    regime: Tensor
    returns: Tensor
    regime_now: Tensor
    sigma_atm: Tensor
    move: Tensor
    session_volatility: Tensor
    path: Tensor | None

    @classmethod
    def split(cls, config: CondorConfig, targets_BK: Tensor) -> Targets:
        """Take the columns apart, whose order is that of `target_names`.

        Raises:
            ValueError: There are fewer columns than the config needs.
        """
        sessions = config.trajectory_sessions if config.trajectory else 0
        expected = len(target_names(sessions))
        if targets_BK.shape[1] < expected:
            raise ValueError(f"targets: expected (B, {expected}) or wider, found {tuple(targets_BK.shape)}")
        widths = [len(POLICY_RANGES), 1, len(HORIZON_SESSIONS), *(1 for _ in EXTRA_TARGETS), sessions * 4]
        policy, regime, returns, now, sigma_atm, move, volatility, path = targets_BK[:, :expected].split(widths, dim=1)
        return cls(
            policy=policy,
            regime=regime.squeeze(1).long(),
            returns=returns,
            regime_now=now.squeeze(1).long(),
            sigma_atm=sigma_atm.squeeze(1),
            move=move.squeeze(1),
            session_volatility=volatility.squeeze(1),
            path=path.unflatten(1, (sessions, 4)) if sessions else None,
        )


def target_names(trajectory_sessions: int) -> tuple[str, ...]:
    """Return the names of the target columns, in order: policy, regime, returns, what the loss needs besides, path."""
    first = [name for name, _, _ in POLICY_RANGES] + ["regime"] + [f"return_{h}" for h in HORIZON_SESSIONS]
    path = [f"{part}_{j}" for j in range(1, trajectory_sessions + 1) for part in ("close", "high", "low", "volatility")]
    return (*first, *EXTRA_TARGETS, *path)


def training_loss(config: CondorConfig, outputs: Outputs, targets_BK: Tensor) -> Tensor:
    """Return the scalar that training minimises: the base or composite loss and the terms of the heads that are on."""
    targets = Targets.split(config, targets_BK)
    if config.loss == "composite":
        total = composite_loss(config, outputs["policy"], targets)
        total = total + config.lambda_reg * regime_loss(outputs["regime_logits"], targets.regime).mean()
    else:
        total = base_loss(config, outputs, targets).mean()
    total = total + config.w_forecast * forecast_loss(config, outputs, targets.returns).mean()
    if config.moe == "topk":
        total = total + balance_loss(
            outputs["gate"], k=config.moe_k, alpha=config.moe_aux_alpha, scale=config.aux_scale
        )
    if targets.path is not None:
        total = total + config.w_traj * trajectory_loss(config, outputs["trajectory"], targets.path).mean()
    if config.diffusion and "denoiser" in outputs:
        total = total + config.w_diff * diffusion_loss(config, outputs, targets.path)
    return total


def reference_loss(outputs: Outputs, targets: Targets) -> Tensor:
    """Return (B,): LOSS-4 with default weights on range-scaled errors, the same for all trials (LOSS-11)."""
    return base_loss(REFERENCE, outputs, targets)


def base_loss(config: CondorConfig, outputs: Outputs, targets: Targets) -> Tensor:
    """Return (B,): Huber of outputs 0-3, cross-entropy of the regime, squares of outputs 4-7 (LOSS-4, C-46, C-90)."""
    error_B8 = policy_errors(config, outputs["policy"], targets.policy)
    return combine_base(config, error_B8, regime_loss(outputs["regime_logits"], targets.regime))


def combine_base(config: CondorConfig, error_B8: Tensor, cross_entropy_B: Tensor) -> Tensor:
    """Return (B,) from errors and cross-entropy: LOSS-4.

    A confidence that is the regime's entropy has no error of its own and is left out.
    """
    strikes_B = huber(error_B8[:, :4], config.huber_delta).sum(-1)
    risk_B4 = error_B8[:, 4:].square() if config.risk_loss == "mse" else huber(error_B8[:, 4:], config.huber_delta)
    weights = [config.lambda_pnl] * 4
    if config.risk_weighting == "lambda_risk":
        weights[RISK - 4] = config.lambda_risk
    if config.confidence_source != "head":
        weights[CONFIDENCE - 4] = 0.0
    weighted_B = (risk_B4 * risk_B4.new_tensor(weights)).sum(-1)
    return config.lambda_stk / 2 * strikes_B + config.lambda_reg * cross_entropy_B + weighted_B


def head_losses(config: CondorConfig, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
    """Return the mean loss of each output, without weights: eight of the policy, regime and forecast (TRAIN-12).

    The probability of a win is called `pop` and the largest loss `mdd`, as in the document.
    """
    error_B8 = policy_errors(config, outputs["policy"], targets.policy)
    strikes_B4 = huber(error_B8[:, :4], config.huber_delta)
    risk_B4 = error_B8[:, 4:].square() if config.risk_loss == "mse" else huber(error_B8[:, 4:], config.huber_delta)
    names = [DOCUMENTED_NAMES.get(name, name) for name, _, _ in POLICY_RANGES]
    policy = torch.cat([strikes_B4, risk_B4], dim=1).mean(0)
    return {
        **dict(zip(names, policy, strict=True)),
        "regime": regime_loss(outputs["regime_logits"], targets.regime).mean(),
        "forecast": forecast_loss(config, outputs, targets.returns).mean(),
    }


def policy_errors(config: CondorConfig, policy_B8: Tensor, target_B8: Tensor) -> Tensor:
    """Return prediction minus target, (B, 8), in shares of each output's range or as they are (LOSS-5, C-47).

    The confidence should be 1 where the sign of the predicted return was right, else 0 (C-19); it does not teach the
    return.
    """
    is_right_B = policy_B8[:, ROI].detach().sign() == target_B8[:, ROI].sign()
    target_B8 = torch.cat([target_B8[:, :CONFIDENCE], is_right_B[:, None].to(target_B8.dtype)], dim=1)
    error_B8 = policy_B8 - target_B8
    if config.target_scaling == "none_documented":
        return error_B8
    return error_B8 / error_B8.new_tensor([high - low for _, low, high in POLICY_RANGES])


def huber(error: Tensor, delta: float) -> Tensor:
    """Return half the square within `delta`, beyond it the tangent (Huber 1964)."""
    size = error.abs()
    return torch.where(size <= delta, 0.5 * error.square(), delta * (size - 0.5 * delta))


def regime_loss(logits_B3: Tensor, regime_B: Tensor) -> Tensor:
    """Return the cross-entropy in nats, (B,)."""
    return functional.cross_entropy(logits_B3, regime_B, reduction="none")


def gaussian_crps(mu: Tensor, sigma: Tensor, value: Tensor) -> Tensor:
    """Return the continuous ranked probability score of a Gaussian (Gneiting et al. 2005, equation 5)."""
    z = (value - mu) / sigma
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return sigma * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def forecast_loss(config: CondorConfig, outputs: Outputs, returns_BH: Tensor) -> Tensor:
    """Return (B,): score of the Gaussians plus cross-entropy of the rise, means over horizons (LOSS-8).

    Returns count in `forecast_unit` times the square root of the horizon, so that both terms are of order one.
    """
    scale_H = config.forecast_unit * returns_BH.new_tensor(HORIZON_SESSIONS).sqrt()
    mu, sigma, value = outputs["mu"] / scale_H, outputs["sigma"] / scale_H, returns_BH / scale_H
    if config.forecast_loss == "crps":
        score_BH = gaussian_crps(mu, sigma, value)
    else:
        score_BH = 0.5 * ((value - mu) / sigma).square() + sigma.log() + 0.5 * math.log(2 * math.pi)
    rose_BH = (returns_BH > 0).to(returns_BH.dtype)
    rise_BH = functional.softplus(outputs["p_up_logits"]) - rose_BH * outputs["p_up_logits"]
    return (score_BH + rise_BH).mean(-1)


def balance_loss(gate_BE: Tensor, *, k: int, alpha: float, scale: str) -> Tensor:
    """Return alpha times the sum over experts of share routed times mean probability (LOSS-7)."""
    n_experts = gate_BE.shape[1]
    share_E = chosen(gate_BE, k).mean(0) / k
    factor = n_experts if scale == "n_times" else 1
    return alpha * factor * (share_E * gate_BE.mean(0)).sum()


def trajectory_loss(config: CondorConfig, path_BJ4: Tensor, target_BJ4: Tensor) -> Tensor:
    """Return (B,): mean Huber of the standardised path (LOSS-9)."""
    error = (path_BJ4 - target_BJ4) / trajectory_scale(config).to(path_BJ4)
    return huber(error, config.huber_delta).mean((1, 2))


def diffusion_loss(config: CondorConfig, outputs: Outputs, target_BJ4: Tensor) -> Tensor:
    """Return the mean squared error of the denoised residual path at random noise levels (LOSS-9, CONDOR-21)."""
    residual = (target_BJ4 - outputs["trajectory"].detach()) / trajectory_scale(config).to(target_BJ4)
    clean_BX = residual.flatten(1)
    level_B = torch.randint(config.diffusion_steps, (len(clean_BX),), device=clean_BX.device)
    share_B1 = signal_shares(config.diffusion_steps).to(clean_BX)[level_B, None]
    noisy_BX = add_noise(clean_BX, torch.randn_like(clean_BX), share_B1)
    weights: Mapping[str, Tensor] = outputs["denoiser"]
    predicted_BX = denoise(weights, noisy_BX, level_B, outputs["state"], config.diffusion_time_width)
    return (predicted_BX - clean_BX).square().mean()


def feature_loss(
    predicted_B4: Tensor, target_B4: Tensor, delta: float = 1.5, weights: tuple[float, ...] = (1.0, 0.7, 0.5, 0.2)
) -> Tensor:
    """Return (B,): weighted Huber of the four standardised meta features (LOSS-9)."""
    return (huber(predicted_B4 - target_B4, delta) * predicted_B4.new_tensor(weights)).sum(-1)


def composite_loss(config: CondorConfig, policy_B8: Tensor, targets: Targets) -> Tensor:
    """Return LOSS-6 of a batch that is made of chunks of `seq_per_batch` rows, each in time order (C-48).

    Raises:
        ValueError: The batch does not consist of whole chunks.
    """
    rows = config.seq_per_batch
    if len(policy_B8) % rows:
        raise ValueError(f"batch: expected chunks of seq_per_batch = {rows} rows for composite, found {len(policy_B8)}")
    chunks = (each.unflatten(0, (-1, rows)) for each in (policy_B8, targets.policy, targets.move, targets.sigma_atm))
    return CompositeCondorLoss(config)(*chunks)


class CompositeCondorLoss:
    """lambda1 prediction - lambda2 Sharpe + lambda3 drawdown + lambda4 turnover over consecutive rows (LOSS-6, C-48).

    Args:
        config: Weights, Huber delta, epsilon and smoothing.
    """

    def __init__(self, config: CondorConfig) -> None:
        self.config = config

    def __call__(self, policy_CT8: Tensor, target_CT8: Tensor, move_CT: Tensor, sigma_atm_CT: Tensor) -> Tensor:
        """Return the scalar loss of chunks of rows in time order.

        Args:
            policy_CT8: Bounded policy outputs.
            target_CT8: Their targets.
            move_CT: Realised move of the underlying up to expiry, in units of `sigma_atm_CT`.
            sigma_atm_CT: Expected move in points.
        """
        config = self.config
        error = policy_errors(config, policy_CT8.flatten(0, 1), target_CT8.flatten(0, 1))
        returns_CT = condor_return(policy_CT8, move_CT, sigma_atm_CT, config.payoff_smoothing)
        low, high = policy_CT8.new_tensor([(low, high) for _, low, high in POLICY_RANGES]).T
        return (
            config.lambda1 * huber(error, config.huber_delta).mean()
            - config.lambda2 * sharpe(returns_CT, config.sharpe_epsilon).mean()
            + config.lambda3 * drawdown(1 + returns_CT.cumsum(-1)).mean()
            + config.lambda4 * turnover((policy_CT8 - low) / (high - low)).mean()
        )


def condor_return(policy: Tensor, move: Tensor, sigma_atm: Tensor, smoothing: float) -> Tensor:
    """Return the profit of the predicted condor over its risk capital, smooth in the policy (LOSS-6).

    The credit is what the position is worth under a normal move of `sigma_atm` (Bachelier 1900).

    Args:
        policy: (..., 8) bounded outputs; offsets count in expected moves, the width in points.
        move: (...) realised move over expected move.
        sigma_atm: (...) expected move in points.
        smoothing: Width of the rounded corners in expected moves.
    """
    call, put, width = policy[..., 0], policy[..., 1], policy[..., 2] / sigma_atm
    credit = _spread_value(call, width) + _spread_value(put, width)
    paid = _smooth_clip(move - call, width, smoothing) + _smooth_clip(-move - put, width, smoothing)
    return (credit - paid) / (width - credit)


def _spread_value(offset: Tensor, width: Tensor) -> Tensor:
    """Return the value of a spread short at `offset` and long at `offset + width`, in standard moves."""
    return _call_value(offset) - _call_value(offset + width)


def _call_value(strike: Tensor) -> Tensor:
    """Return E max(Z - strike, 0) for a standard normal Z."""
    density = torch.exp(-0.5 * strike.square()) / math.sqrt(2 * math.pi)
    return density - strike * 0.5 * torch.erfc(strike / math.sqrt(2))


def _smooth_clip(x: Tensor, high: Tensor, smoothing: float) -> Tensor:
    """Return x clipped to 0..high with corners rounded by softplus."""
    return smoothing * (functional.softplus(x / smoothing) - functional.softplus((x - high) / smoothing))


def sharpe(returns_CT: Tensor, epsilon: float) -> Tensor:
    """Return mean over deviation along the rows, (C,)."""
    return returns_CT.mean(-1) / (returns_CT.var(-1, correction=0) + epsilon).sqrt()


def drawdown(equity_CT: Tensor) -> Tensor:
    """Return the mean squared distance below the high-water mark, (C,)."""
    high_water_CT = equity_CT.cummax(-1).values
    return (high_water_CT - equity_CT).square().mean(-1)


def turnover(policy_CT8: Tensor) -> Tensor:
    """Return the mean absolute change from row to row, summed over outputs, (C,)."""
    return policy_CT8.diff(dim=1).abs().sum(-1).mean(-1)


def regime_accuracy(logits_B3: Tensor, regime_B: Tensor) -> float:
    """Return the share of rows whose most probable regime is the true one (ANALYSIS-7).

    Raises:
        ValueError: The logits are not of the three regimes.
    """
    if logits_B3.shape[-1] != len(REGIMES):
        raise ValueError(f"regime_logits: expected (B, {len(REGIMES)}), found {tuple(logits_B3.shape)}")
    return float((logits_B3.argmax(-1) == regime_B).float().mean())
