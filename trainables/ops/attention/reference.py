"""Attention as it is written: softmax(q k' / sqrt(E)) v. The judge of the other forms; differentiable to any order.

Letters: B batch, H heads, T queries, S keys, E channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, mask_TS: Tensor | None) -> Tensor:
    """Return (B, H, T, E). Source: Vaswani et al. (2017), arXiv 1706.03762, equation 1.

    Args:
        q_BHTE: Queries.
        k_BHSE: Keys.
        v_BHSE: Values.
        mask_TS: True where a query may see a key; each query must see at least one. None: all.
    """
    score_BHTS = q_BHTE @ k_BHSE.transpose(-2, -1) / math.sqrt(q_BHTE.shape[-1])
    if mask_TS is not None:
        score_BHTS = score_BHTS.masked_fill(~mask_TS, -torch.inf)
    return score_BHTS.softmax(-1) @ v_BHSE
