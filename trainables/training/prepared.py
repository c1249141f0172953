"""An assignment made ready: everything in it validated and loaded, before a fold is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trainables import catalogue
from trainables.data.config import DataConfig, FinalFolds, FoldsConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldPlan, plan_folds
from trainables.data.loader import load_times
from trainables.fidelity import Fidelity
from trainables.protocol import Assignment, heartbeat_file
from trainables.training.curves import Curves
from trainables.training.family import Family
from trainables.training.heartbeat import Heartbeat
from trainables.training.inheritance import weights_file
from trainables.training.loop import OnStep, StepReport
from trainables.training.options import RunOptions
from trainables.training.precision import apply_flags, check_precision
from trainables.training.workers import Workers, join_workers

SPLIT_AFTER_OUT_OF_MEMORY = 2
"""Halves of a micro-batch that the one retry of SEARCH-9 trains on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An assignment with everything in it validated and loaded."""

    assignment: Assignment
    family: Family
    config: Any
    folds: FoldsConfig
    options: RunOptions
    device: torch.device
    dataset: Dataset
    plan: FoldPlan
    fidelity: Fidelity
    workers: Workers
    curves: Curves | None
    listeners: tuple[OnStep, ...]

    def on_step(self, step: StepReport) -> None:
        """Tell of an optimiser step: a sign of life, the curves, and whoever asked."""
        for listener in self.listeners:
            listener(step)

    @property
    def can_split(self) -> bool:
        """Whether a retry with half the micro-batch may help: there was none yet, and there are halves.

        Of several processes one alone may be out of memory, so they are started anew together, by whoever did.
        """
        runs = self.config.batch_size // self.config.consecutive_rows
        return self.options.split == 1 and runs >= SPLIT_AFTER_OUT_OF_MEMORY and self.workers.size == 1

    def splitting(self, split: int) -> Prepared:
        """Return the same with every micro-batch in `split` parts."""
        return replace(self, options=self.options.model_copy(update={"split": split}))

    @property
    def folder(self) -> Path:
        return Path(self.assignment.run_dir) / "checkpoints" / self.assignment.trial_id

    @property
    def store(self) -> Path | None:
        """Folder of fold results that are never trained twice.

        Several processes would have to agree on what is there: they train everything.
        """
        given = self.options.reuse_dir
        return None if given is None or self.workers.size > 1 else Path(given)

    @property
    def origin(self) -> str:
        """What a later run shall call this trial."""
        return f"{Path(self.assignment.run_dir).resolve().name}/{self.assignment.trial_id}"

    @property
    def marks(self) -> dict[str, str]:
        """What the reader of a result must know: what is modelled, and whether scaling saw validation rows."""
        is_leaky = self.config.norm_scope == "global_documented"
        return {**self.dataset.marks, **({"leaky": "norm_scope: global_documented"} if is_leaky else {})}

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued; `options` are not part of it."""
        given = self.assignment
        return {
            "family": given.family,
            "config": self.config.model_dump(mode="json"),
            "folds": self.folds.model_dump(mode="json"),
            "ladder": [list(point) for point in given.ladder],
            "seed": given.seed,
            "data_snapshot": self.dataset.snapshot,
            "n_workers": given.n_workers,
            "fidelity": self.fidelity.model_dump(mode="json"),
            "inherit": dict(given.inherit),
        }

    def evidence_file(self, fold: int) -> Path:
        return Path(self.assignment.run_dir) / "evidence" / self.assignment.trial_id / f"fold-{fold:02d}.parquet"

    def weights_file(self, fold: int) -> Path:
        return weights_file(Path(self.assignment.run_dir), self.assignment.trial_id, fold)


def prepare(assignment: Assignment, on_step: OnStep | None) -> Prepared:
    """Validate an assignment and load its data set; errors are those of `walk.run_trial`."""
    workers = join_workers(assignment.n_workers)
    fidelity: Fidelity = _validated(Fidelity, assignment.fidelity)
    config = _validated(catalogue.config_class(assignment.family), assignment.config)
    config = config.at_fidelity(width_frac=fidelity.width_frac, depth_frac=fidelity.depth_frac)
    data = _validated(DataConfig, assignment.data)
    folds = _validated(FinalFolds if "opening" in assignment.folds else FoldsConfig, assignment.folds)
    options = _validated(RunOptions, assignment.options)
    device = _device(options, workers)
    check_precision(config.precision, device)
    apply_flags(config.precision, deterministic=options.deterministic)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    family = catalogue.family(assignment.family)
    plan = _fold_plan(data, folds)
    _check_ladder(assignment.ladder, len(plan.windows))
    listeners: list[OnStep] = [] if on_step is None else [on_step]
    curves = None
    if workers.is_first:
        heartbeat = Heartbeat(heartbeat_file(assignment.run_dir, assignment.trial_id))
        heartbeat.beat()
        listeners.append(heartbeat.beat)
    if workers.is_first and options.curves:
        curves = Curves(Path(assignment.run_dir) / "curves" / assignment.trial_id, lookback=config.lookback)
        listeners.append(curves.add)
    dataset = family.dataset(config, data, folds, assignment.reach, Path(assignment.run_dir) / "store")
    return Prepared(
        assignment=assignment,
        family=family,
        config=config,
        folds=folds,
        options=options,
        device=device,
        dataset=dataset,
        plan=plan,
        fidelity=fidelity,
        workers=workers,
        curves=curves,
        listeners=tuple(listeners),
    )


def _validated(model: Any, values: Mapping[str, Any]) -> Any:
    """Validate JSON values as a strict model: lists may become tuples."""
    return model.model_validate_json(json.dumps(values))


def _device(options: RunOptions, workers: Workers) -> torch.device:
    """Return where to train; of several processes on a machine each has the GPU of its local rank."""
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or workers.size == 1:
        return torch.device(name)
    device = torch.device(name, int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def _check_ladder(ladder: tuple[tuple[int, float], ...], n_folds: int) -> None:
    """Refuse a ladder that goes back, or beyond the folds of the data."""
    points = [(fold, share) for fold, share in ladder]
    if not points or points != sorted(set(points)) or not all(fold >= 0 and 0 < share <= 1 for fold, share in points):
        raise ValueError(f"ladder: expected (fold, share) in increasing order with shares in (0, 1], found {ladder}")
    if ladder[-1][0] >= n_folds:
        raise ValueError(
            f"ladder: expected folds below {n_folds}, found {ladder[-1][0]}; the data have {n_folds} folds"
        )


@lru_cache(maxsize=4)
def _fold_plan(data: DataConfig, folds: FoldsConfig) -> FoldPlan:
    """Plan the folds; once per process, for it reads the times of all bars."""
    return plan_folds(load_times(data, folds), folds)
