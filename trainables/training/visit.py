"""One fold of a trial: trained, or taken over from the store of results, and what it leaves in the run folder."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from trainables.data.folds import FoldRows, fold_rows
from trainables.protocol import RungReport
from trainables.training.artifact import DESCRIPTION, WEIGHTS, rename_model, save_model, save_training_metrics
from trainables.training.checkpoint import Checkpoint, write_checkpoint
from trainables.training.engine import choose_engine
from trainables.training.evaluation import loss_blocks
from trainables.training.evidence import write_evidence
from trainables.training.family import Score
from trainables.training.fold import Assessment, FoldTraining
from trainables.training.inheritance import load_fold_weights, save_fold_weights, source_fold, weights_file
from trainables.training.options import RunOptions
from trainables.training.prepared import Prepared
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
class Visit:
    """A fold that a trial has come to, and what its result follows from.

    Attributes:
        trial: The trial.
        fold: Number of the fold.
        rungs: Positions in the ladder that are left in it.
        rows: What is trained on, at the trial's share of data, and what is scored.
        weights: What it begins with, where it inherits.
    """

    trial: Prepared
    fold: int
    rungs: tuple[int, ...]
    rows: FoldRows
    weights: Mapping[str, Tensor] | None

    @property
    def identity(self) -> str:
        """The name of this fold's result: whatever could change a number in it is part of it (decision 6)."""
        trial, given = self.trial, self.trial.assignment
        inherited = safetensors.torch.save(dict(self.weights)) if self.weights is not None else b""
        return identity_of(
            {
                "family": given.family,
                "code": code_digest(given.family),
                "torch": torch.__version__,
                "config": trial.config.model_dump(mode="json"),
                "seed": given.seed,
                "fold": self.fold,
                "window": asdict(trial.plan.windows[self.fold]),
                "data": self._data_digest(),
                "fidelity": trial.fidelity.model_dump(mode="json"),
                "shares": [share for fold, share in given.ladder if fold == self.fold],
                "inherited": _digest(inherited),
                "engine": choose_engine(trial.options.engine),
                "device": trial.device.type,
                "options": trial.options.model_dump(
                    mode="json", exclude={*RunOptions.BESIDE_THE_RESULT, "engine", "device"}
                ),
            }
        )

    def _data_digest(self) -> str:
        """Return the hash of every number that the fold is trained and scored on, and of the times of its rows.

        The content itself, not the data set's own name: a space that allows one more horizon names its data sets anew.
        """
        data, rows = self.trial.dataset, self.rows
        first = int(min(rows.train[0], rows.validation[0])) - self.trial.config.lookback + 1
        used = slice(0 if "leaky" in self.trial.marks else first, int(max(rows.train[-1], rows.validation[-1])) + 1)
        digest = hashlib.sha256(json.dumps([data.feature_names, data.target_names]).encode())
        places = (rows.train - used.start, rows.validation - used.start)
        for array in (data.features[used], data.targets[used], data.known_time[used], *places):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def files(self) -> dict[str, Any]:
        """Name in the store -> file in the run folder, of all that a result of this fold must have."""
        trial = self.trial
        found = {EVIDENCE: trial.evidence_file(self.fold)}
        if trial.options.keep_fold_weights:
            found[FOLD_WEIGHTS] = trial.weights_file(self.fold)
        if self.rungs[-1] == len(trial.assignment.ladder) - 1:
            found |= {name: trial.folder / name for name in (WEIGHTS, DESCRIPTION)}
        return found

    def known_result(self) -> FoldResult | None:
        """Return the result of an earlier training of exactly this fold, if the store has it."""
        store = self.trial.store
        return None if store is None else find_result(store, self.identity, list(self.files))

    def keep(self, reports: Sequence[RungReport]) -> None:
        """Give a complete fold to the store; one that went on from a checkpoint has lost its early reports."""
        store = self.trial.store
        shares = [share for fold, share in self.trial.assignment.ladder if fold == self.fold]
        if store is not None and [report.share for report in reports] == shares:
            keep_result(store, self.identity, reports, self.files, origin=self.trial.origin)


def visit(trial: Prepared, fold: int, rungs: tuple[int, ...]) -> Visit:
    """Come to a fold: find its rows, and the weights that it begins with.

    Raises:
        DataError: Nothing can be trained or scored.
        LeakError: Weights would be inherited from a later fold.
    """
    rows = fold_rows(
        trial.plan.windows[fold],
        trial.dataset,
        lookback=trial.config.lookback,
        scored_lookback=max(trial.config.lookback, type(trial.config).scored_lookback(trial.assignment.reach)),
        embargo=trial.folds.embargo_days,
    )
    inherit, weights = trial.assignment.inherit, None
    source = source_fold(inherit, fold, trial.plan.windows) if inherit else None
    if source is not None:
        weights = load_fold_weights(weights_file(trial.folder.parents[1], inherit["trial_id"], source))
    share = rows.train[-math.ceil(trial.fidelity.data_frac * len(rows.train)) :]  # the last ones (SEARCH-16)
    return Visit(trial=trial, fold=fold, rungs=rungs, rows=replace(rows, train=share), weights=weights)


def trained(at: Visit, resumed: Checkpoint | None, completed: list[RungReport]) -> Iterator[RungReport]:
    """Train a fold, or the rest of it, and yield the report of each rung; `completed` grows at its end."""
    trial, reports = at.trial, []
    started = time.perf_counter()
    with closing(_open_fold(at, resumed)) as training:
        for rung in at.rungs:
            share = trial.assignment.ladder[rung][1]
            objective = training.train_to(share)
            assessment = training.assess()
            report = RungReport(
                rung=rung,
                fold=at.fold,
                share=share,
                metrics={**assessment.metrics, **objective, **_size(trial.config)},
                n_scored=len(training.scored_time),
                seconds=time.perf_counter() - started,
                blocks=loss_blocks(assessment.score.loss),
            )
            reports.append(report)
            if share >= 1.0:
                completed.append(report)
            _keep(trial, training, assessment, report, tuple(completed))
            if share >= 1.0:
                at.keep(reports)
            yield report
            started = time.perf_counter()


def taken_over(at: Visit, known: FoldResult, completed: list[RungReport]) -> Iterator[RungReport]:
    """Repeat the reports of a fold that was trained before; its files stand in the run folder before the last one."""
    trial = at.trial
    for rung, before in zip(at.rungs, known.reports, strict=True):
        started = time.perf_counter()
        if before.share >= 1.0:
            for name, path in at.files.items():
                link(known.folder / name, path)
        report = replace(before, rung=rung, seconds=time.perf_counter() - started, reused_from=known.origin)
        if before.share >= 1.0:
            completed.append(report)
        if rung == len(trial.assignment.ladder) - 1:
            rename_model(trial.folder, trial.assignment.trial_id)
            save_training_metrics(trial.folder, completed)
            trial.family.export(trial.folder)
        yield report


def _open_fold(at: Visit, resumed: Checkpoint | None) -> FoldTraining:
    """Start a fold afresh, or in the middle where the checkpoint stands."""
    trial = at.trial
    training = FoldTraining(
        trial.family,
        trial.config,
        trial.dataset,
        at.rows,
        fold=at.fold,
        seed=trial.assignment.seed,
        options=trial.options,
        device=trial.device,
        workers=trial.workers,
        on_step=trial.on_step,
        weights=at.weights,
    )
    if resumed is not None and resumed.report.fold == at.fold:
        training.restore(resumed)
    return training


def _keep(
    trial: Prepared,
    training: FoldTraining,
    assessment: Assessment,
    report: RungReport,
    completed: tuple[RungReport, ...],
) -> None:
    """Write what the rung leaves behind; the checkpoint last, for it says that the rest is there."""
    is_complete, is_last = report.share >= 1.0, report.rung == len(trial.assignment.ladder) - 1
    has_weights = is_complete and trial.options.keep_fold_weights
    captured = training.capture()  # all processes exchange partitions, here and for the judge
    judge = training.judge() if is_last or has_weights else None
    if not trial.workers.is_first:
        return
    if is_complete:
        write_evidence(
            trial.evidence_file(report.fold), training.scored_time, assessment.score, _metadata(trial, report)
        )
    if trial.curves is not None:
        trial.curves.write()
    if judge is not None and has_weights:
        save_fold_weights(trial.weights_file(report.fold), judge.state_dict())
    if judge is not None and is_last:
        _save_results(trial, training, judge, assessment.score, completed)
    checkpoint = Checkpoint(report=report, completed=completed, **captured)
    if is_complete:  # the next fold starts afresh: only the weights are worth keeping
        checkpoint = replace(checkpoint, engine=replace(checkpoint.engine, moments={}), best={})
    write_checkpoint(trial.folder, checkpoint, trial.identity, keep=trial.options.keep_checkpoints)


def _metadata(trial: Prepared, report: RungReport) -> dict[str, str]:
    return {
        "family": trial.assignment.family,
        "fold": str(report.fold),
        "seed": str(trial.assignment.seed),
        "data_snapshot": trial.dataset.snapshot,
        "marks": json.dumps(trial.marks),
        "scale": trial.fidelity.scale,
    }


def _save_results(
    trial: Prepared, training: FoldTraining, judge: nn.Module, score: Score, completed: tuple[RungReport, ...]
) -> None:
    given = trial.assignment
    about = {
        "trial_id": given.trial_id,
        "seed": given.seed,
        "fold": training.fold,
        "data": dict(given.data),
        "folds": dict(given.folds),
        "data_snapshot": trial.dataset.snapshot,
        "marks": trial.marks,
        "predictions": list(score.predictions()),
    }
    save_model(
        trial.folder,
        judge.state_dict(),
        family=given.family,
        config=training.config.model_dump(mode="json"),
        normaliser=training.normaliser,
        about=about,
    )
    save_training_metrics(trial.folder, completed)
    trial.family.export(trial.folder)


def _size(config: Any) -> dict[str, float]:
    """Return what is known of a model without training it; constraints and objectives may name it."""
    return {"n_parameters": float(config.n_parameters()), "memory_bytes": float(config.memory_bytes())}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
