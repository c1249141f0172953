"""How large a grok is: parameters exactly, memory and operations roughly. Arithmetic on a config; imports no torch.

Letters as in the model: D width, V groups, T tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.grok.config import GrokConfig

N_HORIZONS, N_LEVELS = 6, 7
"""Horizons and quantile levels (GROK-12)."""

N_PHASES = 6
"""Sines and cosines of three cycles (GROK-5)."""

WEEKDAYS = 7

SAVED_WITHOUT_FFN, SAVED_PER_FFN = 20, 2
"""Tensors of the tokens' size that a block keeps for its backward pass: 28 with a feed-forward layer of four widths, as
counted on autograd's saved tensors; the document's memory claim rests on it (GROK-9, C-30)."""

MOST_WRITTEN_OUT_BYTES = 4 * 2**30
"""Attention scores of a pass under which second derivatives are taken; more of them are not worth a flatness."""


def n_tokens(config: GrokConfig) -> int:
    """Return the tokens of a group: rows or patches of rows, and the static token where there is one."""
    return math.ceil(config.window_bars / config.patch_rows) + (config.scale_conditioning == "static_token")


def head_width(config: GrokConfig) -> int:
    """Return the hidden width of a quantile head: half of d_model."""
    return config.d_model // 2


def parameters(config: GrokConfig) -> dict[str, int]:
    """Return the number of trainable parameters of each part of the model."""
    d, groups = config.d_model, [len(features) for features in config.seen_groups().values()]
    n_features, width = len(config.seen_features()), head_width(config)
    has_static = config.scale_conditioning == "static_token"
    positions = WEEKDAYS * d + d * (d + N_PHASES) + (n_features * d if config.pe_input else 0)
    readout = {"flatten": _linear(len(groups) * d, d), "mean": 0, "attn": d}
    chain = (N_HORIZONS - 1) * 2 * d if config.heads == "autoregressive" else 0
    return {
        "norm": 2 * n_features if config.use_in else 0,
        "groups": sum(_linear(config.patch_rows * size, d) for size in groups),
        "positions": positions if config.use_pe else 0,
        "static": sum(_linear(2 * size, d) for size in groups) if has_static else 0,
        "stem": d * (config.stem_rows + 1) if config.stem_rows else 0,
        "blocks": config.n_blocks * block_parameters(config),
        "readout": readout[config.readout],
        "heads": N_HORIZONS * (_linear(d, width) + _linear(width, N_LEVELS)) + chain,
    }


def block_parameters(config: GrokConfig) -> int:
    """Return the parameters of one block: 5.25 million at width 512 (GROK-1)."""
    d = config.d_model
    attention = _linear(d, 3 * d) + _linear(d, d) + 2 * d
    stages = 2 if config.variable_attention else 1
    gate = 4 * d * d + 2 * d if config.lgu else 0
    feed_forward = _linear(d, config.ffn_mult * d) + _linear(config.ffn_mult * d, d) + 2 * d
    return stages * attention + gate + feed_forward


def memory_bytes(config: GrokConfig) -> int:
    """Return the estimated peak bytes of training: 16 per parameter (AdamW, fp32) and the saved activations."""
    per_number = 2 if config.precision in ("bf16", "fp16") else 4
    tokens = config.batch_size * n_tokens(config) * len(config.seen_groups()) * config.d_model * per_number
    per_block = tokens * (SAVED_WITHOUT_FFN + SAVED_PER_FFN * config.ffn_mult)
    n = config.n_blocks
    activations = n * tokens + per_block if config.grad_checkpoint else n * per_block
    return 16 * config.n_parameters() + activations


def written_out_bytes(config: GrokConfig) -> float:
    """Return the bytes of all attention scores of the rows on which curvature is measured, in float32."""
    length, groups = n_tokens(config), len(config.seen_groups())
    scores = groups * length**2 + (length * groups**2 if config.variable_attention else 0)
    return 4.0 * config.measured_rows * config.n_blocks * config.n_heads * scores


def forward_flops(config: GrokConfig) -> float:
    """Return the estimated floating-point operations of one window: two per weight and token, and the scores."""
    length, groups, d = n_tokens(config), len(config.seen_groups()), config.d_model
    stages = 2 if config.variable_attention else 1
    weights = stages * 4 * d * d + (4 * d * d if config.lgu else 0) + 2 * config.ffn_mult * d * d
    scores = 4 * d * (length + (groups if config.variable_attention else 0))
    counts = parameters(config)
    embedding = 2 * length * (counts["groups"] + (d * (d + N_PHASES) if config.use_pe else 0))
    tokens = config.n_blocks * length * groups * (2 * weights + scores)
    return float(tokens + embedding + 2 * (counts["readout"] + counts["heads"]))


def _linear(n_in: int, n_out: int) -> int:
    return n_in * n_out + n_out
