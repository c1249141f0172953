"""A trial that several processes train together: the walk under Ray Train, inside the actor that Tune gave the trial.

Ray Train starts the processes and makes their process group. Each runs the same generator as a trial of one process;
after a rung all wait until the driver of the trial, this file's `run_on_workers`, is asked for the next one. So the
trial is stopped in the same way: by not asking again.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from trainables.protocol import Assignment, RungReport, is_out_of_memory

logger = logging.getLogger(__name__)

SPLITS = (1, 2)
"""Parts of a micro-batch: whole, and after an out-of-memory error, once, in halves (SEARCH-9)."""
POLL_SECONDS = 1.0
"""How often a driver that waits for a report looks whether its workers still live."""
CLOSE_SECONDS = 20.0
"""How long workers that were told to stop may take before their queues are taken from them."""

Runner = Callable[[Assignment], Iterator[RungReport]]


def run_on_workers(assignment: Assignment, share: Mapping[str, float], runner: Runner) -> Iterator[RungReport]:
    """Run a trial on `assignment.n_workers` processes; reports and errors are those of a trial of one.

    An out-of-memory error in any of them starts all of them anew, once, from the newest checkpoint with half the
    micro-batch.

    Args:
        assignment: The trial.
        share: What Ray sets aside for each process: `CPU` and `GPU`.
        runner: What every process runs, such as `trainables.training.walk.run_trial`.
    """
    heard = -1
    for split in SPLITS:
        given = replace(assignment, options={**assignment.options, "split": split}) if split > 1 else assignment
        try:
            for report in _run_once(given, share, runner):
                if report.rung > heard:
                    heard = report.rung
                    yield report
            return
        except Exception as error:
            if split == SPLITS[-1] or not is_out_of_memory(error):
                raise
            logger.warning("trial %s: %s; once more with half the micro-batch", assignment.trial_id, error)


def _run_once(assignment: Assignment, share: Mapping[str, float], runner: Runner) -> Iterator[RungReport]:
    reports, answers = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
    folder = Path(assignment.run_dir) / "ray_train" / assignment.trial_id
    group = _Group(_trainer(assignment, share, runner, reports, answers, folder))
    try:
        while True:
            try:
                report = reports.get(timeout=POLL_SECONDS)
            except Empty:
                if not group.is_alive:
                    group.raise_error()
                    return
                continue
            yield report
            answers.put(True)
    finally:
        answers.put(False)
        if not group.wait(CLOSE_SECONDS):
            logger.warning("trial %s: its workers did not stop in time", assignment.trial_id)
        for queue in (reports, answers):
            queue.shutdown(force=True)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # other trials may be at work there
            folder.parent.rmdir()


class _Group:
    """Ray Train's `fit`, which blocks, in a thread of its own."""

    def __init__(self, trainer: TorchTrainer) -> None:
        self._error: TrainingFailedError | None = None
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Return whether the workers have ended within the time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def raise_error(self) -> None:
        """Raise what a worker raised; of several errors one that is out of memory, else that of the first worker."""
        if self._error is None:
            return
        failures: dict[int, Exception] = getattr(self._error, "worker_failures", {})
        errors: list[Exception] = [getattr(failures[rank], "_base_exc", failures[rank]) for rank in sorted(failures)]
        for error in errors:
            if is_out_of_memory(error):
                raise error
        raise errors[0] if errors else self._error

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except TrainingFailedError as error:
            self._error = error


def _trainer(
    assignment: Assignment,
    share: Mapping[str, float],
    runner: Runner,
    reports: Queue,
    answers: Queue,
    folder: Path,
) -> TorchTrainer:
    given = {"assignment": assignment, "runner": runner, "reports": reports, "answers": answers}
    return TorchTrainer(
        _train,
        train_loop_config=given,
        scaling_config=ScalingConfig(
            num_workers=assignment.n_workers,
            use_gpu=share.get("GPU", 0) > 0,
            resources_per_worker={name: amount for name, amount in share.items() if amount},
        ),
        run_config=RunConfig(
            name=assignment.trial_id, storage_path=str(folder), failure_config=FailureConfig(max_failures=0)
        ),
    )


def _train(given: dict[str, Any]) -> None:
    """Run the trial in one of the processes; the first one reports, and all go on when it is told to."""
    import torch.distributed as dist

    is_first = ray.train.get_context().get_world_rank() == 0
    trial = given["runner"](given["assignment"])
    for report in trial:
        goes_on = [False]
        if is_first:
            given["reports"].put(report)
            goes_on = [given["answers"].get()]
        dist.broadcast_object_list(goes_on)
        if not goes_on[0]:
            trial.close()
            return
