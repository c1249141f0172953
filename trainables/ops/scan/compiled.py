"""The chunked scan with one decay per head: batched matrix products between compiled passes (CPU, float32).

Letters: B batch, T time, H heads, P channels of a head, I = H P, N state, K chunks of a window, G = B K chunks in all,
Q rows of a chunk, W = Q + N: what a row reads, the rows of its chunk and the state before it.

With cs the running sum of the log decays of a chunk, the outputs of a head are one product (Dao & Gu 2024, arXiv
2405.21060, section 6):

    y = left right,   left = [L * (c b'), exp(cs) c],   right = [u; h],   L_ts = exp(cs_t - cs_s) for s <= t,

and a chunk adds into' u to the state, into = exp(cs_Q - cs) b. No exponent is positive. The operands are kept for the
backward pass: W + N + P numbers a row and head.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from trainables.ops.compiled import gradients_of, in_parts, rows
from trainables.ops.scan import choose_compiled_chunk, chunked, passes


def ssd(
    x_BTHP: Tensor,
    gain_BTH: Tensor,
    log_decay_BTH: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    skip_H: Tensor,
    state_BHPN: Tensor | None,
    *,
    want_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run `ops.scan.ssd`; a last chunk that is too short is filled with rows of zero, which change nothing."""
    length = x_BTHP.shape[1]
    chunk = choose_compiled_chunk(length)
    missing = -length % chunk
    if missing:
        x_BTHP = functional.pad(x_BTHP, (0, 0, 0, 0, 0, missing))
        gain_BTH, log_decay_BTH, b_BTN, c_BTN = (
            functional.pad(each, (0, 0, 0, missing)) for each in (gain_BTH, log_decay_BTH, b_BTN, c_BTN)
        )
    inputs = (x_BTHP, gain_BTH, log_decay_BTH, b_BTN, c_BTN, skip_H, state_BHPN)
    y_BTHP, last_BHPN = _Scan.apply(*inputs, chunk, want_state)
    return y_BTHP[:, :length] if missing else y_BTHP, last_BHPN if want_state else None


class _Sizes(NamedTuple):
    windows: int
    groups: int
    rows: int
    heads: int
    channels: int
    state: int  # 0 where no state is read or carried

    def matrices(self, n_rows: int, n_columns: int) -> Tensor:
        """Return room for a matrix of each chunk and head, as a batched product wants them."""
        return torch.empty(self.groups * self.heads, n_rows, n_columns)

    def by_head(self, x: Tensor) -> np.ndarray:
        """Return such matrices as the passes want them, (G, H, rows, columns)."""
        return x.view(self.groups, self.heads, *x.shape[1:]).numpy()

    def vectors(self, x: Tensor) -> Tensor:
        """Return b or c as a matrix of each chunk."""
        return x.detach().reshape(self.groups, self.rows, -1)

    def by_chunk(self, x: Tensor) -> np.ndarray:
        """Return (B, T, ...) as (G, Q, ...)."""
        return x.detach().contiguous().view(self.groups, self.rows, -1).numpy()


class _Operands(NamedTuple):
    """What both passes need of the decays, b and c."""

    left: Tensor
    into: Tensor
    decay_GH: Tensor
    score_GQQ: Tensor


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, log_decay, b, c, skip, state, chunk, want_state):
        batch, length, heads, channels = x.shape
        carries = length > chunk or state is not None or want_state
        sizes = _Sizes(batch, batch * length // chunk, chunk, heads, channels, b.shape[-1] if carries else 0)
        made = _operands(sizes, log_decay, b, c)
        right, x_rows, last = sizes.matrices(chunk + sizes.state, channels), rows(x.flatten(2)), None
        in_parts(sizes.groups, passes.weigh_inputs, *x_rows, sizes.by_chunk(gain), sizes.by_head(right))
        if carries:
            added = sizes.by_head(torch.bmm(made.into.transpose(1, 2), right[:, :chunk]))
            last = x.new_zeros(batch, heads, sizes.state, channels)
            if state is not None:
                last.copy_(state.transpose(2, 3))
            in_parts(batch, passes.carry_states, added, made.decay_GH.numpy(), last.numpy(), sizes.by_head(right))
            last = last.transpose(2, 3)
        y = x.new_empty(batch, length, heads, channels)
        found = (sizes.by_head(torch.bmm(made.left, right)), skip.detach().numpy(), sizes.by_chunk(y))
        in_parts(sizes.groups, passes.join_heads, *x_rows, *found)
        ctx.save_for_backward(x, gain, log_decay, b, c, skip, state, right, *made)
        ctx.sizes = sizes
        return y, last

    @staticmethod
    def backward(ctx, g_y, g_last):
        *inputs, right, left, into, decay_GH, score_GQQ = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain, given = (_plain_outputs, (g_y,)) if g_last is None else (_plain, (g_y, g_last))
            return *gradients_of(plain, inputs, given), None, None
        x, gain, log_decay, b, c, skip, state = inputs
        sizes, chunk = ctx.sizes, ctx.sizes.rows
        made = _Operands(left, into, decay_GH, score_GQQ)
        x_rows, y_rows = rows(x.flatten(2)), rows(g_y.flatten(2))
        g_heads = sizes.matrices(chunk, sizes.channels)
        in_parts(sizes.groups, passes.split_heads, *y_rows, sizes.by_head(g_heads))
        g_left, g_right = torch.bmm(g_heads, right.transpose(1, 2)), torch.bmm(made.left.transpose(1, 2), g_heads)
        g_decay_GH, g_into, g_state = torch.zeros_like(made.decay_GH), made.into, None
        if sizes.state:
            g_state = torch.empty(sizes.windows, sizes.heads, sizes.state, sizes.channels).copy_(g_last.transpose(2, 3))
            g_added = sizes.matrices(sizes.state, sizes.channels)
            back = (sizes.by_head(right), sizes.by_head(g_right), g_state.numpy(), sizes.by_head(g_added))
            decays = (made.decay_GH.numpy(), g_decay_GH.numpy())
            in_parts(sizes.windows, passes.carry_back, *decays, *back)
            g_into = torch.bmm(right[:, :chunk], g_added.transpose(1, 2))
            g_right[:, :chunk].baddbmm_(made.into, g_added)
            g_state = g_state.transpose(2, 3)
        g_log_decay, g_b, g_c = _through_operands(sizes, made, log_decay, b, c, g_left, g_into, g_decay_GH)
        g_x, g_gain, g_skip_GH = torch.empty(x.shape), torch.empty(gain.shape), torch.empty(sizes.groups, sizes.heads)
        factors = (sizes.by_chunk(gain), skip.numpy(), sizes.by_head(g_right))
        found = (sizes.by_chunk(g_x), sizes.by_chunk(g_gain), g_skip_GH.numpy())
        in_parts(sizes.groups, passes.differentiate_inputs, *x_rows, *y_rows, *factors, *found)
        g_state = None if state is None else g_state
        return g_x, g_gain, g_log_decay, g_b.view(b.shape), g_c.view(c.shape), g_skip_GH.sum(0), g_state, None, None


def _operands(sizes: _Sizes, log_decay: Tensor, b: Tensor, c: Tensor) -> _Operands:
    b_GQN, c_GQN = sizes.vectors(b), sizes.vectors(c)
    made = _Operands(
        left=sizes.matrices(sizes.rows, sizes.rows + sizes.state),
        into=sizes.matrices(sizes.rows, sizes.state),
        decay_GH=torch.empty(sizes.groups, sizes.heads),
        score_GQQ=torch.bmm(c_GQN, b_GQN.transpose(1, 2)),
    )
    given = (sizes.by_chunk(log_decay), made.score_GQQ.numpy(), *rows(b_GQN), *rows(c_GQN))
    found = (sizes.by_head(made.left), sizes.by_head(made.into), made.decay_GH.numpy())
    in_parts(sizes.groups, passes.make_operands, *given, *found)
    return made


def _through_operands(
    sizes: _Sizes, made: _Operands, log_decay: Tensor, b: Tensor, c: Tensor, *g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the log decays, b and c; `g` those of `left`, `into` and the chunks' decays."""
    g_left, g_into, g_decay_GH = g
    b_GQN, c_GQN = sizes.vectors(b), sizes.vectors(c)
    g_score, g_log_decay = torch.zeros_like(made.score_GQQ), torch.empty(log_decay.shape)
    g_b, g_c = (each.new_zeros(each.shape) for each in (b_GQN, c_GQN))
    decays = (sizes.by_chunk(log_decay), made.decay_GH.numpy(), g_decay_GH.numpy(), made.score_GQQ.numpy())
    given = (*decays, *rows(b_GQN), *rows(c_GQN), sizes.by_head(g_left), sizes.by_head(g_into))
    found = (g_score.numpy(), g_b.numpy(), g_c.numpy(), sizes.by_chunk(g_log_decay))
    in_parts(sizes.groups, passes.differentiate_decays, *given, *found)
    return g_log_decay, g_b.baddbmm_(g_score.transpose(1, 2), c_GQN), g_c.baddbmm_(g_score, b_GQN)


def _plain(x, gain, log_decay, b, c, skip, state):
    """The same in operations that PyTorch differentiates to any order."""
    y, last = chunked.ssd(x * gain[..., None], log_decay, b, c, state, want_state=True)
    return y.addcmul(x, skip[:, None]), last


def _plain_outputs(*inputs):
    return _plain(*inputs)[0]
