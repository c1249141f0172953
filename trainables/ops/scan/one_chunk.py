"""A scan of at most 128 rows as one Triton kernel forward and one backward: no state is carried. Needs a CUDA device.

Checked against the sequential scan in Triton's interpreter, outputs and gradients; it has never run on a GPU, and its
speed is not measured. So `auto` does not take it: whoever wants it asks for impl `one_chunk`.

Letters: B batch, T time, H heads, P channels of a head, N state; S is T where rows give, T where they receive.

With cs the running sum of dt a, and M_ts = (c_t b_s) exp(cs_t - cs_s) dt_s for s <= t, a head's outputs are
y = M x + skip x (Dao & Gu 2024, arXiv 2405.21060, equation 5). The scores c b' are one product for all heads, outside.
The forward program is one window and head; the backward program is one window, which sums the scores' gradient over its
heads in registers, so that no order of additions depends on timing.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("scan: expected triton for impl one_chunk, found none; install the extra `gpu`") from error


def ssd(x_BTHP: Tensor, dt_BTH: Tensor, a_H: Tensor, b_BTN: Tensor, c_BTN: Tensor, skip_H: Tensor) -> Tensor:
    """Run `ops.scan.ssd` with `euler_B` over at most 128 rows from a zero state: outputs (B, T, H, P)."""
    score_BTS = torch.bmm(c_BTN, b_BTN.transpose(1, 2))
    return _OneChunk.apply(x_BTHP, dt_BTH, a_H, score_BTS, skip_H)


class _OneChunk(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dt, a, score, skip):
        inputs = tuple(each.contiguous() for each in (x, dt, a, score, skip))
        ctx.save_for_backward(*inputs)
        y = torch.empty_like(inputs[0])
        _forward[(x.shape[0] * x.shape[2],)](*inputs, y, *x.shape[1:3], **_blocks(x))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g_y):
        x, dt, a, score, skip = ctx.saved_tensors
        batch, _, heads, _ = x.shape
        g_x, g_dt, g_score = torch.empty_like(x), torch.empty_like(dt), torch.empty_like(score)
        g_a, g_skip = (torch.empty(batch, heads, device=x.device, dtype=torch.float32) for _ in range(2))
        found = (g_x, g_dt, g_a, g_score, g_skip)
        _backward[(batch,)](x, dt, a, score, skip, g_y.contiguous(), *found, *x.shape[1:3], **_blocks(x))
        return g_x, g_dt, g_a.sum(0).to(a.dtype), g_score, g_skip.sum(0).to(skip.dtype)


def _blocks(x: Tensor) -> dict[str, object]:
    """Return what the kernels are specialised on. tf32 would round float32 inputs to ten bits."""
    return {
        "P": x.shape[3],
        "BLOCK": max(16, triton.next_power_of_2(x.shape[1])),
        "PRECISION": "ieee" if x.dtype is torch.float32 else "tf32",
        "num_warps": 8,
    }


@triton.jit
def _decays(dt_ptr, a_ptr, window, head, length, heads, BLOCK: tl.constexpr):
    """Return dt (S,) and exp(cs_t - cs_s) (T, S), zero above the diagonal."""
    s = tl.arange(0, BLOCK)
    dt_S = tl.load(dt_ptr + (window * length + s) * heads + head, mask=s < length, other=0.0).to(tl.float32)
    cs_S = tl.cumsum(dt_S * tl.load(a_ptr + head).to(tl.float32), 0)
    past_TS = s[:, None] >= s[None, :]
    return dt_S, tl.where(past_TS, tl.exp(tl.where(past_TS, cs_S[:, None] - cs_S[None, :], 0.0)), 0.0)


@triton.jit
def _places(window, head, length, heads, P: tl.constexpr, BLOCK: tl.constexpr):
    """Return offsets and mask of a head's (T, P) in (B, T, H, P), and of a window's (T, S) in (B, T, T)."""
    t, p = tl.arange(0, BLOCK), tl.arange(0, P)
    rows_TP = ((window * length + t[:, None]) * heads + head) * P + p[None, :]
    pairs_TS = (window * length + t[:, None]) * length + t[None, :]
    is_row_T = t < length
    return rows_TP, is_row_T[:, None] & (p[None, :] < P), pairs_TS, is_row_T[:, None] & is_row_T[None, :]


@triton.jit
def _forward(
    x_ptr, dt_ptr, a_ptr, score_ptr, skip_ptr, y_ptr, length, heads,
    P: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    window, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    rows_TP, row_mask, pairs_TS, pair_mask = _places(window, head, length, heads, P, BLOCK)
    dt_S, decay_TS = _decays(dt_ptr, a_ptr, window, head, length, heads, BLOCK)
    score_TS = tl.load(score_ptr + pairs_TS, mask=pair_mask, other=0.0).to(tl.float32)
    x_SP = tl.load(x_ptr + rows_TP, mask=row_mask, other=0.0)
    m_TS = score_TS * decay_TS * dt_S[None, :]
    y_TP = tl.dot(m_TS.to(x_SP.dtype), x_SP, input_precision=PRECISION)
    y_TP += x_SP.to(tl.float32) * tl.load(skip_ptr + head).to(tl.float32)
    tl.store(y_ptr + rows_TP, y_TP.to(y_ptr.dtype.element_ty), mask=row_mask)


@triton.jit
def _backward(
    x_ptr, dt_ptr, a_ptr, score_ptr, skip_ptr, g_y_ptr, g_x_ptr, g_dt_ptr, g_a_ptr, g_score_ptr, g_skip_ptr,
    length, heads, P: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """With d M = d y x', G = d M exp(cs_t - cs_s): d score = G dt_s, d dt_s = sum of G score, d cs = +-G score dt."""
    window = tl.program_id(0)
    s = tl.arange(0, BLOCK)
    g_score_TS = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for head in range(heads):
        rows_TP, row_mask, pairs_TS, pair_mask = _places(window, head, length, heads, P, BLOCK)
        dt_S, decay_TS = _decays(dt_ptr, a_ptr, window, head, length, heads, BLOCK)
        score_TS = tl.load(score_ptr + pairs_TS, mask=pair_mask, other=0.0).to(tl.float32)
        x_SP = tl.load(x_ptr + rows_TP, mask=row_mask, other=0.0)
        g_y_TP = tl.load(g_y_ptr + rows_TP, mask=row_mask, other=0.0)
        skip = tl.load(skip_ptr + head).to(tl.float32)
        a = tl.load(a_ptr + head).to(tl.float32)
        g_TS = tl.dot(g_y_TP, tl.trans(x_SP), input_precision=PRECISION) * decay_TS
        g_score_TS += g_TS * dt_S[None, :]
        m_ST = tl.trans(score_TS * decay_TS * dt_S[None, :]).to(x_SP.dtype)
        g_x_SP = tl.dot(m_ST, g_y_TP, input_precision=PRECISION) + g_y_TP.to(tl.float32) * skip
        tl.store(g_x_ptr + rows_TP, g_x_SP.to(g_x_ptr.dtype.element_ty), mask=row_mask)
        tl.store(g_skip_ptr + window * heads + head, tl.sum(x_SP.to(tl.float32) * g_y_TP.to(tl.float32)))
        by_gain_S = tl.sum(g_TS * score_TS, 0)
        g_cs_S = tl.sum(g_TS * score_TS * dt_S[None, :], 1) - by_gain_S * dt_S
        g_log_decay_S = tl.sum(g_cs_S, 0) - tl.cumsum(g_cs_S, 0) + g_cs_S
        tl.store(g_a_ptr + window * heads + head, tl.sum(g_log_decay_S * dt_S))
        g_dt_S = by_gain_S + g_log_decay_S * a
        tl.store(g_dt_ptr + (window * length + s) * heads + head, g_dt_S, mask=s < length)
    tl.store(g_score_ptr + pairs_TS, g_score_TS.to(g_score_ptr.dtype.element_ty), mask=pair_mask)
