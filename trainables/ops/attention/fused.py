"""flash-attn behind the contract of `trainables.ops.attention`. The only file that imports it."""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from flash_attn import flash_attn_func, flash_attn_varlen_func
except ImportError as error:
    raise ImportError(
        "attention: expected flash-attn for impl flash, found none; install the extra `gpu` of pyproject.toml"
    ) from error


def attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, *, is_causal: bool) -> Tensor:
    """Return (B, H, T, E). The kernel wants time before heads."""
    time_first = (each.transpose(1, 2) for each in (q_BHTE, k_BHSE, v_BHSE))
    return flash_attn_func(*time_first, causal=is_causal).transpose(1, 2)


def attention_over_valid(
    q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor, valid_BT: Tensor, *, is_causal: bool
) -> Tensor:
    """Return (B, H, T, E), zero where not valid: valid places are packed one after another, nothing else is computed.

    Places keep their order, so the causal form of the packed rows is that of the unpacked ones.
    """
    place = valid_BT.flatten().nonzero().squeeze(1)
    length_B = valid_BT.sum(1, dtype=torch.int32)
    starts = torch.nn.functional.pad(length_B.cumsum(0, dtype=torch.int32), (1, 0))
    longest = int(length_B.max())
    packed = (each.transpose(1, 2).flatten(0, 1).index_select(0, place) for each in (q_BHTE, k_BHTE, v_BHTE))
    y_NHE = flash_attn_varlen_func(*packed, starts, starts, longest, longest, causal=is_causal)
    batch, heads, n_places, channels = q_BHTE.shape
    y = y_NHE.new_zeros(batch * n_places, heads, channels).index_copy(0, place, y_NHE)
    return y.unflatten(0, (batch, n_places)).transpose(1, 2)
