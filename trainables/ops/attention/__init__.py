"""Attention: one choosing function over a plain reference, PyTorch's own kernels and flash-attn.

PyTorch's fast kernels have no second derivative. A caller that needs one runs the model inside
`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, which `sdpa` honours, or asks for `reference`.

Letters: B batch, H heads, T queries, S keys, E channels of a head. Importing this imports no torch.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Impl = Literal["auto", "reference", "sdpa", "flash"]


def choose_impl(impl: Impl, device: str, dtype: str, *, n_keys_before: int, has_flash: bool) -> str:
    """Return which form runs: `reference`, `sdpa` or `flash`.

    Args:
        impl: What was asked for; `auto` takes flash-attn where it can run, else PyTorch's.
        device: Type of the device.
        dtype: Name of the floating type; flash-attn knows the 16-bit ones.
        n_keys_before: Keys that come before the first query.
        has_flash: Whether flash-attn is installed.

    Raises:
        ValueError: `flash` was asked for where it cannot run, or the name is unknown.
    """
    if impl in ("reference", "sdpa"):
        return impl
    if impl not in ("auto", "flash"):
        raise ValueError(f"impl: expected auto, reference, sdpa or flash, found {impl!r}")
    obstacle = ""
    if device != "cuda":
        obstacle = f"device {device}, where flash-attn needs cuda"
    elif not has_flash:
        obstacle = "no flash-attn (install the extra `gpu`)"
    elif dtype not in ("float16", "bfloat16"):
        obstacle = f"{dtype}, where flash-attn needs 16 bits"
    elif n_keys_before:
        obstacle = "cached keys"
    if impl == "flash" and obstacle:
        raise ValueError(f"impl: expected an attention that flash can run, found {obstacle}; use auto or sdpa")
    return "sdpa" if obstacle else "flash"


def attention(q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, *, is_causal: bool, impl: Impl = "auto") -> Tensor:
    """Attend; the last query stands at the last key, so S - T keys come before the first query.

    Args:
        q_BHTE: Queries.
        k_BHSE: Keys, at least as many as queries where `is_causal`.
        v_BHSE: Values.
        is_causal: Whether a query sees only keys at or before its own place.
        impl: See `choose_impl`.

    Returns:
        (B, H, T, E).

    Raises:
        ValueError: Fewer keys than queries in the causal form, or `flash` cannot run here.
    """
    n_before = k_BHSE.shape[2] - q_BHTE.shape[2]
    if is_causal and n_before < 0:
        raise ValueError(f"attention: expected at least as many keys as queries, found {tuple(k_BHSE.shape)}")
    dtype = str(q_BHTE.dtype).removeprefix("torch.")
    form = choose_impl(impl, q_BHTE.device.type, dtype, n_keys_before=n_before, has_flash=_has_flash())
    if form == "flash":
        from trainables.ops.attention import fused

        return fused.attention(q_BHTE, k_BHSE, v_BHSE, is_causal=is_causal)
    if form == "sdpa":
        from torch.nn.functional import scaled_dot_product_attention

        if is_causal and n_before == 0:
            return scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, is_causal=True)
        return scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, _mask(q_BHTE, n_before) if is_causal else None)
    from trainables.ops.attention import reference

    return reference.attention(q_BHTE, k_BHSE, v_BHSE, _mask(q_BHTE, n_before) if is_causal else None)


def _mask(q_BHTE: Tensor, n_before: int) -> Tensor:
    """Return (T, S) bool, true where a query may see a key."""
    from torch import ones

    n_queries = q_BHTE.shape[2]
    return ones(n_queries, n_queries + n_before, dtype=bool, device=q_BHTE.device).tril_(n_before)


@functools.cache
def _has_flash() -> bool:
    return importlib.util.find_spec("flash_attn") is not None
