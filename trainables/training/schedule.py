"""Learning-rate schedules: pure functions of the step, so that a resumed trial needs no schedule state."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["cosine", "constant", "onecycle"]

LONGEST_WARMUP_SHARE = 0.5
"""A warm-up beyond this share of all steps is shortened (TRAIN-1: 2,000 steps where there are fewer than 4,000) ..."""
SHORT_WARMUP_SHARE = 0.1
"""... to this share."""
ONECYCLE_RISE_SHARE = 0.3
"""Share of the steps that one-cycle rises where no warm-up is asked for; like the next two, PyTorch's default."""
ONECYCLE_START_DIVISOR = 25.0
"""One-cycle starts at peak / this."""
ONECYCLE_END_DIVISOR = 1e4
"""One-cycle ends at start / this."""


def effective_warmup(warmup_steps: int, total_steps: int) -> int:
    """Return the warm-up in steps, shortened to a tenth of all steps where it is more than half of them (TRAIN-1)."""
    if warmup_steps > LONGEST_WARMUP_SHARE * total_steps:
        return int(SHORT_WARMUP_SHARE * total_steps)
    return warmup_steps


def learning_rate_factor(
    name: ScheduleName, step: int, *, total_steps: int, warmup_steps: int = 0, floor: float = 0.0
) -> float:
    """Return the share of the peak learning rate that applies to a step. Requirement: TRAIN-1.

    Args:
        name: `cosine`: linear warm-up from 0, then half a cosine down to `floor`. `constant`: linear warm-up, then 1.
            `onecycle`: Smith & Topin (2019), both halves cosine; the warm-up is its rise.
        step: Optimiser steps done before this one; `total_steps` gives the end point.
        total_steps: Optimiser steps of the fold, at least 1.
        warmup_steps: Asked-for steps of warm-up; see `effective_warmup`.
        floor: Share of the peak at the end of `cosine`.

    Raises:
        ValueError: The step lies outside 0..total_steps, or the name is unknown.
    """
    if not 0 <= step <= total_steps:
        raise ValueError(f"schedule: expected a step in 0..{total_steps}, found {step}")
    warmup = effective_warmup(warmup_steps, total_steps)
    if name == "onecycle":
        return _onecycle(step, total_steps, warmup)
    if step < warmup:
        return step / warmup
    if name == "constant":
        return 1.0
    if name == "cosine":
        return floor + (1.0 - floor) * _cosine_fall((step - warmup) / max(1, total_steps - warmup))
    raise ValueError(f"lr_schedule: expected cosine, constant or onecycle, found {name!r}")


def _cosine_fall(share: float) -> float:
    """Return 1 at share 0 and 0 at share 1, along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _onecycle(step: int, total_steps: int, warmup: int) -> float:
    start = 1.0 / ONECYCLE_START_DIVISOR
    end = start / ONECYCLE_END_DIVISOR
    peak = float(warmup) if warmup else ONECYCLE_RISE_SHARE * total_steps
    if step < peak:
        return 1.0 + (start - 1.0) * _cosine_fall(step / peak)
    return end + (1.0 - end) * _cosine_fall((step - peak) / (total_steps - peak))
