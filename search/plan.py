"""What a search is going to do, before it does it: the table that `--dry-run` prints. Imports neither torch nor ray."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from .seeding import generator
from .settings import Asha, Dominated, FoldRacing, Hyperband, NoStopping, Predicted, SpaceFile
from .space import Space
from .stopping.hyperband import bracket_order, bracket_starts
from .trial import Rung
from .validity import infeasible_reason

Stopping = Asha | Hyperband | FoldRacing | Predicted | Dominated | NoStopping
CPU_FLOPS = 8e9
"""Floating-point operations a second of small float32 models on one core. It and the next three only scale times."""
GPU_FLOPS = 100e12
"""The same for one data-centre GPU in bfloat16."""
STEP_S = 0.015
"""Seconds of an optimiser step besides arithmetic."""
FOLD_S = 2.0
"""Seconds of a fold besides training: engine, scores, curvature, checkpoint."""


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
    seconds: Sequence[float]
    n_concurrent: int
    on_gpu: bool
    points: Sequence[Mapping[str, Any]]


def expected_visits(n_trials: int, ladder: Sequence[Rung], stopping: Stopping) -> list[float]:
    """Return how many trials reach each rung: what the rule aims at, or at most where it depends on the results.

    ASHA lets one in eta go on from each of its milestones, and so does each bracket of Hyperband. Fold racing drops
    only who is shown to be worse, and dominance only who is dominated, which no plan can know: all trials may reach
    every rung.

    Args:
        n_trials: Trials asked for.
        ladder: The rungs.
        stopping: The section `search.stopping`.
    """
    if not isinstance(stopping, Asha | Hyperband):
        return [float(n_trials)] * len(ladder)
    n_folds, eta = ladder[-1].fold + 1, stopping.eta
    starts: tuple[int, ...] = (stopping.min_folds,)
    order: tuple[int, ...] = (0,)
    if isinstance(stopping, Hyperband):
        starts = bracket_starts(n_folds, stopping.min_folds, eta)
        order = bracket_order(len(starts), eta)
    shares = [order.count(bracket) / len(order) for bracket in range(len(starts))]

    def kept(start: int, rung: Rung) -> float:
        return float(eta ** -sum(start * eta**k <= rung.fold for k in range(20)))

    return [n_trials * sum(s * kept(start, rung) for s, start in zip(shares, starts, strict=True)) for rung in ladder]


def describe_optimizer(spec: SpaceFile) -> str:
    """Return who proposes, and what it may not propose yet."""
    unlock = spec.search.unlock
    if unlock is None:
        return spec.search.optimizer
    waiting = ", ".join(map(str, unlock.locked))
    return (
        f"{spec.search.optimizer}, {unlock.parameter} {waiting} only after {unlock.metric} above {unlock.above:g} and "
        f"above {unlock.baseline} + {unlock.margin:g}"
    )


def describe_stopping(stopping: Stopping, ladder: Sequence[Rung]) -> str:
    """Return the stopping rule in a few words.

    Raises:
        ValueError: Hyperband's first milestone lies beyond the ladder.
    """
    n_folds = ladder[-1].fold + 1
    if isinstance(stopping, Asha):
        return f"asha, one in {stopping.eta} goes on"
    if isinstance(stopping, Dominated):
        return f"dominated, about one in {stopping.eta} goes on and all that nothing dominates (trials: at most)"
    if isinstance(stopping, Hyperband):
        starts = bracket_starts(n_folds, stopping.min_folds, stopping.eta)
        return f"hyperband, one in {stopping.eta} goes on, in brackets from fold {', '.join(map(str, starts))}"
    if isinstance(stopping, FoldRacing):
        last = n_folds - stopping.final_folds
        looks = f"looks after {stopping.min_folds} to {last} folds"
        return f"fold racing, alpha {stopping.alpha:g}, margin {stopping.margin:g}, {looks} (trials and hours: at most)"
    if isinstance(stopping, Predicted):
        return f"predicted, goes on at a chance of {stopping.chance:g} to end best (trials and hours: at most)"
    return "none"


def training_seconds(
    visits: Sequence[float],
    ladder: Sequence[Rung],
    n_train: Sequence[int],
    *,
    flops: float,
    n_steps: float,
    on_gpu: bool,
) -> list[float]:
    """Return the expected seconds of all trials at each rung, on one device after another.

    Args:
        visits: Trials expected at each rung.
        ladder: The rungs.
        n_train: Training bars of each fold.
        flops: Floating-point operations of training on one bar, all epochs together.
        n_steps: Optimiser steps for one bar, all epochs together.
        on_gpu: Whether trials run on a GPU.
    """
    bar_s = flops / (GPU_FLOPS if on_gpu else CPU_FLOPS) + n_steps * STEP_S
    rungs_per_fold = len(ladder) / (ladder[-1].fold + 1)
    return [v / rungs_per_fold * (n_train[r.fold] * bar_s + FOLD_S) for v, r in zip(visits, ladder, strict=True)]


class Outline(Protocol):
    """What the plan reads of the market: `trainables.data.loader.MarketOutline`."""

    @property
    def plan(self) -> Any: ...
    @property
    def known_time(self) -> NDArray[np.int64]: ...
    @property
    def marks(self) -> Mapping[str, str]: ...


def gather(spec: SpaceFile, config_class: Any, market: Outline, ladder: Sequence[Rung], seed: int) -> Plan:
    """Return the plan of a search that was checked.

    Args:
        spec: The space file.
        config_class: The family's config; its formulas give sizes without building a model.
        market: Folds, times of the bars and marks.
        ladder: The rungs.
        seed: Of the search; draws the points that are shown.
    """
    space, stopping = spec.space(), spec.search.stopping
    visits = expected_visits(spec.budget.trials, ladder, stopping)
    sizes = sorted(_sizes(space, config_class, seed), key=lambda size: size.n_parameters)
    folds = fold_dates(market)
    typical = config_class.model_validate_json(json.dumps(sizes[len(sizes) // 2].config))
    on_gpu = spec.resources.gpus_per_trial > 0
    times = market.known_time
    return Plan(
        family=spec.family,
        data=f"{getattr(spec.data, 'source', '')}: {len(times):,} bars, {day(times[0])} to {day(times[-1])}",
        marks=market.marks,
        parameters=[(row.name, row.span, row.when) for row in space.describe() if not row.when.startswith("never")],
        folds=folds,
        vault=(day(market.plan.vault_start), day(market.plan.vault_end - 1)),
        ladder=ladder,
        visits=visits,
        n_trials=spec.budget.trials,
        optimizer=describe_optimizer(spec),
        stopping=describe_stopping(stopping, ladder),
        smallest=sizes[0],
        largest=sizes[-1],
        seconds=training_seconds(
            visits,
            ladder,
            [fold.n_train // typical.training_stride for fold in folds],
            flops=3 * typical.forward_flops() * typical.epochs,
            n_steps=typical.epochs / (typical.batch_size * typical.accum_steps),
            on_gpu=on_gpu,
        ),
        n_concurrent=spec.resources.max_concurrent or 1,
        on_gpu=on_gpu,
        points=[space.sample(generator(seed, "plan", i)) for i in range(3)],
    )


def fold_dates(market: Outline) -> list[FoldDates]:
    """Return the folds as ISO dates in New York with their numbers of bars before purging."""
    times = market.known_time

    def count(start: int, end: int) -> int:
        return int(np.searchsorted(times, end) - np.searchsorted(times, start))

    return [
        FoldDates(
            train_start=day(max(w.train_start, int(times[0]))),
            train_end=day(w.train_end - 1),
            validation_start=day(w.validation_start),
            validation_end=day(w.validation_end - 1),
            n_train=count(w.train_start, w.train_end),
            n_validation=count(w.validation_start, w.validation_end),
        )
        for w in market.plan.windows
    ]


def day(instant_ns: int) -> str:
    """Return the ISO date in New York of an instant, ns UTC."""
    return (
        datetime.fromtimestamp(int(instant_ns) / 1e9, UTC).astimezone(ZoneInfo("America/New_York")).date().isoformat()
    )


def _sizes(space: Space, config_class: Any, seed: int) -> list[ModelSize]:
    """Return the sizes of feasible configs: both corners of the space and 200 points of it."""
    corners = [space.decode(np.full(len(space.free), end)) for end in (0.0, 1.0)]
    drawn = [space.sample(generator(seed, "sizes", i)) for i in range(200)]
    feasible = [c for c in (*corners, *drawn) if infeasible_reason(c, config_class) is None]
    models = [(c, config_class.model_validate_json(json.dumps(c))) for c in feasible]
    return [ModelSize(n_parameters=m.n_parameters(), memory_bytes=m.memory_bytes(), config=c) for c, m in models]


def show(console: Console, plan: Plan) -> None:
    """Print the plan."""
    console.print(f"[bold]{plan.family}[/bold] on {plan.data}")
    for name, text in plan.marks.items():
        console.print(f"  [yellow]{name}: {text}[/yellow]")
    console.print(_parameters(plan))
    console.print(_fixed(plan), style="dim", highlight=False)
    console.print(_folds(plan))
    console.print(f"vault (no trial reads it): {plan.vault[0]} to {plan.vault[1]}")
    console.print(f"{plan.n_trials} trials proposed by {plan.optimizer}; stopping rule: {plan.stopping}")
    console.print(_ladder(plan))
    for name, size in (("smallest", plan.smallest), ("largest", plan.largest)):
        console.print(f"{name} model: {size.n_parameters:,} parameters, about {_bytes(size.memory_bytes)} in training")
    where = "GPU" if plan.on_gpu else "CPU"
    total = sum(plan.seconds)
    wall = total / max(plan.n_concurrent, 1)
    console.print(
        f"about {_duration(total)} of {where} time in training; {_duration(wall)} with "
        f"{plan.n_concurrent} at once (an order of magnitude, from operation counts)"
    )
    console.print("three points of the space:")
    for point in plan.points:
        console.print("  " + ", ".join(f"{k}={_value(v)}" for k, v in point.items()), style="dim", highlight=False)


def _parameters(plan: Plan) -> Table:
    table = Table("parameter", "range", "when", title="what varies", title_justify="left", box=None, pad_edge=False)
    for name, reach, when in plan.parameters:
        if not reach.startswith("="):
            table.add_row(name, reach, when)
    return table


def _fixed(plan: Plan) -> str:
    return "fixed: " + ", ".join(f"{name} {reach}" for name, reach, _ in plan.parameters if reach.startswith("="))


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
        f"{'GPU' if plan.on_gpu else 'CPU'}-hours",
        title="ladder",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for rung, visits, seconds in zip(plan.ladder, plan.visits, plan.seconds, strict=True):
        hours = f"{seconds / 3600:.2g}"
        table.add_row(str(rung.index), str(rung.fold), f"{rung.share:.0%}", f"{math.ceil(visits)}", hours)
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
