"""How large a condor is: parameters exactly, memory and operations roughly. Arithmetic on a config; imports no torch.

Letters as in the papers: D width, I inner width, N state, H heads, P channels of a head, Q chunk of the scan.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainables.ops.scan import choose_block, choose_chunk, choose_compiled_chunk

if TYPE_CHECKING:
    from trainables.condor.config import CondorConfig

N_POLICY, N_REGIMES, N_FORECASTS, N_PATH_COLUMNS = 8, 3, 12, 4
"""Outputs of the heads (CONDOR-9) and columns of the trajectory (CONDOR-17)."""

N_STATIC_FEATURES = 2
"""Features whose weight never learns: distance to spot, call or put (FEAT-CB-W)."""

N_GATE_FEATURES = 3
"""Volatility features that the gate may see (FEAT-CB-W)."""


def step_rank(config: CondorConfig) -> int:
    """Return the rank of the step-size projection of mamba1 (Gu & Dao 2023, section 3.6)."""
    return math.ceil(config.d_model / 16)


def parameters(config: CondorConfig) -> dict[str, int]:
    """Return the number of trainable parameters of each part of the model."""
    d = config.d_model
    learned = config.feature_scaling == "learned"
    n_static = N_STATIC_FEATURES if "metadata" in config.seen_groups() else 0
    return {
        "feature_scaling": config.n_features - n_static if learned else 0,
        "embedding": config.n_features * d + 3 * d,
        "backbone": config.n_layers * block_parameters(config),
        "attention": len(config.attention_layers()) * attention_parameters(config),
        "norm": d,
        "regime": _linear(gate_width(config), N_REGIMES),
        "forecast": _linear(d, N_FORECASTS),
        "policy": _policy_parameters(config),
        "trajectory": _trajectory_parameters(config) if config.trajectory else 0,
        "diffusion": _diffusion_parameters(config) if config.diffusion else 0,
    }


def block_parameters(config: CondorConfig) -> int:
    """Return the parameters of one block: a norm, a mixer; or the documented block (CONDOR-2)."""
    d, inner, n = config.d_model, config.d_inner, config.d_state
    if config.ssm_variant == "mamba2":
        heads = inner // config.headdim
        core, projected, convolved = 3 * heads, 2 * n + heads, inner + 2 * n
        mixer = d * (2 * inner + projected) + convolved * (config.d_conv + 1) + core + inner + inner * d
        bare = d * projected + core
    else:
        rank = step_rank(config)
        core = inner * (rank + 2 * n) + _linear(rank, inner) + inner * n + inner
        mixer = d * 2 * inner + inner * (config.d_conv + 1) + core + inner * d
        bare = core
    return bare + d * d if config.block == "documented" else mixer + d


def attention_parameters(config: CondorConfig) -> int:
    """Return the parameters of one volatility-gated attention (CONDOR-19)."""
    d, seen = config.d_model, config.d_model if config.vga_source == "hidden" else 1
    hidden = gate_hidden(d)
    return _linear(d, 3 * d) + _linear(d, d) + _linear(seen, hidden) + _linear(hidden, 1)


def gate_hidden(d_model: int) -> int:
    """Return the hidden width of the attention's gate: d_model / 8, at least 1 (CONDOR-19)."""
    return max(1, d_model // 8)


def gate_width(config: CondorConfig) -> int:
    """Return the number of inputs of the regime detector and of the experts' gate."""
    return config.d_model + (N_GATE_FEATURES if config.gate_input == "hidden_vol" else 0)


def policy_width(config: CondorConfig) -> int:
    """Return the number of inputs of the policy head."""
    return config.d_model + (N_FORECASTS if config.policy_conditioning == "forecasts" else 0)


def expert_hidden(d_model: int) -> int:
    """Return the hidden width of an expert: d_model / 2, at least 1 (CONDOR-15)."""
    return max(1, d_model // 2)


def memory_bytes(config: CondorConfig) -> int:
    """Return the estimated peak bytes of training: 16 per parameter (AdamW, fp32) and the saved activations."""
    rows = config.batch_size * config.lookback
    per_number = 2 if config.precision in ("bf16", "fp16") else 4
    per_layer = rows * _saved_numbers(config) * per_number
    kept = rows * config.d_model * per_number
    n = config.n_layers
    activations = n * kept + per_layer if config.grad_checkpoint else n * per_layer
    return 16 * config.n_parameters() + activations


def forward_flops(config: CondorConfig) -> float:
    """Return the estimated floating-point operations of one window: two per weight and row, and the scan."""
    counts = parameters(config)
    per_row = counts["embedding"] + counts["backbone"] + counts["attention"]
    once = sum(counts.values()) - per_row
    if config.trajectory:
        once += (config.trajectory_sessions - 1) * counts["trajectory"]
    scan = config.n_layers * _scan_flops(config)
    attention = len(config.attention_layers()) * 4 * config.lookback * config.d_model
    return float(2 * once + config.lookback * (2 * per_row + scan + attention))


def _linear(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out


def _policy_parameters(config: CondorConfig) -> int:
    width = policy_width(config)
    if config.moe == "none":
        return _linear(width, N_POLICY)
    hidden = expert_hidden(config.d_model)
    experts = config.n_experts * (_linear(width, hidden) + _linear(hidden, N_POLICY))
    return experts + (0 if config.has_shared_gate else _linear(gate_width(config), config.n_experts))


def _trajectory_parameters(config: CondorConfig) -> int:
    g = config.gru_hidden
    cell = 3 * g * (1 + g) + 6 * g
    return _linear(config.d_model, g) + cell + _linear(g, N_PATH_COLUMNS) + _linear(g, 1)


def _diffusion_parameters(config: CondorConfig) -> int:
    path, hidden = config.trajectory_sessions * N_PATH_COLUMNS, config.diffusion_hidden
    first = _linear(path + config.d_model + config.diffusion_time_width, hidden)
    return first + _linear(hidden, hidden) + _linear(hidden, path)


def _scan_flops(config: CondorConfig) -> float:
    """Return the operations of the scan per row and layer, as `trainables.ops.scan.compiled` does them."""
    n, inner = config.d_state, config.d_inner
    if config.ssm_variant == "mamba1":
        return 2 * inner * n
    chunk = choose_compiled_chunk(config.lookback)
    carried = n if chunk < config.lookback else 0
    return 2 * chunk * n + 2 * inner * (chunk + 2 * carried)


def _saved_numbers(config: CondorConfig) -> int:
    """Return the numbers that a layer keeps per row for its backward pass: compiled scan in fp32, else chunked."""
    d, inner, n = config.d_model, config.d_inner, config.d_state
    if config.ssm_variant == "mamba1":
        passes = math.ceil(math.log2(choose_block(config.lookback)))
        return 3 * d + 8 * inner + (3 + 2 * passes) * inner * n
    heads = inner // config.headdim
    if config.precision not in ("bf16", "fp16"):
        chunk = choose_compiled_chunk(config.lookback)
        operands = heads * (chunk + 2) + inner + chunk + (inner * (2 + n / chunk) if chunk < config.lookback else 0)
        return round(2 * d + 5 * inner + 4 * n + 5 * heads + operands)
    block = choose_block(choose_chunk(config.lookback, n, config.headdim))
    return 3 * d + 15 * inner + 8 * n + heads * (3 * block + 8)
