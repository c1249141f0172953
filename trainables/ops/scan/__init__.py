"""Scans of state-space models: one choosing function, a sequential judge, chunked forms, the vendor's kernels.

Letters: B batch, T time, H heads, P channels of a head, D channels, N state. Importing this imports no torch.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Impl = Literal["auto", "sequential", "chunked", "compiled", "fused", "one_chunk"]
Discretisation = Literal["euler_B", "zoh_exact"]

LONGEST_CHUNK = 128
"""Rows of a chunk: within it all rows meet in one product, between chunks a state is carried."""

BLOCK = 40
"""Rows for which the decay matrix is made per head: measured best of 24, 30, 40 and 60 on a CPU."""


COMPILED_CHUNK = 64
"""Rows of a chunk of the compiled form where there are several: measured best of 32, 64 and 128 on a CPU."""


def choose_impl(
    impl: Impl,
    device: str,
    dtype: str,
    discretisation: Discretisation,
    *,
    has_kernels: bool,
    can_compile: bool = False,
) -> str:
    """Return which form of a scan runs: `sequential`, `chunked`, `compiled` or `fused`.

    Args:
        impl: What was asked for; `auto` takes the vendor's kernels or the compiled form where they can run, else the
            chunked one. Not `one_chunk`, whose speed is not measured.
        device: Type of the device, such as `cpu`.
        dtype: Name of the floating type, such as `float32`.
        discretisation: The kernels know `euler_B` only.
        has_kernels: Whether mamba-ssm is installed.
        can_compile: Whether the scan has a compiled form that knows these tensors: float32 on a CPU.

    Raises:
        ValueError: `compiled` or `fused` was asked for where it cannot run, or the name is unknown.
    """
    if impl in ("sequential", "chunked", "one_chunk"):
        return impl
    if impl not in ("auto", "compiled", "fused"):
        raise ValueError(f"impl: expected auto, sequential, chunked, compiled, fused or one_chunk, found {impl!r}")
    obstacle = ""
    if device != "cuda":
        obstacle = f"device {device}, where the kernels need cuda"
    elif not has_kernels:
        obstacle = "no mamba-ssm (install the extra `gpu`)"
    elif dtype == "float64":
        obstacle = "float64, which the kernels do not know"
    elif discretisation != "euler_B":
        obstacle = f"discretisation {discretisation}, which the kernels do not know"
    if impl == "fused" and obstacle:
        raise ValueError(f"impl: expected a scan that fused can run, found {obstacle}; use auto or chunked")
    if not obstacle and impl != "compiled":
        return "fused"
    if impl == "compiled" and not can_compile:
        raise ValueError(
            f"impl: expected float32 on a CPU for compiled, found {dtype} on {device}; use auto or chunked"
        )
    return "compiled" if can_compile else "chunked"


def choose_chunk(length: int, d_state: int, headdim: int) -> int:
    """Return the rows of a chunk: as few equal chunks as `LONGEST_CHUNK` allows.

    Carrying a state costs 4 N operations a channel and row, a row of a chunk 2; so small states want short chunks.
    """
    longest = LONGEST_CHUNK if d_state * 2 >= headdim else LONGEST_CHUNK // 2
    n_chunks = -(-length // longest)
    return -(-length // n_chunks)


def choose_compiled_chunk(length: int) -> int:
    """Return the rows of a chunk of the compiled form: one chunk where it is short, else the fewest equal ones."""
    if length <= LONGEST_CHUNK:
        return length
    return -(-length // -(-length // COMPILED_CHUNK))


def choose_block(length: int) -> int:
    """Return the rows of a block: as few equal blocks of about `BLOCK` rows as cover the chunk."""
    n_blocks = max(1, round(length / BLOCK))
    return -(-length // n_blocks)


def ssd(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    a_H: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    *,
    skip_H: Tensor | None = None,
    discretisation: Discretisation = "euler_B",
    state_BHPN: Tensor | None = None,
    want_state: bool = False,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Scan a state-space model with one decay per head (Mamba-2).

    h_t = exp(dt a) h_(t-1) + gain x_t b_t' and y_t = h_t c_t + skip x_t, in time linear in T. Source: Dao & Gu (2024),
    arXiv 2405.21060. Requirements: CONDOR-3, CONDOR-4.

    Args:
        x_BTHP: Input; its floating type is that of the products.
        dt_BTH: Step sizes, zero or more; float32 or wider, and so are the decays.
        a_H: Rate of each head, below zero.
        b_BTN: Input vectors, shared by the heads.
        c_BTN: Output vectors, shared by the heads.
        skip_H: How much of its input a row's output holds; none where None.
        discretisation: The gain is dt (`euler_B`) or (exp(dt a) - 1) / a (`zoh_exact`).
        state_BHPN: State before the first row; zero where None.
        want_state: Whether the state after the last row is returned.
        impl: See `choose_impl`.

    Returns:
        Outputs (B, T, H, P), and the last state (B, H, P, N) or None.

    Raises:
        ValueError: Shapes do not fit, or `fused` cannot run here.
    """
    _check_shapes(x_BTHP.shape, dt_BTH.shape, a_H.shape, b_BTN.shape, c_BTN.shape)
    form = _form(impl, (x_BTHP, dt_BTH, b_BTN, c_BTN, state_BHPN), discretisation, has_passes=True)
    if form == "fused":
        from trainables.ops.scan import fused

        return fused.ssd(x_BTHP, dt_BTH, a_H, b_BTN, c_BTN, skip_H, state_BHPN, want_state=want_state)
    if form == "one_chunk":
        _check_one_chunk(x_BTHP, discretisation, needs_state=want_state or state_BHPN is not None)
        from trainables.ops.scan import one_chunk

        skip_H = a_H.new_zeros(a_H.shape) if skip_H is None else skip_H
        return one_chunk.ssd(x_BTHP, dt_BTH, a_H, b_BTN.to(x_BTHP.dtype), c_BTN.to(x_BTHP.dtype), skip_H), None
    log_decay_BTH = dt_BTH * a_H
    gain_BTH = _gain(dt_BTH, a_H, log_decay_BTH, discretisation).to(x_BTHP.dtype)
    b_BTN, c_BTN = b_BTN.to(x_BTHP.dtype), c_BTN.to(x_BTHP.dtype)
    if form == "compiled":
        from trainables.ops.scan import compiled

        skip_H = x_BTHP.new_zeros(a_H.shape) if skip_H is None else skip_H
        arguments = (x_BTHP, gain_BTH, log_decay_BTH, b_BTN, c_BTN, skip_H, state_BHPN)
        return compiled.ssd(*arguments, want_state=want_state)
    arguments = (x_BTHP * gain_BTH[..., None], log_decay_BTH, b_BTN, c_BTN)
    if form == "chunked":
        from trainables.ops.scan import chunked

        y_BTHP, last_BHPN = chunked.ssd(*arguments, state_BHPN, want_state=want_state)
    else:
        from trainables.ops.scan import reference

        zero_BHPN = x_BTHP.new_zeros(x_BTHP.shape[0], *x_BTHP.shape[2:], b_BTN.shape[-1])
        y_BTHP, last_BHPN = reference.ssd(*arguments, zero_BHPN if state_BHPN is None else state_BHPN)
    if skip_H is not None:
        y_BTHP = y_BTHP.addcmul(x_BTHP, skip_H[:, None].to(x_BTHP.dtype))
    return y_BTHP, last_BHPN if want_state else None


def selective_scan(
    x_BTD: Tensor,
    dt_BTD: Tensor,
    a_DN: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    *,
    discretisation: Discretisation = "euler_B",
    state_BDN: Tensor | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor]:
    """Scan a diagonal state-space model (Mamba-1): one rate per channel and state.

    h_t = exp(dt A) h_(t-1) + gain x_t b_t' and y_t = h_t c_t. Source: Gu & Dao (2023), arXiv 2312.00752, algorithm 2.
    The arguments are those of `ssd` but for the rates.

    Returns:
        Outputs (B, T, D) and the last state (B, D, N).

    Raises:
        ValueError: `fused` cannot run here.
    """
    form = _form(impl, (x_BTD,), discretisation, has_passes=False)
    if form == "fused":
        from trainables.ops.scan import fused

        return fused.selective_scan(x_BTD, dt_BTD, a_DN, b_BTN, c_BTN, state_BDN)
    dt_BTD1 = dt_BTD[..., None]
    log_decay_BTDN = dt_BTD1 * a_DN
    gain_BTDN = x_BTD[..., None] * _gain(dt_BTD1, a_DN, log_decay_BTDN, discretisation) * b_BTN[:, :, None]
    if state_BDN is None:
        state_BDN = x_BTD.new_zeros(x_BTD.shape[0], *a_DN.shape)
    if form == "chunked":
        from trainables.ops.scan import chunked

        return chunked.selective_scan(gain_BTDN, log_decay_BTDN, c_BTN, state_BDN)
    from trainables.ops.scan import reference

    return reference.selective_scan(gain_BTDN, log_decay_BTDN, c_BTN, state_BDN)


def _gain(dt: Tensor, a: Tensor, log_decay: Tensor, discretisation: Discretisation) -> Tensor:
    """Return the factor of the input: dt, or the exact zero-order hold (CONDOR-3)."""
    return dt if discretisation == "euler_B" else log_decay.expm1() / a


def _form(impl: Impl, tensors: tuple[Tensor | None, ...], discretisation: Discretisation, *, has_passes: bool) -> str:
    device, dtype = tensors[0].device.type, str(tensors[0].dtype).removeprefix("torch.")
    can_compile = False
    if has_passes and impl in ("auto", "compiled"):
        from trainables.ops.dispatch import runs_here

        can_compile = runs_here(*tensors)
    form = choose_impl(impl, device, dtype, discretisation, has_kernels=_has_kernels(), can_compile=can_compile)
    if impl == "auto":
        _log_once(form, device, dtype)
    return form


@functools.cache
def _has_kernels() -> bool:
    return importlib.util.find_spec("mamba_ssm") is not None


@functools.cache
def _log_once(form: str, device: str, dtype: str) -> None:
    logging.getLogger(__name__).info("scan: %s on %s in %s", form, device, dtype)


def _check_one_chunk(x_BTHP: Tensor, discretisation: Discretisation, *, needs_state: bool) -> None:
    length, channels = x_BTHP.shape[1], x_BTHP.shape[3]
    obstacle = ""
    if length > LONGEST_CHUNK:
        obstacle = f"{length} rows, more than {LONGEST_CHUNK}"
    elif channels < 16 or channels & (channels - 1):
        obstacle = f"{channels} channels of a head, which must be a power of two from 16 on"
    elif needs_state or discretisation != "euler_B":
        obstacle = "a state" if needs_state else f"discretisation {discretisation}"
    if obstacle:
        raise ValueError(f"impl: expected a scan that one_chunk can run, found {obstacle}; use auto or chunked")


def _check_shapes(x: tuple[int, ...], dt: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]):
    batch, time, heads = x[:3] if len(x) == 4 else (0, 0, 0)
    fits = len(x) == 4 and time > 0 and dt == (batch, time, heads) and a == (heads,)
    if not fits or len(b) != 3 or b[:2] != (batch, time) or c != b:
        raise ValueError(
            f"ssd: expected x (B, T, H, P), dt (B, T, H), a (H,), b and c (B, T, N), "
            f"found {tuple(x)}, {tuple(dt)}, {tuple(a)}, {tuple(b)}, {tuple(c)}"
        )
