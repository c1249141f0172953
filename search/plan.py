"""What a search is going to do, before it does it: the table that `--dry-run` prints. Imports neither torch nor ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .trial import Rung

CPU_FLOPS = 8e9
"""Floating-point operations a second that small float32 models reach on one core here (measured order of magnitude)."""
GPU_FLOPS = 100e12
"""The same for one data-centre GPU in bfloat16 at moderate utilisation; both only scale the estimate of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldDates:
    """A fold as a person reads it: ISO dates in exchange time, and numbers of bars before purging."""

    train_start: str
    train_end: str
    validation_start: str
    validation_end: str
    n_train: int
    n_validation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Parameters and estimated peak memory of one config."""

    n_parameters: int
    memory_bytes: int
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that `show` prints."""

    family: str
    data: str
    marks: Mapping[str, str]
    parameters: Sequence[tuple[str, str, str]]
    folds: Sequence[FoldDates]
    vault: tuple[str, str]
    ladder: Sequence[Rung]
    visits: Sequence[float]
    n_trials: int
    optimizer: str
    stopping: str
    smallest: ModelSize
    largest: ModelSize
    seconds: float
    n_concurrent: int
    on_gpu: bool
    points: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]


def expected_visits(n_trials: int, ladder: Sequence[Rung], milestones: Sequence[int], eta: int) -> list[float]:
    """Return how many trials are expected to reach each rung: a share 1/eta goes on from each milestone.

    Args:
        n_trials: Trials asked for.
        ladder: The rungs.
        milestones: Numbers of complete folds after which the stopping rule decides; empty: it never does.
        eta: One in eta goes on.
    """
    return [n_trials / eta ** sum(m <= rung.fold for m in milestones) for rung in ladder]


def training_seconds(flops_a_fold: float, visits: Sequence[float], rungs_per_fold: int, *, on_gpu: bool) -> float:
    """Return the expected seconds of training of all trials one after another, from operations of one trial's fold."""
    rate = GPU_FLOPS if on_gpu else CPU_FLOPS
    return sum(visits) / rungs_per_fold * flops_a_fold / rate


def show(console: Console, plan: Plan) -> None:
    """Print the plan."""
    console.print(f"[bold]{plan.family}[/bold] on {plan.data}")
    for name, text in plan.marks.items():
        console.print(f"  [yellow]{name}: {text}[/yellow]")
    console.print(_parameters(plan))
    console.print(_folds(plan))
    console.print(f"vault (no trial reads it): {plan.vault[0]} to {plan.vault[1]}")
    console.print(f"{plan.n_trials} trials proposed by {plan.optimizer}; stopping rule: {plan.stopping}")
    console.print(_ladder(plan))
    for name, size in (("smallest", plan.smallest), ("largest", plan.largest)):
        console.print(f"{name} model: {size.n_parameters:,} parameters, about {_bytes(size.memory_bytes)} in training")
    where = "GPU" if plan.on_gpu else "CPU"
    wall = plan.seconds / max(plan.n_concurrent, 1)
    console.print(
        f"about {_duration(plan.seconds)} of {where} time in training; {_duration(wall)} with "
        f"{plan.n_concurrent} at once (an order of magnitude, from operation counts)"
    )
    console.print("three points of the space:")
    for point in plan.points:
        console.print("  " + ", ".join(f"{k}={_value(v)}" for k, v in point.items()), style="dim", highlight=False)
    for warning in plan.warnings:
        console.print(f"[yellow]warning: {warning}[/yellow]")


def _parameters(plan: Plan) -> Table:
    table = Table("parameter", "range", "when", title="what varies", title_justify="left", box=None, pad_edge=False)
    for name, reach, when in plan.parameters:
        table.add_row(name, reach, when)
    return table


def _folds(plan: Plan) -> Table:
    table = Table(
        "fold",
        "training",
        "bars",
        "validation",
        "bars",
        title="walk-forward folds, before purging",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for i, fold in enumerate(plan.folds):
        table.add_row(
            str(i),
            f"{fold.train_start} to {fold.train_end}",
            f"{fold.n_train:,}",
            f"{fold.validation_start} to {fold.validation_end}",
            f"{fold.n_validation:,}",
        )
    return table


def _ladder(plan: Plan) -> Table:
    table = Table(
        "rung",
        "fold",
        "share of its epochs",
        "trials expected",
        title="ladder",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for rung, visits in zip(plan.ladder, plan.visits, strict=True):
        table.add_row(str(rung.index), str(rung.fold), f"{rung.share:.0%}", f"{math.ceil(visits)}")
    return table


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if n < 1024 or unit == "TiB":
            return f"{n:.0f} {unit}" if n >= 10 else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError("unreachable")


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
