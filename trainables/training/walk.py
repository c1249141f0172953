"""The walk over folds that all families share: an assignment goes in, one report per rung comes out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trainables import catalogue
from trainables.data.config import DataConfig, FinalFolds, FoldsConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldPlan, fold_rows, plan_folds
from trainables.data.loader import load_times
from trainables.protocol import Assignment, RungReport
from trainables.training.artifact import save_model, save_training_metrics
from trainables.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from trainables.training.evaluation import loss_blocks
from trainables.training.evidence import write_evidence
from trainables.training.family import Family
from trainables.training.fold import Assessment, FoldTraining
from trainables.training.options import RunOptions
from trainables.training.precision import apply_flags, check_precision


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
        }


def run_trial(assignment: Assignment) -> Iterator[RungReport]:
    """Run a trial rung by rung; see `trainables.protocol.RunTrial`. Requirements: TRAIN-15, WF-5, WF-6, REPRO-1.

    Below `run_dir`, each written whole or not at all: `evidence/<trial>/fold-NN.parquet` when a fold is complete, a
    checkpoint after every rung in `checkpoints/<trial>/`, and there at the end the model and `training_metrics.json`.
    After a kill the same assignment goes on from the newest valid checkpoint and repeats its report first.

    Raises:
        ValueError: Config, sections or options are wrong, the ladder leaves the folds, or a checkpoint of another
            configuration lies in the way (`CheckpointMismatch`).
        DataError: The data cannot be used.
        TrialDiverged: Training left the finite numbers.
    """
    walk = _prepare(assignment)
    resumed = newest_checkpoint(walk.folder, walk.identity)
    completed = resumed.completed if resumed else ()
    first = 0
    if resumed:
        first = resumed.report.rung + 1
        yield resumed.report
    training: FoldTraining | None = None
    try:
        for rung in range(first, len(assignment.ladder)):
            started = time.perf_counter()
            fold, share = assignment.ladder[rung]
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


def _prepare(assignment: Assignment) -> _Walk:
    config = _validated(catalogue.config_class(assignment.family), assignment.config)
    data = _validated(DataConfig, assignment.data)
    folds = _validated(FinalFolds if "opening" in assignment.folds else FoldsConfig, assignment.folds)
    options = _validated(RunOptions, assignment.options)
    device = torch.device(_device_name(options))
    check_precision(config.precision, device)
    apply_flags(config.precision, deterministic=options.deterministic)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    family = catalogue.family(assignment.family)
    plan = _fold_plan(data, folds)
    _check_ladder(assignment.ladder, len(plan.windows))
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
    )


def _validated(model: Any, values: Mapping[str, Any]) -> Any:
    """Validate JSON values as a strict model: lists may become tuples."""
    return model.model_validate_json(json.dumps(values))


def _device_name(options: RunOptions) -> str:
    if options.device != "auto":
        return options.device
    return "cuda" if torch.cuda.is_available() else "cpu"


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
        rows,
        fold=fold,
        seed=walk.assignment.seed,
        options=walk.options,
        device=walk.device,
    )
    if resumed is not None and resumed.report.fold == fold:
        training.restore(resumed)
    return training


def _keep(
    walk: _Walk,
    training: FoldTraining,
    assessment: Assessment,
    report: RungReport,
    completed: tuple[RungReport, ...],
) -> None:
    """Write what the rung leaves behind; the checkpoint last, for it says that the rest is there."""
    is_complete = report.share >= 1.0
    if is_complete:
        path = Path(walk.assignment.run_dir) / "evidence" / walk.assignment.trial_id / f"fold-{report.fold:02d}.parquet"
        write_evidence(path, training.scored_time, assessment.score, _metadata(walk, report))
    if report.rung == len(walk.assignment.ladder) - 1:
        _save_results(walk, training, completed)
    checkpoint = Checkpoint(report=report, completed=completed, **training.capture())
    if is_complete:  # the next fold starts afresh: only the weights are worth keeping
        checkpoint = replace(checkpoint, engine=replace(checkpoint.engine, moments={}))
    write_checkpoint(walk.folder, checkpoint, walk.identity, keep=walk.options.keep_checkpoints)


def _metadata(walk: _Walk, report: RungReport) -> dict[str, str]:
    return {
        "trial_id": walk.assignment.trial_id,
        "family": walk.assignment.family,
        "fold": str(report.fold),
        "seed": str(walk.assignment.seed),
        "data_snapshot": walk.dataset.snapshot,
        "marks": json.dumps(walk.marks),
    }


def _save_results(walk: _Walk, training: FoldTraining, completed: tuple[RungReport, ...]) -> None:
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
        training.judge().state_dict(),
        family=given.family,
        config=walk.config.model_dump(mode="json"),
        normaliser=training.normaliser,
        about=about,
    )
    save_training_metrics(walk.folder, completed)
