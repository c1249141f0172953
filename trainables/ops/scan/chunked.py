"""The same scans as `reference`, in large matrix products: state-space duality and an associative scan, plain PyTorch.

Letters: B batch, T time, H heads, P channels of a head, D channels, N state, K blocks of a chunk, Q rows of a block.

A scan with one decay per head is a masked attention, y = (L * c b') u, where L_ts is the exponential of the log decays
summed from s+1 to t (Dao & Gu 2024, arXiv 2405.21060, equation 5). Three ways of multiplying by L share the work, and
none takes the exponential of a positive number, so nothing can overflow:

- inside a block of some forty rows, L is made explicitly, per head;
- between the blocks of a chunk, exp(cs_t - cs_s) = exp(cs_t - cs_start) exp(cs_start - cs_s): the two factors scale
  inputs and outputs, and one score matrix serves all heads in a single wide product;
- between chunks, the state is carried (the paper's section 6).
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from trainables.ops.scan import choose_block, choose_chunk

Pair = tuple[Tensor, Tensor]


def ssd(
    u_BTHP: Tensor, log_decay_BTH: Tensor, b_BTN: Tensor, c_BTN: Tensor, state_BHPN: Tensor | None, *, want_state: bool
) -> tuple[Tensor, Tensor | None]:
    """Run the scan of `reference.ssd`; the state is None where it is not asked for."""
    length, head_dim = u_BTHP.shape[1], u_BTHP.shape[3]
    chunk = choose_chunk(length, b_BTN.shape[-1], head_dim)
    state_BNHP = None if state_BHPN is None else state_BHPN.permute(0, 3, 1, 2)
    outputs = []
    for start in range(0, length, chunk):
        part = slice(start, start + chunk)
        is_last = start + chunk >= length
        y_BTHP, state_BNHP = _one_chunk(
            u_BTHP[:, part],
            log_decay_BTH[:, part],
            b_BTN[:, part],
            c_BTN[:, part],
            state_BNHP,
            want_state=want_state or not is_last,
        )
        outputs.append(y_BTHP)
    y_BTHP = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return y_BTHP, None if state_BNHP is None else state_BNHP.permute(0, 2, 3, 1)


def _one_chunk(
    u_BTHP: Tensor, log_decay_BTH: Tensor, b_BTN: Tensor, c_BTN: Tensor, state_BNHP: Tensor | None, *, want_state: bool
) -> tuple[Tensor, Tensor | None]:
    """Run the scan over one chunk; rows beyond its end, up to a whole block, are zero and change nothing."""
    batch, length, heads, head_dim = u_BTHP.shape
    block = choose_block(length)
    n_blocks = -(-length // block)
    missing = n_blocks * block - length
    if missing:
        u_BTHP = functional.pad(u_BTHP, (0, 0, 0, 0, 0, missing))
        log_decay_BTH, b_BTN, c_BTN = (
            functional.pad(each, (0, 0, 0, missing)) for each in (log_decay_BTH, b_BTN, c_BTN)
        )
    u_BKQHP = u_BTHP.reshape(batch, n_blocks, block, heads, head_dim)
    sum_BKQH = log_decay_BTH.reshape(batch, n_blocks, block, heads).cumsum(2)
    score_BTT = c_BTN @ b_BTN.transpose(1, 2)
    y_BKQHP = _inside_blocks(u_BKQHP, sum_BKQH, score_BTT)
    if n_blocks > 1 or state_BNHP is not None or want_state:
        y_BKQHP, past_BTHP = _between_blocks(y_BKQHP, u_BKQHP, sum_BKQH, score_BTT)
    if state_BNHP is not None:
        from_start_BTH = log_decay_BTH.cumsum(1).exp().to(u_BTHP.dtype)
        read_BTHP = (c_BTN @ state_BNHP.flatten(2)).view_as(u_BTHP)
        y_BKQHP = y_BKQHP + (read_BTHP * from_start_BTH[..., None]).view_as(y_BKQHP)
    y_BTHP = y_BKQHP.reshape(u_BTHP.shape)[:, :length]
    if not want_state:
        return y_BTHP, None
    new_BNHP = (b_BTN.transpose(1, 2) @ past_BTHP.flatten(2)).view(batch, -1, heads, head_dim)
    if state_BNHP is not None:
        new_BNHP = new_BNHP + state_BNHP * log_decay_BTH.sum(1).exp().to(u_BTHP.dtype)[:, None, :, None]
    return y_BTHP, new_BNHP


def _inside_blocks(u_BKQHP: Tensor, sum_BKQH: Tensor, score_BTT: Tensor) -> Tensor:
    """Return what the rows of a block give one another."""
    n_blocks, block = u_BKQHP.shape[1:3]
    sum_BKHQ = sum_BKQH.transpose(2, 3).contiguous()
    future_QQ = torch.full((block, block), -torch.inf, dtype=sum_BKHQ.dtype, device=sum_BKHQ.device).triu_(1)
    decay_BKHQQ = (sum_BKHQ[..., :, None] - sum_BKHQ[..., None, :]).add_(future_QQ).exp_().to(u_BKQHP.dtype)
    rows = [slice(k * block, (k + 1) * block) for k in range(n_blocks)]
    score_BKQQ = torch.stack([score_BTT[:, part, part] for part in rows], dim=1)
    return torch.matmul(decay_BKHQQ * score_BKQQ[:, :, None], u_BKQHP.transpose(2, 3)).transpose(2, 3)


def _between_blocks(y_BKQHP: Tensor, u_BKQHP: Tensor, sum_BKQH: Tensor, score_BTT: Tensor) -> Pair:
    """Add what each block receives from those before it; also return all inputs, decayed to the end of the chunk."""
    batch, n_blocks, block, heads, head_dim = u_BKQHP.shape
    total_BKH = sum_BKQH[:, :, -1]
    dtype = u_BKQHP.dtype
    to_end = (u_BKQHP * (total_BKH[:, :, None] - sum_BKQH).exp().to(dtype)[..., None]).unbind(1)
    from_start = sum_BKQH.exp().to(dtype).unsqueeze(-1).unbind(1)
    own = y_BKQHP.unbind(1)  # one stack in the backward pass, where indexing would fill a zero tensor per block
    outputs, past_BTHP = [own[0]], to_end[0]
    for k in range(1, n_blocks):
        score_BQT = score_BTT[:, k * block : (k + 1) * block, : k * block]
        got_BQHP = (score_BQT @ past_BTHP.flatten(2)).view(batch, block, heads, head_dim)
        outputs.append(torch.addcmul(own[k], got_BQHP, from_start[k]))
        past_BTHP = torch.cat([past_BTHP * total_BKH[:, k].exp().to(dtype)[:, None, :, None], to_end[k]], dim=1)
    return torch.stack(outputs, dim=1), past_BTHP


def combine(first: Pair, second: Pair) -> Pair:
    """Return the step that equals `first` and then `second`, each (decay, gain) of h <- decay h + gain (CONDOR-4)."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def selective_scan(
    gain_BTDN: Tensor, log_decay_BTDN: Tensor, c_BTN: Tensor, state_BDN: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the scan of `reference.selective_scan`, each block by doubling (Blelloch 1990), blocks one after another."""
    length = gain_BTDN.shape[1]
    block = choose_block(length)
    outputs = []
    for start in range(0, length, block):
        part = slice(start, start + block)
        decay_BQDN, gain_BQDN = _prefixes((log_decay_BTDN[:, part].exp(), gain_BTDN[:, part]))
        states_BQDN = gain_BQDN + decay_BQDN * state_BDN[:, None]
        outputs.append((states_BQDN @ c_BTN[:, part, :, None]).squeeze(-1))
        state_BDN = states_BQDN[:, -1]
    return torch.cat(outputs, dim=1), state_BDN


def _prefixes(steps: Pair) -> Pair:
    """Return for each row the combination of all steps up to it, in a logarithmic number of passes."""
    length, stride = steps[0].shape[1], 1
    while stride < length:
        earlier = (steps[0][:, :-stride], steps[1][:, :-stride])
        later = (steps[0][:, stride:], steps[1][:, stride:])
        joined = combine(earlier, later)
        steps = (
            torch.cat([steps[0][:, :stride], joined[0]], dim=1),
            torch.cat([steps[1][:, :stride], joined[1]], dim=1),
        )
        stride *= 2
    return steps
