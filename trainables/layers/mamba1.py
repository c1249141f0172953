"""The Mamba-1 mixer: the same block around a scan with one decay per channel and state.

Source: Gu & Dao (2023), arXiv 2312.00752, sections 3.4 and 3.6; CONDOR-5, C-32.
Letters: B batch, T time, D width, I inner width, N state, R rank of the step sizes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from trainables.layers.convolution import CausalConvolution
from trainables.layers.mamba2 import State, first_step_bias
from trainables.ops.scan import Discretisation, Impl, selective_scan


class ChannelScan(nn.Module):
    """A selective scan with its own projections: b, c and low-rank step sizes are linear in the input.

    Args:
        width: Channels scanned.
        d_state: State of a channel.
        rank: Rank of the step-size projection.
        discretisation: See `trainables.ops.scan.selective_scan`.
        impl: See `trainables.ops.scan.choose_impl`.
    """

    def __init__(
        self, width: int, *, d_state: int, rank: int, discretisation: Discretisation = "euler_B", impl: Impl = "auto"
    ) -> None:
        super().__init__()
        self.parts = (rank, d_state, d_state)
        self.discretisation, self.impl = discretisation, impl
        self.project = nn.Linear(width, sum(self.parts), bias=False)
        self.step = nn.Linear(rank, width)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            self.step.bias.copy_(first_step_bias(width))
        rates_N = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.log_rate_IN = nn.Parameter(rates_N.log().repeat(width, 1))
        self.skip_I = nn.Parameter(torch.ones(width))

    def first_state(self, batch: int) -> State:
        """Return the state before the first row."""
        return (self.log_rate_IN.new_zeros(batch, *self.log_rate_IN.shape),)

    def forward(self, x_BTI: Tensor) -> Tensor:
        return self._scan(x_BTI, None)[0]

    def resume(self, x_BTI: Tensor, state: State) -> tuple[Tensor, State]:
        """Scan rows that follow the rows behind `state`; also return the state after them."""
        y_BTI, last = self._scan(x_BTI, state[0])
        return y_BTI, (last,)

    def _scan(self, x_BTI: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(x_BTI.dtype, torch.float32)
        rank_BTR, b_BTN, c_BTN = self.project(x_BTI).split(self.parts, dim=-1)
        y_BTI, last = selective_scan(
            x_BTI.to(wide),
            functional.softplus(self.step(rank_BTR).to(wide)),
            -self.log_rate_IN.to(wide).exp(),
            b_BTN.to(wide),
            c_BTN.to(wide),
            discretisation=self.discretisation,
            state_BDN=state,
            impl=self.impl,
        )
        return torch.addcmul(y_BTI.to(x_BTI.dtype), x_BTI, self.skip_I.to(x_BTI.dtype)), last


class Mamba1Mixer(nn.Module):
    """Map (B, T, D) to (B, T, D), each row from itself and the rows before it.

    Args:
        d_model: Width.
        expand: Inner width over width.
        d_state: State of a channel.
        d_conv: Length of the convolution.
        rank: Rank of the step sizes; None: a sixteenth of the width.
        discretisation: See `trainables.ops.scan.selective_scan`.
        impl: See `trainables.ops.scan.choose_impl`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        expand: int,
        d_state: int,
        d_conv: int,
        rank: int | None = None,
        discretisation: Discretisation = "euler_B",
        impl: Impl = "auto",
    ) -> None:
        super().__init__()
        inner = expand * d_model
        self.project_in = nn.Linear(d_model, 2 * inner, bias=False)
        self.convolution = CausalConvolution(inner, d_conv)
        self.scan = ChannelScan(
            inner,
            d_state=d_state,
            rank=rank or math.ceil(d_model / 16),
            discretisation=discretisation,
            impl=impl,
        )
        self.project_out = nn.Linear(inner, d_model, bias=False)

    def first_state(self, batch: int) -> State:
        """Return the state before the first row: convolution and scan."""
        return (self.convolution.first_state(batch), *self.scan.first_state(batch))

    def forward(self, x_BTD: Tensor) -> Tensor:
        mixed_BTI, gate_BTI = self.project_in(x_BTD).chunk(2, dim=-1)
        y_BTI = self.scan(self.convolution(mixed_BTI))
        return self.project_out(y_BTI * functional.silu(gate_BTI))

    def resume(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """Map rows that follow the rows behind `state`; also return the state after them (CONDOR-6)."""
        mixed_BTI, gate_BTI = self.project_in(x_BTD).chunk(2, dim=-1)
        mixed_BTI, rows = self.convolution.resume(mixed_BTI, state[0])
        y_BTI, scanned = self.scan.resume(mixed_BTI, state[1:])
        return self.project_out(y_BTI * functional.silu(gate_BTI)), (rows, *scanned)
