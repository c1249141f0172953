"""The chunked scan with one decay per head: batched matrix products between compiled passes (CPU, float32).

Letters: B batch, T time, H heads, P channels of a head, N state, K chunks of a window, G = B K chunks in all, Q rows of a
chunk, W = Q + N: what a row reads, the rows of its chunk and the state before it. M = G H matrices of a batched product.

With cs the running sum of the log decays of a chunk, the outputs of a head are one product (Dao & Gu 2024, arXiv
2405.21060, section 6):

    y = left right,   left = [L * (c b'), exp(cs) c],   right = [u; h],   L_ts = exp(cs_t - cs_s) for s <= t,

and a chunk adds into' u to the state, into = exp(cs_Q - cs) b. `left` and `into` are made again in the backward pass:
keeping them would cost more memory than making them costs time. No exponent is positive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from trainables.ops.compiled import gradients_of, in_parts, rows
from trainables.ops.scan import choose_compiled_chunk, chunked, passes


class _Sizes(NamedTuple):
    windows: int
    chunks: int
    heads: int
    rows: int
    channels: int
    state: int  # 0 where no state is read or carried

    def of(self, x_MRC: Tensor):
        """Return the matrices of a batched product as an array with axes for chunks and heads."""
        return x_MRC.view(self.windows * self.chunks, self.heads, *x_MRC.shape[1:]).numpy()


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


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, log_decay, b, c, skip, state, chunk, want_state):
        batch, length, heads, channels = x.shape
        carries = length > chunk or state is not None or want_state
        sizes = _Sizes(batch, length // chunk, heads, chunk, channels, b.shape[-1] if carries else 0)
        groups = batch * sizes.chunks
        left, into, decay, _ = _operands(sizes, log_decay, b, c)
        right = x.new_empty(groups * heads, chunk + sizes.state, channels)
        given = (*rows(x.flatten(2)), gain.detach().contiguous().view(groups, chunk, heads).numpy())
        in_parts(groups, lambda first, last: passes.weigh_inputs(first, last, *given, sizes.of(right)))
        last_state = None
        if carries:
            added = sizes.of(torch.bmm(into.transpose(1, 2), right[:, :chunk]))
            start = x.new_zeros(batch, heads, sizes.state, channels)
            last_state = start if state is None else start.copy_(state.transpose(2, 3))
            carried = (added, decay, last_state.numpy(), sizes.of(right))
            in_parts(batch, lambda first, last: passes.carry_states(first, last, *carried))
        y = x.new_empty(batch, length, heads, channels)
        outputs = (sizes.of(torch.bmm(left, right)), skip.detach().numpy(), y.view(groups, chunk, -1).numpy())
        in_parts(groups, lambda first, last: passes.join_heads(first, last, *given[:2], *outputs))
        ctx.save_for_backward(x, gain, log_decay, b, c, skip, state, right)
        ctx.sizes = sizes
        return y, None if last_state is None else last_state.transpose(2, 3)

    @staticmethod
    def backward(ctx, g_y, g_last):
        *inputs, right = ctx.saved_tensors
        if torch.is_grad_enabled():
            given = [each for each in (g_y, g_last) if each is not None]
            return *gradients_of(_plain if g_last is not None else _plain_outputs, tuple(inputs), given), None, None
        x, gain, log_decay, b, c, skip, state = inputs
        sizes = ctx.sizes
        groups, chunk, heads = sizes.windows * sizes.chunks, sizes.rows, sizes.heads
        left, into, decay, (score, b_GQN, c_GQN) = _operands(sizes, log_decay, b, c)
        y_rows, x_rows = rows(g_y.flatten(2)), rows(x.flatten(2))
        g_heads = x.new_empty(groups * heads, chunk, sizes.channels)
        in_parts(groups, lambda first, last: passes.split_heads(first, last, *y_rows, sizes.of(g_heads)))
        g_left = torch.bmm(g_heads, right.transpose(1, 2))
        g_right = torch.bmm(left.transpose(1, 2), g_heads)
        g_decay, g_state, g_into = torch.zeros_like(torch.from_numpy(decay)), None, left[:, :, chunk:]
        if sizes.state:
            g_state = x.new_zeros(sizes.windows, heads, sizes.state, sizes.channels)
            g_state.copy_(g_last.transpose(2, 3))
            g_added = x.new_empty(groups * heads, sizes.state, sizes.channels)
            carried = (decay, sizes.of(right), sizes.of(g_right), g_state.numpy(), sizes.of(g_added), g_decay.numpy())
            in_parts(sizes.windows, lambda first, last: passes.carry_back(first, last, *carried))
            g_into = torch.bmm(right[:, :chunk], g_added.transpose(1, 2))
            g_right[:, :chunk].baddbmm_(into, g_added)
        g_score, g_b, g_c = x.new_zeros(groups, chunk, chunk), torch.zeros_like(b_GQN), torch.zeros_like(c_GQN)
        g_log_decay = torch.empty(groups, chunk, heads)
        decays = (log_decay.contiguous().view(groups, chunk, heads).numpy(), decay, g_decay.numpy(), score.numpy())
        arrays = (*decays, *rows(b_GQN), *rows(c_GQN), sizes.of(g_left), sizes.of(g_into))
        sums = tuple(each.numpy() for each in (g_score, g_b, g_c, g_log_decay))
        in_parts(groups, lambda first, last: passes.differentiate_decays(first, last, *arrays, *sums))
        g_b, g_c = g_b.baddbmm_(g_score.transpose(1, 2), c_GQN), g_c.baddbmm_(g_score, b_GQN)
        g_x, g_gain = x.new_empty(groups, chunk, heads * sizes.channels), torch.empty(groups, chunk, heads)
        g_skip = torch.empty(groups, heads)
        factors = (gain.contiguous().view(groups, chunk, heads).numpy(), skip.numpy(), sizes.of(g_right))
        sums = tuple(each.numpy() for each in (g_x, g_gain, g_skip))
        in_parts(groups, lambda first, last: passes.differentiate_inputs(first, last, *x_rows, *y_rows, *factors, *sums))
        return (
            g_x.view(x.shape),
            g_gain.view(gain.shape),
            g_log_decay.view(log_decay.shape),
            g_b.view(b.shape),
            g_c.view(c.shape),
            g_skip.sum(0),
            None if state is None else g_state.transpose(2, 3),
            None,
            None,
        )


def _operands(sizes: _Sizes, log_decay: Tensor, b: Tensor, c: Tensor):
    """Return `left`, `into` and the chunks' decays; and the scores with b and c by chunks."""
    groups, chunk = sizes.windows * sizes.chunks, sizes.rows
    b_GQN, c_GQN = (rows_of.reshape(groups, chunk, -1) for rows_of in (b.detach(), c.detach()))
    score = torch.bmm(c_GQN, b_GQN.transpose(1, 2))
    left = b.new_empty(groups * sizes.heads, chunk, chunk + sizes.state)
    into = b.new_empty(groups * sizes.heads, chunk, sizes.state)
    decay = b.new_empty(groups, sizes.heads).numpy()
    logs = log_decay.detach().contiguous().view(groups, chunk, sizes.heads).numpy()
    arrays = (logs, score.numpy(), *rows(b_GQN), *rows(c_GQN), sizes.of(left), sizes.of(into), decay)
    in_parts(groups, lambda first, last: passes.make_operands(first, last, *arrays))
    return left, into, decay, (score, b_GQN, c_GQN)


def _plain(x, gain, log_decay, b, c, skip, state):
    """The same in differentiable operations."""
    y, last = chunked.ssd(x * gain[..., None], log_decay, b, c, state, want_state=True)
    return y + x * skip[:, None], last


def _plain_outputs(*inputs):
    return _plain(*inputs)[0]
