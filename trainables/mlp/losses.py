"""Losses of the mlp family: cross-entropy in nats (LOSS-10), which is its reference loss too (LOSS-11)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, rises: Tensor) -> Tensor:
    """Return the cross-entropy in nats of each row, (B,); ln 2 for a coin.

    Args:
        logits: (B,) log-odds of a rise.
        rises: (B,) 1 where the price rose, 0 where it fell.
    """
    return functional.binary_cross_entropy_with_logits(logits, rises, reduction="none")
