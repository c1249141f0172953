"""A mean over random probes with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """A Monte Carlo estimate; `error` is the standard error over its probes, None for a single one."""

    value: float
    error: float | None
    n_probes: int


def average(values: Sequence[float]) -> Average:
    """Return mean and standard error (ddof 1) of independent probes, at least one."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Average(value=mean, error=None, n_probes=1)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    return Average(value=mean, error=math.sqrt(variance / n), n_probes=n)
