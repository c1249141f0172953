"""The walk over folds that all families share: an assignment goes in, one report per rung comes out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from trainables import catalogue
from trainables.data.config import DataConfig, FinalFolds, FoldsConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldPlan, FoldRows, fold_rows, plan_folds
from trainables.data.loader import load_times
from trainables.protocol import Assignment, RungReport
from trainables.training.artifact import DESCRIPTION, WEIGHTS, rename_model, save_model, save_training_metrics
from trainables.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from trainables.training.engine import choose_engine
from trainables.training.evaluation import loss_blocks
from trainables.training.evidence import write_evidence
from trainables.training.family import Family
from trainables.training.fold import Assessment, FoldTraining
from trainables.training.inheritance import load_fold_weights, save_fold_weights, source_fold, weights_file
from trainables.training.options import RunOptions
from trainables.training.precision import apply_flags, check_precision
from trainables.training.results import (
    EVIDENCE,
    FOLD_WEIGHTS,
    FoldResult,
    code_digest,
    find_result,
    identity_of,
    keep_result,
    link,
)


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
            "inherit": dict(given.inherit),
        }

    @property
    def origin(self) -> str:
        """What a later run shall call this trial."""
        return f"{Path(self.assignment.run_dir).resolve().name}/{self.assignment.trial_id}"

    def evidence_file(self, fold: int) -> Path:
        return Path(self.assignment.run_dir) / "evidence" / self.assignment.trial_id / f"fold-{fold:02d}.parquet"

    def weights_file(self, fold: int) -> Path:
        return weights_file(Path(self.assignment.run_dir), self.assignment.trial_id, fold)


def run_trial(assignment: Assignment) -> Iterator[RungReport]:
    """Run a trial rung by rung; see `trainables.protocol.RunTrial`. Requirements: TRAIN-15, WF-5, WF-6, REPRO-1.

    Below `run_dir`, each written whole or not at all: `evidence/<trial>/fold-NN.parquet` when a fold is complete, a
    checkpoint after every rung in `checkpoints/<trial>/`, and there at the end the model and `training_metrics.json`.
    After a kill the same assignment goes on from the newest valid checkpoint and repeats its report first. A fold whose
    result is in `options["reuse_dir"]` is not trained: its files are linked into the run folder, its reports repeated.

    Raises:
        ValueError: Config, sections or options are wrong, the ladder leaves the folds, or a checkpoint of another
            configuration lies in the way (`CheckpointMismatch`).
        LeakError: Weights would be inherited from a later fold.
        DataError: The data cannot be used.
        TrialDiverged: Training left the finite numbers.
    """
    walk = _prepare(assignment)
    resumed = newest_checkpoint(walk.folder, walk.identity)
    completed = list(resumed.completed) if resumed else []
    first = 0
    if resumed:
        first = resumed.report.rung + 1
        yield resumed.report
    for fold, rungs in groupby(range(first, len(assignment.ladder)), key=lambda rung: assignment.ladder[rung][0]):
        visit = _visit(walk, fold, tuple(rungs))
        known = None if resumed and resumed.report.fold == fold else visit.known_result()
        if known is not None:
            yield from _taken_over(visit, known, completed)
        else:
            yield from _trained(visit, resumed, completed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """A fold that the walk has come to, and what its result follows from."""

    walk: _Walk
    fold: int
    rungs: tuple[int, ...]
    rows: FoldRows
    weights: Mapping[str, Tensor] | None

    @property
    def identity(self) -> str:
        """The name of this fold's result: whatever could change a number in it is part of it (decision 6)."""
        walk, given = self.walk, self.walk.assignment
        inherited = safetensors.torch.save(dict(self.weights)) if self.weights is not None else b""
        return identity_of(
            {
                "family": given.family,
                "code": code_digest(given.family),
                "torch": torch.__version__,
                "config": walk.config.model_dump(mode="json"),
                "seed": given.seed,
                "fold": self.fold,
                "window": asdict(walk.plan.windows[self.fold]),
                "data": self._data_digest(),
                "shares": [share for fold, share in given.ladder if fold == self.fold],
                "inherited": _digest(inherited),
                "engine": choose_engine(walk.options.engine),
                "device": walk.device.type,
                "options": walk.options.model_dump(
                    mode="json", exclude={*RunOptions.BESIDE_THE_RESULT, "engine", "device"}
                ),
            }
        )

    def _data_digest(self) -> str:
        """Return the hash of every number that the fold is trained and scored on, and of the times of its rows.

        The content itself, not the data set's own name: a space that allows one more horizon names its data sets anew.
        """
        data, rows = self.walk.dataset, self.rows
        first = int(min(rows.train[0], rows.validation[0])) - self.walk.config.lookback + 1
        used = slice(0 if "leaky" in self.walk.marks else first, int(max(rows.train[-1], rows.validation[-1])) + 1)
        digest = hashlib.sha256(json.dumps([data.feature_names, data.target_names]).encode())
        places = (rows.train - used.start, rows.validation - used.start)
        for array in (data.features[used], data.targets[used], data.known_time[used], *places):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def files(self) -> dict[str, Path]:
        """Name in the store -> file in the run folder, of all that a result of this fold must have."""
        walk = self.walk
        found = {EVIDENCE: walk.evidence_file(self.fold)}
        if walk.options.keep_fold_weights:
            found[FOLD_WEIGHTS] = walk.weights_file(self.fold)
        if self.rungs[-1] == len(walk.assignment.ladder) - 1:
            found |= {name: walk.folder / name for name in (WEIGHTS, DESCRIPTION)}
        return found

    def known_result(self) -> FoldResult | None:
        """Return the result of an earlier training of exactly this fold, if the store has it."""
        store = self.walk.options.reuse_dir
        return None if store is None else find_result(Path(store), self.identity, list(self.files))

    def keep(self, reports: Sequence[RungReport]) -> None:
        """Give a complete fold to the store; one that went on from a checkpoint has lost its early reports."""
        store = self.walk.options.reuse_dir
        shares = [share for fold, share in self.walk.assignment.ladder if fold == self.fold]
        if store is not None and [report.share for report in reports] == shares:
            keep_result(Path(store), self.identity, reports, self.files, origin=self.walk.origin)


def _visit(walk: _Walk, fold: int, rungs: tuple[int, ...]) -> _Visit:
    rows = fold_rows(
        walk.plan.windows[fold],
        walk.dataset,
        lookback=walk.config.lookback,
        scored_lookback=max(walk.config.lookback, type(walk.config).scored_lookback(walk.assignment.reach)),
        embargo=walk.folds.embargo_days,
    )
    inherit, weights = walk.assignment.inherit, None
    source = source_fold(inherit, fold, walk.plan.windows) if inherit else None
    if source is not None:
        weights = load_fold_weights(weights_file(Path(walk.assignment.run_dir), inherit["trial_id"], source))
    return _Visit(walk=walk, fold=fold, rungs=rungs, rows=rows, weights=weights)


def _trained(visit: _Visit, resumed: Checkpoint | None, completed: list[RungReport]) -> Iterator[RungReport]:
    """Train a fold, or the rest of it, and yield the report of each rung; `completed` grows at its end."""
    walk, reports = visit.walk, []
    started = time.perf_counter()
    with closing(_open_fold(visit, resumed)) as training:
        for rung in visit.rungs:
            share = walk.assignment.ladder[rung][1]
            objective = training.train_to(share)
            assessment = training.assess()
            report = RungReport(
                rung=rung,
                fold=visit.fold,
                share=share,
                metrics={**assessment.metrics, **objective, **_size(walk.config)},
                n_scored=len(training.scored_time),
                seconds=time.perf_counter() - started,
                blocks=loss_blocks(assessment.score.loss),
            )
            reports.append(report)
            if share >= 1.0:
                completed.append(report)
            _keep(walk, training, assessment, report, tuple(completed))
            if share >= 1.0:
                visit.keep(reports)
            yield report
            started = time.perf_counter()


def _taken_over(visit: _Visit, known: FoldResult, completed: list[RungReport]) -> Iterator[RungReport]:
    """Repeat the reports of a fold that was trained before; its files stand in the run folder before the last one."""
    walk = visit.walk
    for rung, before in zip(visit.rungs, known.reports, strict=True):
        started = time.perf_counter()
        if before.share >= 1.0:
            for name, path in visit.files.items():
                link(known.folder / name, path)
        report = replace(before, rung=rung, seconds=time.perf_counter() - started, reused_from=known.origin)
        if before.share >= 1.0:
            completed.append(report)
        if rung == len(walk.assignment.ladder) - 1:
            rename_model(walk.folder, walk.assignment.trial_id)
            save_training_metrics(walk.folder, completed)
        yield report


def _size(config: Any) -> dict[str, float]:
    """Return what is known of a model without training it; constraints and objectives may name it."""
    return {"n_parameters": float(config.n_parameters()), "memory_bytes": float(config.memory_bytes())}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


def _open_fold(visit: _Visit, resumed: Checkpoint | None) -> FoldTraining:
    """Start a fold afresh, or in the middle where the checkpoint stands."""
    walk = visit.walk
    training = FoldTraining(
        walk.family,
        walk.config,
        walk.dataset,
        visit.rows,
        fold=visit.fold,
        seed=walk.assignment.seed,
        options=walk.options,
        device=walk.device,
        weights=visit.weights,
    )
    if resumed is not None and resumed.report.fold == visit.fold:
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
        path = walk.evidence_file(report.fold)
        write_evidence(path, training.scored_time, assessment.score, _metadata(walk, report))
        if walk.options.keep_fold_weights:
            save_fold_weights(walk.weights_file(report.fold), training.judge().state_dict())
    if report.rung == len(walk.assignment.ladder) - 1:
        _save_results(walk, training, completed)
    checkpoint = Checkpoint(report=report, completed=completed, **training.capture())
    if is_complete:  # the next fold starts afresh: only the weights are worth keeping
        checkpoint = replace(checkpoint, engine=replace(checkpoint.engine, moments={}))
    write_checkpoint(walk.folder, checkpoint, walk.identity, keep=walk.options.keep_checkpoints)


def _metadata(walk: _Walk, report: RungReport) -> dict[str, str]:
    return {
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
