"""The walk over folds that all families share: an assignment goes in, one report per rung comes out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from itertools import groupby

import torch

from trainables.protocol import Assignment, RungReport, is_out_of_memory
from trainables.training.checkpoint import Checkpoint, newest_checkpoint
from trainables.training.loop import OnStep
from trainables.training.prepared import SPLIT_AFTER_OUT_OF_MEMORY, Prepared, prepare
from trainables.training.visit import taken_over, trained, visit
from trainables.training.workers import wait_for_all

log = logging.getLogger(__name__)


def run_trial(assignment: Assignment, on_step: OnStep | None = None) -> Iterator[RungReport]:
    """Run a trial rung by rung; see `trainables.protocol.RunTrial`. Requirements: TRAIN-15, WF-5, WF-6, REPRO-1.

    Below `run_dir`, each written whole or not at all: `evidence/<trial>/fold-NN.parquet` when a fold is complete, a
    checkpoint after every rung in `checkpoints/<trial>/`, and there at the end the model and `training_metrics.json`.
    After a kill the same assignment goes on from the newest valid checkpoint and repeats its report first. A fold whose
    result is in `options["reuse_dir"]` is not trained: its files are linked into the run folder, its reports repeated.
    A trial that runs out of memory goes on from its checkpoint once with half the micro-batch and twice the
    accumulation, which is the same effective batch (SEARCH-9, TRAIN-6); its metric `micro_batches` tells.

    Args:
        assignment: The trial.
        on_step: Called after every optimiser step.

    Raises:
        ValueError: Config, sections or options are wrong, the ladder leaves the folds, or a checkpoint of another
            configuration lies in the way (`CheckpointMismatch`).
        LeakError: Weights would be inherited from a later fold.
        DataError: The data cannot be used.
        TrialDiverged: Training left the finite numbers.
        torch.OutOfMemoryError: It did not fit, the second time too.
    """
    trial = prepare(assignment, on_step)
    resumed = newest_checkpoint(trial.folder, trial.identity)
    wait_for_all(trial.workers)  # before the first of them writes another one
    if resumed:
        trial = trial.splitting(max(trial.options.split, resumed.split))
        yield resumed.report
    try:
        yield from _climb(trial, resumed)
        return
    except (RuntimeError, MemoryError) as error:
        if not (trial.can_split and is_out_of_memory(error)):
            raise
        log.warning("%s: %s; once more with half the micro-batch", assignment.trial_id, str(error).partition("\n")[0])
    gc.collect()
    if trial.device.type == "cuda":
        torch.cuda.empty_cache()
    yield from _climb(trial.splitting(SPLIT_AFTER_OUT_OF_MEMORY), newest_checkpoint(trial.folder, trial.identity))


def _climb(trial: Prepared, resumed: Checkpoint | None) -> Iterator[RungReport]:
    """Visit the rungs after that of the checkpoint, or all of them."""
    ladder = trial.assignment.ladder
    completed = list(resumed.completed) if resumed else []
    first = resumed.report.rung + 1 if resumed else 0
    for fold, rungs in groupby(range(first, len(ladder)), key=lambda rung: ladder[rung][0]):
        at = visit(trial, fold, tuple(rungs))
        known = None if resumed and resumed.report.fold == fold else at.known_result()
        if known is not None:
            yield from taken_over(at, known, completed)
        else:
            yield from trained(at, resumed, completed)
