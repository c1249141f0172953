"""The walk over folds that all families share: an assignment goes in, one report per rung comes out."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainables import catalogue
from trainables.data.config import DataConfig, FinalFolds, FoldsConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldPlan, FoldRows, fold_rows, plan_folds
from trainables.data.loader import load_times
from trainables.fidelity import Fidelity
from trainables.protocol import Assignment, RungReport, heartbeat_file, is_out_of_memory
from trainables.training.artifact import save_model, save_training_metrics
from trainables.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from trainables.training.curves import Curves
from trainables.training.evaluation import loss_blocks
from trainables.training.evidence import write_evidence
from trainables.training.family import Family
from trainables.training.fold import Assessment, FoldTraining
from trainables.training.heartbeat import Heartbeat
from trainables.training.loop import OnStep, StepReport
from trainables.training.options import RunOptions
from trainables.training.precision import apply_flags, check_precision
from trainables.training.workers import Workers, join_workers, wait_for_all

SPLIT_AFTER_OUT_OF_MEMORY = 2
"""Halves of a micro-batch that the one retry of SEARCH-9 trains on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
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

    def splitting(self, split: int) -> _Walk:
        """Return the walk with every micro-batch in `split` parts."""
        return replace(self, options=self.options.model_copy(update={"split": split}))

    @property
    def folder(self) -> Path:
        return Path(self.assignment.run_dir) / "checkpoints" / self.assignment.trial_id

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
        }


def run_trial(assignment: Assignment, on_step: OnStep | None = None) -> Iterator[RungReport]:
    """Run a trial rung by rung; see `trainables.protocol.RunTrial`. Requirements: TRAIN-15, WF-5, WF-6, REPRO-1.

    Below `run_dir`, each written whole or not at all: `evidence/<trial>/fold-NN.parquet` when a fold is complete, a
    checkpoint after every rung in `checkpoints/<trial>/`, and there at the end the model and `training_metrics.json`.
    After a kill the same assignment goes on from the newest valid checkpoint and repeats its report first.
    A trial that runs out of memory goes on from there once with half the micro-batch and twice the accumulation, which
    is the same effective batch (SEARCH-9, TRAIN-6); its metric `micro_batches` tells.

    Args:
        assignment: The trial.
        on_step: Called after every optimiser step.

    Raises:
        ValueError: Config, sections or options are wrong, the ladder leaves the folds, or a checkpoint of another
            configuration lies in the way (`CheckpointMismatch`).
        DataError: The data cannot be used.
        TrialDiverged: Training left the finite numbers.
        torch.OutOfMemoryError: It did not fit, the second time too.
    """
    walk = _prepare(assignment, on_step)
    resumed = newest_checkpoint(walk.folder, walk.identity)
    wait_for_all(walk.workers)  # before the first of them writes another one
    if resumed:
        walk = walk.splitting(max(walk.options.split, resumed.split))
        yield resumed.report
    try:
        yield from _climb(walk, resumed)
        return
    except (RuntimeError, MemoryError) as error:
        if not (walk.can_split and is_out_of_memory(error)):
            raise
        log.warning("%s: %s; once more with half the micro-batch", assignment.trial_id, str(error).partition("\n")[0])
    gc.collect()
    if walk.device.type == "cuda":
        torch.cuda.empty_cache()
    yield from _climb(walk.splitting(SPLIT_AFTER_OUT_OF_MEMORY), newest_checkpoint(walk.folder, walk.identity))


def _climb(walk: _Walk, resumed: Checkpoint | None) -> Iterator[RungReport]:
    """Visit the rungs after that of the checkpoint, or all of them."""
    ladder = walk.assignment.ladder
    completed = resumed.completed if resumed else ()
    training: FoldTraining | None = None
    try:
        for rung in range(resumed.report.rung + 1 if resumed else 0, len(ladder)):
            started = time.perf_counter()
            fold, share = ladder[rung]
            if training is None or training.fold != fold:
                if training is not None:
                    training.close()
                training = _open_fold(walk, fold, resumed)
            objective = training.train_to(share)
            assessment = training.assess()
            report = RungReport(
                rung=rung,
                fold=fold,
                share=share,
                metrics={**assessment.metrics, **objective},
                n_scored=len(training.scored_time),
                seconds=time.perf_counter() - started,
                blocks=loss_blocks(assessment.score.loss),
            )
            completed = (*completed, report) if share >= 1.0 else completed
            _keep(walk, training, assessment, report, completed)
            yield report
    finally:
        if training is not None:
            training.close()


def _prepare(assignment: Assignment, on_step: OnStep | None) -> _Walk:
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
    return _Walk(
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


def _open_fold(walk: _Walk, fold: int, resumed: Checkpoint | None) -> FoldTraining:
    """Start a fold afresh, or in the middle where the checkpoint stands."""
    rows = fold_rows(
        walk.plan.windows[fold],
        walk.dataset,
        lookback=walk.config.lookback,
        scored_lookback=max(walk.config.lookback, type(walk.config).scored_lookback(walk.assignment.reach)),
        embargo=walk.folds.embargo_days,
    )
    training = FoldTraining(
        walk.family,
        walk.config,
        walk.dataset,
        _share_of(rows, walk.fidelity.data_frac),
        fold=fold,
        seed=walk.assignment.seed,
        options=walk.options,
        device=walk.device,
        workers=walk.workers,
        on_step=walk.on_step,
    )
    if resumed is not None and resumed.report.fold == fold:
        training.restore(resumed)
    return training


def _share_of(rows: FoldRows, data_frac: float) -> FoldRows:
    """Return the fold with the last share of its training rows; what is scored stays the same (SEARCH-16)."""
    return replace(rows, train=rows.train[-math.ceil(data_frac * len(rows.train)) :])


def _keep(
    walk: _Walk,
    training: FoldTraining,
    assessment: Assessment,
    report: RungReport,
    completed: tuple[RungReport, ...],
) -> None:
    """Write what the rung leaves behind; the checkpoint last, for it says that the rest is there."""
    is_complete, is_last = report.share >= 1.0, report.rung == len(walk.assignment.ladder) - 1
    captured, judge = training.capture(), training.judge() if is_last else None  # all processes exchange partitions
    if not walk.workers.is_first:
        return
    if is_complete:
        path = Path(walk.assignment.run_dir) / "evidence" / walk.assignment.trial_id / f"fold-{report.fold:02d}.parquet"
        write_evidence(path, training.scored_time, assessment.score, _metadata(walk, report))
    if walk.curves is not None:
        walk.curves.write()
    if judge is not None:
        _save_results(walk, training, judge, completed)
    checkpoint = Checkpoint(report=report, completed=completed, **captured)
    if is_complete:  # the next fold starts afresh: only the weights are worth keeping
        checkpoint = replace(checkpoint, engine=replace(checkpoint.engine, moments={}), best={})
    write_checkpoint(walk.folder, checkpoint, walk.identity, keep=walk.options.keep_checkpoints)


def _metadata(walk: _Walk, report: RungReport) -> dict[str, str]:
    return {
        "trial_id": walk.assignment.trial_id,
        "family": walk.assignment.family,
        "fold": str(report.fold),
        "seed": str(walk.assignment.seed),
        "data_snapshot": walk.dataset.snapshot,
        "marks": json.dumps(walk.marks),
        "scale": walk.fidelity.scale,
    }


def _save_results(walk: _Walk, training: FoldTraining, judge: nn.Module, completed: tuple[RungReport, ...]) -> None:
    given = walk.assignment
    about = {
        "trial_id": given.trial_id,
        "seed": given.seed,
        "fold": training.fold,
        "data": dict(given.data),
        "folds": dict(given.folds),
        "data_snapshot": walk.dataset.snapshot,
        "marks": walk.marks,
    }
    save_model(
        walk.folder,
        judge.state_dict(),
        family=given.family,
        config=training.config.model_dump(mode="json"),
        normaliser=training.normaliser,
        about=about,
    )
    save_training_metrics(walk.folder, completed)
    walk.family.export(walk.folder)
