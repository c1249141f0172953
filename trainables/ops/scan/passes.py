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
def make_decays(first, last, log_decay_GQH, score_GQQ, mix_GHQQ, start_GQH, end_GQH):
    """Write `mix`, and the decays from the start of the chunk and to its end."""
    rows, n_heads = log_decay_GQH.shape[1:]
    for g in range(first, last):
        for h in range(n_heads):
            cs = np.cumsum(log_decay_GQH[g, :, h].astype(np.float64))
            for t in range(rows):
                now, row, score = cs[t], mix_GHQQ[g, h, t], score_GQQ[g, t]
                start_GQH[g, t, h] = exp32(np.float32(now))
                end_GQH[g, t, h] = exp32(np.float32(cs[-1] - now))
                for s in range(t + 1):
                    row[s] = exp32(np.float32(now - cs[s])) * score[s]
                row[t + 1 :] = ZERO


@kernel
def weigh_inputs(first, last, x, x_stride, gain_GQH, end_GQH, u_GHQP, ending_GQI):
    """Write u = gain x, and what of it is left at the end of the chunk."""
    rows, n_heads = gain_GQH.shape[1:]
    channels = u_GHQP.shape[3]
    for g in range(first, last):
        for t in range(rows):
            for h in range(n_heads):
                i = (g * rows + t) * x_stride + h * channels
                given, u, gain = x[i : i + channels], u_GHQP[g, h, t], gain_GQH[g, t, h]
                for p in range(channels):
                    u[p] = given[p] * gain
                if ending_GQI.size:
                    ending, left = ending_GQI[g, t, h * channels : (h + 1) * channels], gain * end_GQH[g, t, h]
                    for p in range(channels):
                        ending[p] = given[p] * left


@kernel
def carry_states(first, last, added_GNI, start_GQH, state_BNHP, before_GNI):
    """Write the state before each chunk; leave the one after the last chunk."""
    n_windows, n_state, n_heads, channels = state_BNHP.shape
    chunks, rows = start_GQH.shape[0] // n_windows, start_GQH.shape[1]
    for window in range(first, last):
        for g in range(window * chunks, (window + 1) * chunks):
            for n in range(n_state):
                for h in range(n_heads):
                    decay, part = start_GQH[g, rows - 1, h], slice(h * channels, (h + 1) * channels)
                    state, before, added = state_BNHP[window, n, h], before_GNI[g, n, part], added_GNI[g, n, part]
                    for p in range(channels):
                        before[p] = state[p]
                        state[p] = state[p] * decay + added[p]


@kernel
def join_heads(first, last, x, x_stride, y_GHQP, start_GQH, read_GQI, skip_H, y_GQI):
    """Write the outputs with heads side by side, and add what the state gives and skip x."""
    n_heads, rows, channels = y_GHQP.shape[1:]
    for g in range(first, last):
        for t in range(rows):
            for h in range(n_heads):
                i, part, skip = (
                    (g * rows + t) * x_stride + h * channels,
                    slice(h * channels, (h + 1) * channels),
                    skip_H[h],
                )
                to, found, given = y_GQI[g, t, part], y_GHQP[g, h, t], x[i : i + channels]
                for p in range(channels):
                    to[p] = found[p] + skip * given[p]
                if read_GQI.size:
                    read, start = read_GQI[g, t, part], start_GQH[g, t, h]
                    for p in range(channels):
                        to[p] += start * read[p]


@kernel
def split_heads(first, last, y, y_stride, start_GQH, read_GQI, y_GHQP, g_read_GQI, by_start_GQH):
    """Write the outputs' gradient as one matrix per head, that of what the state gave, and that of log(start)."""
    n_heads, rows, channels = y_GHQP.shape[1:]
    for g in range(first, last):
        for t in range(rows):
            for h in range(n_heads):
                i, part, total = (g * rows + t) * y_stride + h * channels, slice(h * channels, (h + 1) * channels), ZERO
                given = y[i : i + channels]
                y_GHQP[g, h, t] = given
                if read_GQI.size:
                    read, g_read, start = read_GQI[g, t, part], g_read_GQI[g, t, part], start_GQH[g, t, h]
                    for p in range(channels):
                        g_read[p] = given[p] * start
                        total += g_read[p] * read[p]
                by_start_GQH[g, t, h] = total


@kernel
def carry_back(first, last, start_GQH, g_total_GH, before_GNI, g_before_GNI, g_state_BNHP, g_added_GNI):
    """Carry the gradient of the last state back; leave that of the state before the first chunk.

    `g_total` is the gradient of the log decay over a whole chunk.
    """
    n_windows, n_state, n_heads, channels = g_state_BNHP.shape
    chunks, rows = start_GQH.shape[0] // n_windows, start_GQH.shape[1]
    for window in range(first, last):
        for back in range(chunks):
            g = (window + 1) * chunks - 1 - back
            for n in range(n_state):
                for h in range(n_heads):
                    decay, total, part = start_GQH[g, rows - 1, h], ZERO, slice(h * channels, (h + 1) * channels)
                    g_state, g_added = g_state_BNHP[window, n, h], g_added_GNI[g, n, part]
                    before, g_read = before_GNI[g, n, part], g_before_GNI[g, n, part]
                    for p in range(channels):
                        total += g_state[p] * before[p]
                        g_added[p] = g_state[p]
                        g_state[p] = g_state[p] * decay + g_read[p]
                    g_total_GH[g, h] += total * decay


@kernel
def differentiate_inputs(
    first, last, x, x_stride, y, y_stride, gain_GQH, skip_H, end_GQH, g_u_GHQP, g_ending_GQI,
    g_x_GQI, g_gain_GQH, g_skip_GH, by_end_GQH,
):  # fmt: skip
    """Write the gradients of x, gain and log(end), and each chunk's part of that of the skip; `y` is y's gradient."""
    rows, n_heads = gain_GQH.shape[1:]
    channels = g_u_GHQP.shape[3]
    for g in range(first, last):
        g_skip_GH[g] = ZERO
        for t in range(rows):
            for h in range(n_heads):
                part = slice(h * channels, (h + 1) * channels)
                i, j = (g * rows + t) * x_stride + h * channels, (g * rows + t) * y_stride + h * channels
                given, g_y, g_u = x[i : i + channels], y[j : j + channels], g_u_GHQP[g, h, t]
                g_x, gain, skip, end = g_x_GQI[g, t, part], gain_GQH[g, t, h], skip_H[h], end_GQH[g, t, h]
                by_gain, by_skip, by_end = ZERO, ZERO, ZERO
                for p in range(channels):
                    g_x[p] = g_u[p] * gain + g_y[p] * skip
                    by_gain += g_u[p] * given[p]
                    by_skip += g_y[p] * given[p]
                if g_ending_GQI.size:
                    g_ending = g_ending_GQI[g, t, part]
                    for p in range(channels):
                        g_x[p] += g_ending[p] * (end * gain)
                        by_end += g_ending[p] * given[p]
                g_gain_GQH[g, t, h] = by_gain + end * by_end
                by_end_GQH[g, t, h] = end * gain * by_end
                g_skip_GH[g, h] += by_skip


@kernel
def differentiate_decays(
    first,
    last,
    log_decay_GQH,
    score_GQQ,
    g_mix_GHQQ,
    by_start_GQH,
    by_end_GQH,
    g_total_GH,
    g_score_GQQ,
    g_log_decay_GQH,
):
    """Write the gradient of the scores, summed over the heads, and that of the log decays.

    Each factor exp(cs_t - cs_s) m has the derivative m' = exp(cs_t - cs_s) m by cs_t, and its negative by cs_s.
    """
    rows, n_heads = log_decay_GQH.shape[1:]
    g_cs = np.empty(rows)
    for g in range(first, last):
        g_score_GQQ[g] = ZERO
        for h in range(n_heads):
            cs = np.cumsum(log_decay_GQH[g, :, h].astype(np.float64))
            g_total = np.float64(g_total_GH[g, h])
            for t in range(rows):
                g_cs[t] = np.float64(by_start_GQH[g, t, h]) - by_end_GQH[g, t, h]
                g_total += by_end_GQH[g, t, h]
            for t in range(rows):
                now, total = cs[t], 0.0
                g_row, score, g_score = g_mix_GHQQ[g, h, t], score_GQQ[g, t], g_score_GQQ[g, t]
                for s in range(t):
                    part = exp32(np.float32(now - cs[s])) * g_row[s]
                    g_score[s] += part
                    part *= score[s]
                    total += part
                    g_cs[s] -= part
                g_score[t] += g_row[t]
                g_cs[t] += total
            for back in range(rows):
                t = rows - 1 - back
                g_total += g_cs[t]
                g_log_decay_GQH[g, t, h] = g_total
