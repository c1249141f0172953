"""The Mamba-2 mixer: one product in, a short convolution, a scan with one decay per head, a gate, one product out.

Source: Dao & Gu (2024), arXiv 2405.21060, section 7 and figure 6; CONDOR-3, CONDOR-5.
Letters: B batch, T time, D width, I inner width, H heads, P channels of a head, N state, C convolved channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from trainables.layers.convolution import CausalConvolution
from trainables.layers.norms import GatedRMSNorm
from trainables.ops.scan import Discretisation, Impl, ssd

State = tuple[Tensor, ...]

STEP_RANGE = (1e-3, 1e-1)
"""Range of the first step sizes, log-uniform (Gu & Dao 2023, section 3.6)."""

RATE_RANGE = (1.0, 16.0)
"""Range of the first rates -a, uniform (Dao & Gu 2024, the authors' code)."""


def first_step_bias(n: int) -> Tensor:
    """Return biases whose softplus is log-uniform in `STEP_RANGE`."""
    low, high = (math.log(value) for value in STEP_RANGE)
    step = torch.empty(n).uniform_(low, high).exp()
    return step + torch.log(-torch.expm1(-step))


class HeadScan(nn.Module):
    """Parameters and recurrence of a scan with one decay per head; what it scans is projected elsewhere.

    Args:
        heads: Heads.
        head_dim: Channels of a head.
        d_state: State of a channel.
        discretisation: See `trainables.ops.scan.ssd`.
        impl: See `trainables.ops.scan.choose_impl`.
    """

    def __init__(
        self, heads: int, head_dim: int, d_state: int, discretisation: Discretisation, impl: Impl = "auto"
    ) -> None:
        super().__init__()
        self.heads, self.head_dim, self.d_state = heads, head_dim, d_state
        self.discretisation, self.impl = discretisation, impl
        self.step_bias_H = nn.Parameter(first_step_bias(heads))
        self.log_rate_H = nn.Parameter(torch.empty(heads).uniform_(*RATE_RANGE).log())
        self.skip_H = nn.Parameter(torch.ones(heads))

    def first_state(self, batch: int) -> Tensor:
        return self.skip_H.new_zeros(batch, self.heads, self.head_dim, self.d_state)

    def forward(
        self, x_BTI: Tensor, b_BTN: Tensor, c_BTN: Tensor, step_BTH: Tensor, state: Tensor | None, *, want_state: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs (B, T, I) and, where wanted, the last state. Steps and rates are float32 or wider."""
        wide = torch.promote_types(x_BTI.dtype, torch.float32)
        x_BTHP = x_BTI.unflatten(-1, (self.heads, self.head_dim))
        step_BTH = functional.softplus(step_BTH.to(wide) + self.step_bias_H.to(wide))
        rate_H = -self.log_rate_H.to(wide).exp()
        y_BTHP, state = ssd(
            x_BTHP,
            step_BTH,
            rate_H,
            b_BTN,
            c_BTN,
            skip_H=self.skip_H,
            discretisation=self.discretisation,
            state_BHPN=state,
            want_state=want_state,
            impl=self.impl,
        )
        return y_BTHP.flatten(2), state


class Mamba2Mixer(nn.Module):
    """Map (B, T, D) to (B, T, D), each row from itself and the rows before it.

    Args:
        d_model: Width.
        expand: Inner width over width.
        head_dim: Channels of a head; divides the inner width.
        d_state: State of a channel.
        d_conv: Length of the convolution.
        discretisation: See `trainables.ops.scan.ssd`.
        impl: See `trainables.ops.scan.choose_impl`.

    Raises:
        ValueError: `head_dim` does not divide the inner width.
    """

    def __init__(
        self,
        d_model: int,
        *,
        expand: int,
        head_dim: int,
        d_state: int,
        d_conv: int,
        discretisation: Discretisation = "euler_B",
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        inner = expand * d_model
        if inner % head_dim:
            raise ValueError(f"head_dim: expected a divisor of expand * d_model = {inner}, found {head_dim}")
        self.widths = (inner, inner + 2 * d_state, inner // head_dim)
        self.parts = (inner, d_state, d_state)
        self.project_in = nn.Linear(d_model, sum(self.widths), bias=False)
        self.convolution = CausalConvolution(inner + 2 * d_state, d_conv)
        self.scan = HeadScan(inner // head_dim, head_dim, d_state, discretisation, impl)
        self.norm = GatedRMSNorm(inner)
        self.project_out = nn.Linear(inner, d_model, bias=False)

    def first_state(self, batch: int) -> State:
        """Return the state before the first row: convolution and scan."""
        return self.convolution.first_state(batch), self.scan.first_state(batch)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTI, mixed_BTC, step_BTH = self.project_in(x_BTD).split(self.widths, dim=-1)
        return self._scan(self.convolution(mixed_BTC), gate_BTI, step_BTH, None, want_state=False)[0]

    def resume(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """Map rows that follow the rows behind `state`; also return the state after them (CONDOR-6)."""
        gate_BTI, mixed_BTC, step_BTH = self.project_in(x_BTD).split(self.widths, dim=-1)
        mixed_BTC, rows = self.convolution.resume(mixed_BTC, state[0])
        y_BTD, scanned = self._scan(mixed_BTC, gate_BTI, step_BTH, state[1], want_state=True)
        return y_BTD, (rows, scanned)

    def _scan(
        self, mixed_BTC: Tensor, gate_BTI: Tensor, step_BTH: Tensor, state: Tensor | None, *, want_state: bool
    ) -> tuple[Tensor, Tensor | None]:
        x_BTI, b_BTN, c_BTN = mixed_BTC.split(self.parts, dim=-1)
        y_BTI, state = self.scan(x_BTI, b_BTN, c_BTN, step_BTH, state, want_state=want_state)
        return self.project_out(self.norm(y_BTI, gate_BTI)), state


class ProjectedHeadScan(nn.Module):
    """The scan on its own: b, c and the step sizes are linear in the input, which is scanned as it is (CONDOR-2).

    Args:
        width: Channels scanned.
        head_dim: Channels of a head; divides the width.
        d_state: State of a channel.
        discretisation: See `trainables.ops.scan.ssd`.
        impl: See `trainables.ops.scan.choose_impl`.

    Raises:
        ValueError: `head_dim` does not divide the width.
    """

    def __init__(
        self,
        width: int,
        *,
        head_dim: int,
        d_state: int,
        discretisation: Discretisation = "euler_B",
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        if width % head_dim:
            raise ValueError(f"head_dim: expected a divisor of {width}, found {head_dim}")
        self.parts = (d_state, d_state, width // head_dim)
        self.project = nn.Linear(width, sum(self.parts), bias=False)
        self.scan = HeadScan(width // head_dim, head_dim, d_state, discretisation, impl)

    def first_state(self, batch: int) -> State:
        """Return the state before the first row."""
        return (self.scan.first_state(batch),)

    def forward(self, x_BTI: Tensor) -> Tensor:
        return self.scan(x_BTI, *self.project(x_BTI).split(self.parts, dim=-1), None, want_state=False)[0]

    def resume(self, x_BTI: Tensor, state: State) -> tuple[Tensor, State]:
        """Scan rows that follow the rows behind `state`; also return the state after them."""
        projected = self.project(x_BTI).split(self.parts, dim=-1)
        y_BTI, last = self.scan(x_BTI, *projected, state[0], want_state=True)
        return y_BTI, (last,)
