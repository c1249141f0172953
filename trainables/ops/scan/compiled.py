"""The chunked scan with one decay per head: batched matrix products between compiled passes (CPU, float32).

Letters: B batch, T time, H heads, P channels of a head, I = H P, N state, K chunks of a window, G = B K chunks in all,
Q rows of a chunk.

With cs the running sum of the log decays of a chunk, u = gain x and h the state before the chunk (Dao & Gu 2024, arXiv
2405.21060, section 6), the outputs and what a chunk adds to the state are

    y = (L * (c b')) u + exp(cs) (c h),   L_ts = exp(cs_t - cs_s) for s <= t,   added = b' (exp(cs_Q - cs) u).

The first product is one for each head. Those with the state are one for all heads side by side, for only factors of
rows differ between heads. No exponent is positive. The operands are kept for the backward pass, Q + P numbers a row and
head and, where a state is carried, (2 + N / Q) P more: making them again is as fast, but not faster.
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

    def matrices(self, n_columns: int) -> Tensor:
        """Return room for Q rows of each chunk and head, as a batched product wants them."""
        return torch.empty(self.groups * self.heads, self.rows, n_columns)

    def by_head(self, x: Tensor) -> np.ndarray:
        """Return such matrices as the passes want them, (G, H, rows, columns)."""
        return x.view(self.groups, self.heads, *x.shape[1:]).numpy()

    def side_by_side(self) -> Tensor:
        """Return room for a row of all heads for each row, (G, Q, I); without columns where no state is carried."""
        return torch.empty(self.groups, self.rows, self.heads * self.channels if self.state else 0)

    def factors(self) -> Tensor:
        """Return room for a number of each row and head."""
        return torch.empty(self.groups, self.rows, self.heads)

    def vectors(self, x: Tensor) -> Tensor:
        """Return b or c as a matrix of each chunk."""
        return x.detach().reshape(self.groups, self.rows, -1)

    def by_chunk(self, x: Tensor) -> np.ndarray:
        """Return (B, T, ...) as (G, Q, ...)."""
        return x.detach().contiguous().view(self.groups, self.rows, -1).numpy()


class _Operands(NamedTuple):
    """What the backward pass needs of the forward one."""

    score_GQQ: Tensor
    mix: Tensor  # L * score
    from_start_GQH: Tensor  # exp(cs)
    to_end_GQH: Tensor  # exp(cs_Q - cs)
    u: Tensor
    ending_GQI: Tensor  # exp(cs_Q - cs) u
    before_GNI: Tensor  # the state before each chunk
    read_GQI: Tensor  # c h


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain, log_decay, b, c, skip, state, chunk, want_state):
        batch, length, heads, channels = x.shape
        carries = length > chunk or state is not None or want_state
        sizes = _Sizes(batch, batch * length // chunk, chunk, heads, channels, b.shape[-1] if carries else 0)
        x_rows, b_GQN, c_GQN = rows(x.flatten(2)), sizes.vectors(b), sizes.vectors(c)
        score_GQQ = torch.bmm(c_GQN, b_GQN.transpose(1, 2))
        mix, start, end = sizes.matrices(chunk), sizes.factors(), sizes.factors()
        decays = (sizes.by_chunk(log_decay), score_GQQ.numpy(), sizes.by_head(mix), start.numpy(), end.numpy())
        in_parts(sizes.groups, passes.make_decays, *decays)
        u, ending = sizes.matrices(channels), sizes.side_by_side()
        weighed = (sizes.by_chunk(gain), end.numpy(), sizes.by_head(u), ending.numpy())
        in_parts(sizes.groups, passes.weigh_inputs, *x_rows, *weighed)
        before, read, last = ending, ending, None
        if carries:
            added = torch.bmm(b_GQN.transpose(1, 2), ending)
            before, last = torch.empty_like(added), x.new_zeros(batch, sizes.state, heads, channels)
            if state is not None:
                last.copy_(state.permute(0, 3, 1, 2))
            in_parts(batch, passes.carry_states, added.numpy(), start.numpy(), last.numpy(), before.numpy())
            last, read = last.permute(0, 2, 3, 1), torch.bmm(c_GQN, before)
        y = x.new_empty(batch, length, heads, channels)
        found = (sizes.by_head(torch.bmm(mix, u)), start.numpy(), read.numpy(), skip.detach().numpy())
        in_parts(sizes.groups, passes.join_heads, *x_rows, *found, sizes.by_chunk(y))
        ctx.save_for_backward(
            x, gain, log_decay, b, c, skip, state, score_GQQ, mix, start, end, u, ending, before, read
        )
        ctx.sizes = sizes
        return y, last

    @staticmethod
    def backward(ctx, g_y, g_last):
        saved = ctx.saved_tensors  # asked for once: recomputing (checkpointing) gives them only once
        inputs, made = saved[:7], _Operands(*saved[7:])
        if torch.is_grad_enabled():
            plain, given = (_plain_outputs, (g_y,)) if g_last is None else (_plain, (g_y, g_last))
            return *gradients_of(plain, inputs, given), None, None
        x, gain, log_decay, b, c, skip, state = inputs
        sizes, start = ctx.sizes, made.from_start_GQH.numpy()
        x_rows, y_rows, b_GQN, c_GQN = rows(x.flatten(2)), rows(g_y.flatten(2)), sizes.vectors(b), sizes.vectors(c)
        g_heads, g_read, by_start = sizes.matrices(sizes.channels), sizes.side_by_side(), sizes.factors()
        found = (sizes.by_head(g_heads), g_read.numpy(), by_start.numpy())
        in_parts(sizes.groups, passes.split_heads, *y_rows, start, made.read_GQI.numpy(), *found)
        g_u, g_ending, g_total_GH = torch.bmm(made.mix.transpose(1, 2), g_heads), g_read, np.zeros_like(start[:, -1])
        if sizes.state:
            g_state = g_last.permute(0, 3, 1, 2).contiguous().clone()
            g_before = torch.bmm(c_GQN.transpose(1, 2), g_read)
            g_added = torch.empty_like(g_before)
            back = (made.before_GNI.numpy(), g_before.numpy(), g_state.numpy(), g_added.numpy())
            in_parts(sizes.windows, passes.carry_back, start, g_total_GH, *back)
            g_ending = torch.bmm(b_GQN, g_added)
        g_x, g_gain, g_skip_GH = torch.empty(x.shape), torch.empty(gain.shape), torch.empty(sizes.groups, sizes.heads)
        by_end, end = sizes.factors(), made.to_end_GQH.numpy()
        factors = (sizes.by_chunk(gain), skip.numpy(), end, sizes.by_head(g_u), g_ending.numpy())
        found = (sizes.by_chunk(g_x), sizes.by_chunk(g_gain), g_skip_GH.numpy(), by_end.numpy())
        in_parts(sizes.groups, passes.differentiate_inputs, *x_rows, *y_rows, *factors, *found)
        g_mix = torch.bmm(g_heads, made.u.transpose(1, 2))
        g_score, g_log_decay = torch.empty_like(made.score_GQQ), torch.empty(log_decay.shape)
        decays = (sizes.by_chunk(log_decay), made.score_GQQ.numpy(), sizes.by_head(g_mix))
        outer = (by_start.numpy(), by_end.numpy(), g_total_GH, g_score.numpy(), sizes.by_chunk(g_log_decay))
        in_parts(sizes.groups, passes.differentiate_decays, *decays, *outer)
        g_b, g_c = torch.bmm(g_score.transpose(1, 2), c_GQN), torch.bmm(g_score, b_GQN)
        if sizes.state:
            g_b.baddbmm_(made.ending_GQI, g_added.transpose(1, 2))
            g_c.baddbmm_(g_read, made.before_GNI.transpose(1, 2))
        g_state = None if state is None else g_state.permute(0, 2, 3, 1)
        return g_x, g_gain, g_log_decay, g_b.view(b.shape), g_c.view(c.shape), g_skip_GH.sum(0), g_state, None, None


def _plain(x, gain, log_decay, b, c, skip, state):
    """The same in operations that PyTorch differentiates to any order."""
    y, last = chunked.ssd(x * gain[..., None], log_decay, b, c, state, want_state=True)
    return y.addcmul(x, skip[:, None]), last


def _plain_outputs(*inputs):
    return _plain(*inputs)[0]
