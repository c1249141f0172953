"""The vendor's kernels behind the contracts of `trainables.ops.scan`. The only file that imports mamba-ssm.

Letters: B batch, T time, H heads, P channels of a head, D channels, N state.
"""

from __future__ import annotations

from torch import Tensor

from trainables.ops.scan import choose_chunk

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
except ImportError as error:
    raise ImportError(
        "scan: expected mamba-ssm for impl fused, found none; install the extra `gpu` of pyproject.toml"
    ) from error


def ssd(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    a_H: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    skip_H: Tensor | None,
    state_BHPN: Tensor | None,
    *,
    want_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run `ops.scan.ssd` with `euler_B` in the kernel, whose groups of b and c are one here."""
    result = mamba_chunk_scan_combined(
        x_BTHP,
        dt_BTH,
        a_H,
        b_BTN.unsqueeze(2),
        c_BTN.unsqueeze(2),
        D=skip_H,
        chunk_size=choose_chunk(x_BTHP.shape[1], b_BTN.shape[-1], x_BTHP.shape[3]),
        initial_states=state_BHPN,
        return_final_states=want_state,
    )
    return result if want_state else (result, None)


def selective_scan(
    x_BTD: Tensor, dt_BTD: Tensor, a_DN: Tensor, b_BTN: Tensor, c_BTN: Tensor, state_BDN: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run `ops.scan.selective_scan` with `euler_B` in the kernel, which wants time last and starts from a zero state.

    Raises:
        ValueError: A state is given.
    """
    if state_BDN is not None:
        raise ValueError("selective_scan: expected no first state with impl fused, found one; use chunked")
    time_last = (each.transpose(1, 2).contiguous() for each in (x_BTD, dt_BTD))
    b_BNT, c_BNT = b_BTN.transpose(1, 2).contiguous(), c_BTN.transpose(1, 2).contiguous()
    y_BDT, last_BDN = selective_scan_fn(*time_last, a_DN, b_BNT, c_BNT, return_last_state=True)
    return y_BDT.transpose(1, 2), last_BDN
