"""flash-attn behind the contract of `trainables.ops.attention`. The only file that imports it."""

from __future__ import annotations

from torch import Tensor

try:
    from flash_attn import flash_attn_func
except ImportError as error:
    raise ImportError(
        "attention: expected flash-attn for impl flash, found none; install the extra `gpu` of pyproject.toml"
    ) from error


def attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, *, is_causal: bool) -> Tensor:
    """Return (B, H, T, E). The kernel wants time before heads."""
    time_first = (each.transpose(1, 2) for each in (q_BHTE, k_BHSE, v_BHSE))
    return flash_attn_func(*time_first, causal=is_causal).transpose(1, 2)
