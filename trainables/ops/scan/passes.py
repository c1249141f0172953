"""The compiled passes of `trainables.ops.scan.compiled`: each reads and writes operands of its matrix products once.

Letters as there. Every pass works on chunks (or windows) `first` up to `last`, so that threads can share the work. Rows
of a view come flat with their distance, see `trainables.ops.compiled.rows`. Running sums of log decays are float64, for
late in a chunk their differences are small against them; so are the sums of their gradients, which all but cancel.
"""

from __future__ import annotations

import numpy as np

from trainables.ops.compiled import exp32, kernel

ZERO = np.float32(0)


@kernel
def make_operands(first, last, log_decay_GQH, score_GQQ, b, b_stride, c, c_stride, left_GHQW, into_GHQN, decay_GH):
    """Write `left`, `into` and the decay over each whole chunk."""
    rows, n_heads = log_decay_GQH.shape[1:]
    state = into_GHQN.shape[3]
    for g in range(first, last):
        for h in range(n_heads):
            cs = np.cumsum(log_decay_GQH[g, :, h].astype(np.float64))
            decay_GH[g, h] = exp32(np.float32(cs[-1]))
            for t in range(rows):
                now, row, score = cs[t], left_GHQW[g, h, t], score_GQQ[g, t]
                for s in range(t + 1):
                    row[s] = exp32(np.float32(now - cs[s])) * score[s]
                row[t + 1 : rows] = ZERO
                if state:
                    i, j = (g * rows + t) * b_stride, (g * rows + t) * c_stride
                    _scaled(row[rows:], c[j : j + state], exp32(np.float32(now)))
                    _scaled(into_GHQN[g, h, t], b[i : i + state], exp32(np.float32(cs[-1] - now)))


@kernel
def _scaled(to, x, factor):
    for i in range(to.size):
        to[i] = x[i] * factor


@kernel
def weigh_inputs(first, last, x, x_stride, gain_GQH, right_GHWP):
    """Write u = gain x into the first Q rows of `right`."""
    rows, n_heads = gain_GQH.shape[1:]
    channels = right_GHWP.shape[3]
    for g in range(first, last):
        for t in range(rows):
            for h in range(n_heads):
                i = (g * rows + t) * x_stride + h * channels
                _scaled(right_GHWP[g, h, t], x[i : i + channels], gain_GQH[g, t, h])


@kernel
def carry_states(first, last, added_GHNP, decay_GH, state_BHNP, right_GHWP):
    """Write the state before each chunk into the last N rows of `right`; leave the one after the last chunk."""
    n_windows, n_heads, n_state = state_BHNP.shape[:3]
    chunks, rows = decay_GH.shape[0] // n_windows, right_GHWP.shape[2] - n_state
    for window in range(first, last):
        for h in range(n_heads):
            for g in range(window * chunks, (window + 1) * chunks):
                decay = decay_GH[g, h]
                for n in range(n_state):
                    state, before, added = state_BHNP[window, h, n], right_GHWP[g, h, rows + n], added_GHNP[g, h, n]
                    for p in range(state.size):
                        before[p] = state[p]
                        state[p] = state[p] * decay + added[p]


@kernel
def join_heads(first, last, x, x_stride, y_GHQP, skip_H, y_GQI):
    """Write the outputs with heads side by side, and add skip x."""
    n_heads, rows, channels = y_GHQP.shape[1:]
    for g in range(first, last):
        for t in range(rows):
            for h in range(n_heads):
                i, j, skip = (g * rows + t) * x_stride + h * channels, h * channels, skip_H[h]
                to, found, given = y_GQI[g, t, j : j + channels], y_GHQP[g, h, t], x[i : i + channels]
                for p in range(channels):
                    to[p] = found[p] + skip * given[p]


@kernel
def split_heads(first, last, y, y_stride, y_GHQP):
    """Write rows with heads side by side as one matrix per head."""
    n_heads, rows, channels = y_GHQP.shape[1:]
    for g in range(first, last):
        for t in range(rows):
            for h in range(n_heads):
                i = (g * rows + t) * y_stride + h * channels
                y_GHQP[g, h, t] = y[i : i + channels]


@kernel
def carry_back(first, last, decay_GH, g_decay_GH, right_GHWP, g_right_GHWP, g_state_BHNP, g_added_GHNP):
    """Carry the gradient of the last state back; leave that of the state before the first chunk."""
    n_windows, n_heads, n_state = g_state_BHNP.shape[:3]
    chunks, rows = decay_GH.shape[0] // n_windows, right_GHWP.shape[2] - n_state
    for window in range(first, last):
        for h in range(n_heads):
            for back in range(chunks):
                g = (window + 1) * chunks - 1 - back
                decay, total = decay_GH[g, h], ZERO
                for n in range(n_state):
                    g_state, g_added = g_state_BHNP[window, h, n], g_added_GHNP[g, h, n]
                    before, g_read = right_GHWP[g, h, rows + n], g_right_GHWP[g, h, rows + n]
                    for p in range(g_state.size):
                        total += g_state[p] * before[p]
                        g_added[p] = g_state[p]
                        g_state[p] = g_state[p] * decay + g_read[p]
                g_decay_GH[g, h] = total


@kernel
def differentiate_decays(
    first, last, log_decay_GQH, decay_GH, g_decay_GH, score_GQQ, b, b_stride, c, c_stride,
    g_left_GHQW, g_into_GHQN, g_score_GQQ, g_b_GQN, g_c_GQN, g_log_decay_GQH,
):  # fmt: skip
    """Add the gradients of scores, b and c over the heads; write that of the log decays.

    Each factor exp(cs_t - cs_s) m has the derivative m' = exp(cs_t - cs_s) m by cs_t, and its negative by cs_s.
    """
    rows, n_heads = log_decay_GQH.shape[1:]
    state = g_into_GHQN.shape[3]
    g_cs = np.empty(rows)
    for g in range(first, last):
        for h in range(n_heads):
            cs = np.cumsum(log_decay_GQH[g, :, h].astype(np.float64))
            g_cs[:] = 0.0
            g_total = np.float64(g_decay_GH[g, h] * decay_GH[g, h])
            for t in range(rows):
                now, total = cs[t], 0.0
                g_row, score, g_score = g_left_GHQW[g, h, t], score_GQQ[g, t], g_score_GQQ[g, t]
                for s in range(t):
                    part = exp32(np.float32(now - cs[s])) * g_row[s]
                    g_score[s] += part
                    part *= score[s]
                    total += part
                    g_cs[s] -= part
                g_score[t] += g_row[t]
                if state:
                    i, j = (g * rows + t) * b_stride, (g * rows + t) * c_stride
                    total += _product(g_c_GQN[g, t], g_row[rows:], c[j : j + state], exp32(np.float32(now)))
                    to_end = exp32(np.float32(cs[-1] - now))
                    given = _product(g_b_GQN[g, t], g_into_GHQN[g, h, t], b[i : i + state], to_end)
                    total -= given
                    g_total += given
                g_cs[t] += total
            for back in range(rows):
                t = rows - 1 - back
                g_total += g_cs[t]
                g_log_decay_GQH[g, t, h] = g_total


@kernel
def _product(g_x, g_scaled, x, factor):
    """Add the gradient of x in factor x; return that of the factor's logarithm."""
    total = ZERO
    for n in range(x.size):
        part = g_scaled[n] * factor
        g_x[n] += part
        total += part * x[n]
    return total


@kernel
def differentiate_inputs(
    first, last, x, x_stride, y, y_stride, gain_GQH, skip_H, g_right_GHWP, g_x_GQI, g_gain_GQH, g_skip_GH
):
    """Write the gradients of x and gain, and each chunk's part of that of the skip; `y` is the gradient of y."""
    rows, n_heads = gain_GQH.shape[1:]
    channels = g_right_GHWP.shape[3]
    for g in range(first, last):
        g_skip_GH[g] = ZERO
        for t in range(rows):
            for h in range(n_heads):
                column = h * channels
                i, j = (g * rows + t) * x_stride + column, (g * rows + t) * y_stride + column
                given, g_y, g_u = x[i : i + channels], y[j : j + channels], g_right_GHWP[g, h, t]
                g_x, gain, skip = g_x_GQI[g, t, column : column + channels], gain_GQH[g, t, h], skip_H[h]
                by_gain, by_skip = ZERO, ZERO
                for p in range(channels):
                    g_x[p] = g_u[p] * gain + g_y[p] * skip
                    by_gain += g_u[p] * given[p]
                    by_skip += g_y[p] * given[p]
                g_gain_GQH[g, t, h] = by_gain
                g_skip_GH[g, h] += by_skip
