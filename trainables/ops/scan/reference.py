"""Sequential scans: one step after another, any floating type. Slow, obvious, and the judge of every other form.

Letters: B batch, T time, H heads, P channels of a head, D channels, N state.
"""

from __future__ import annotations

from torch import Tensor, stack


def ssd(
    u_BTHP: Tensor, log_decay_BTH: Tensor, b_BTN: Tensor, c_BTN: Tensor, state_BHPN: Tensor
) -> tuple[Tensor, Tensor]:
    """Run h_t = exp(log_decay_t) h_(t-1) + u_t b_t' and y_t = h_t c_t, a decay per head.

    Source: Dao & Gu (2024), arXiv 2405.21060, equation 1 with A a scalar times the identity.

    Args:
        u_BTHP: Input, already times its gain (the step size).
        log_decay_BTH: Logarithm of the decay, at or below zero.
        b_BTN: Input vectors, shared by all heads.
        c_BTN: Output vectors, shared by all heads.
        state_BHPN: State before the first step.

    Returns:
        Outputs (B, T, H, P) and the state after the last step (B, H, P, N).
    """
    outputs = []
    for t in range(u_BTHP.shape[1]):
        decay_BH11 = log_decay_BTH[:, t].exp()[..., None, None]
        state_BHPN = decay_BH11 * state_BHPN + u_BTHP[:, t, :, :, None] * b_BTN[:, t, None, None, :]
        outputs.append((state_BHPN * c_BTN[:, t, None, None, :]).sum(-1))
    return stack(outputs, dim=1), state_BHPN


def selective_scan(
    gain_BTDN: Tensor, log_decay_BTDN: Tensor, c_BTN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    """Run h_t = exp(log_decay_t) h_(t-1) + gain_t and y_t = sum over N of h_t c_t, a decay per channel and state.

    Source: Gu & Dao (2023), arXiv 2312.00752, equation 2a with a diagonal A.

    Args:
        gain_BTDN: What each step adds to the state.
        log_decay_BTDN: Logarithm of the decay, at or below zero.
        c_BTN: Output vectors, shared by all channels.
        state_BDN: State before the first step.

    Returns:
        Outputs (B, T, D) and the state after the last step (B, D, N).
    """
    outputs = []
    for t in range(gain_BTDN.shape[1]):
        state_BDN = log_decay_BTDN[:, t].exp() * state_BDN + gain_BTDN[:, t]
        outputs.append((state_BDN * c_BTN[:, t, None, :]).sum(-1))
    return stack(outputs, dim=1), state_BDN
