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
MOST_CUDA_ROWS = 65_535
"""Rows that PyTorch's CUDA kernels take at once: they lie along a launch dimension of 16 bits."""


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


def attention(
    q_BHTE: Tensor,
    k_BHSE: Tensor,
    v_BHSE: Tensor,
    *,
    is_causal: bool,
    valid_BS: Tensor | None = None,
    impl: Impl = "auto",
) -> Tensor:
    """Attend; the last query stands at the last key, so S - T keys come before the first query.

    Args:
        q_BHTE: Queries.
        k_BHSE: Keys, at least as many as queries where `is_causal`.
        v_BHSE: Values.
        is_causal: Whether a query sees only keys at or before its own place.
        valid_BS: True where a key may be seen (DATA-3, GROK-6); T must equal S, and a query that is not valid gives
            zeros. None: all are valid.
        impl: See `choose_impl`.

    Returns:
        (B, H, T, E).

    Raises:
        ValueError: Fewer keys than queries in the causal form, a mask that does not fit, or `flash` cannot run here.
    """
    n_before = k_BHSE.shape[2] - q_BHTE.shape[2]
    if is_causal and n_before < 0:
        raise ValueError(f"attention: expected at least as many keys as queries, found {tuple(k_BHSE.shape)}")
    if valid_BS is not None and (n_before or valid_BS.shape != (k_BHSE.shape[0], k_BHSE.shape[2])):
        expected = (q_BHTE.shape[0], q_BHTE.shape[2])
        raise ValueError(f"valid: expected (B, T) = {expected} with as many keys, found {tuple(valid_BS.shape)}")
    dtype = str(q_BHTE.dtype).removeprefix("torch.")
    form = choose_impl(impl, q_BHTE.device.type, dtype, n_keys_before=n_before, has_flash=_has_flash())
    if form == "flash":
        from trainables.ops.attention import fused

        if valid_BS is not None:
            return fused.attention_over_valid(q_BHTE, k_BHSE, v_BHSE, valid_BS, is_causal=is_causal)
        return fused.attention(q_BHTE, k_BHSE, v_BHSE, is_causal=is_causal)
    if form == "sdpa":
        return _torch_kernel(q_BHTE, k_BHSE, v_BHSE, n_before, is_causal, valid_BS)
    from trainables.ops.attention import reference

    y_BHTE = reference.attention(q_BHTE, k_BHSE, v_BHSE, _mask(q_BHTE, n_before, is_causal, valid_BS))
    return y_BHTE if valid_BS is None else y_BHTE * valid_BS[:, None, :, None]


def _torch_kernel(
    q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, n_before: int, is_causal: bool, valid_BS: Tensor | None
) -> Tensor:
    """Return PyTorch's attention, in parts where there are more rows than a CUDA launch takes."""
    from torch import cat
    from torch.nn.functional import scaled_dot_product_attention

    if q_BHTE.device.type == "cuda" and len(q_BHTE) > MOST_CUDA_ROWS:
        masks = [None] * -(-len(q_BHTE) // MOST_CUDA_ROWS) if valid_BS is None else valid_BS.split(MOST_CUDA_ROWS)
        parts = zip(*(each.split(MOST_CUDA_ROWS) for each in (q_BHTE, k_BHSE, v_BHSE)), masks, strict=True)
        return cat([_torch_kernel(q, k, v, n_before, is_causal, valid) for q, k, v, valid in parts])
    if is_causal and n_before == 0 and valid_BS is None:
        return scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, is_causal=True)
    mask = _mask(q_BHTE, n_before, is_causal, valid_BS)
    y_BHTE = scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, mask)
    return y_BHTE if valid_BS is None else y_BHTE * valid_BS[:, None, :, None]


def _mask(q_BHTE: Tensor, n_before: int, is_causal: bool, valid_BS: Tensor | None) -> Tensor | None:
    """Return (T, S) or (B, 1, 1 or T, S) bool, true where a query may see a key; None where it may see all.

    A query that is not valid sees its own place in the causal form, and every place where no key is valid, so that no
    row is empty: an empty one gives NaN, whose gradient no later product with zero takes away.
    """
    from torch import eye, ones

    n_queries = q_BHTE.shape[2]
    if is_causal:
        causal_TS = ones(n_queries, n_queries + n_before, dtype=bool, device=q_BHTE.device).tril_(n_before)
        if valid_BS is None:
            return causal_TS
        own_TS = eye(n_queries, dtype=bool, device=q_BHTE.device)
        return (valid_BS[:, None, None, :] & causal_TS) | own_TS
    if valid_BS is None:
        return None
    return (valid_BS | ~valid_BS.any(1, keepdim=True))[:, None, None, :]


@functools.cache
def _has_flash() -> bool:
    return importlib.util.find_spec("flash_attn") is not None
