"""Inside a worker process: the Ray actor that runs one trial after another, rung by rung.

What a trial does wrong is data here: it leaves the worker as a message with a state, a reason and a traceback. Only a
process that dies is a fault, and that one Ray sees by itself.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib import import_module
from numbers import Real
from types import ModuleType
from typing import Any

from ray.tune import Trainable

from search.trial import TrialState
from trainables.protocol import Assignment, RungReport, RunTrial, TrialDiverged, is_out_of_memory

logger = logging.getLogger(__name__)

DEFAULT_RUNNER = "trainables.training.walk:run_trial"
LONGEST_REASON = 300
"""Characters of a reason: it is one line of a table. The traceback has the rest."""


def worker_environment(threads: int) -> dict[str, str]:
    """Return the variables that a worker process must have before numpy or torch is imported (TRAIN-10, CLUSTER-3).

    A trial that was given no GPU shall see none, lest several use one behind Ray's back: Ray must be told so. The GNU C
    library shall keep what a training step frees, for the next one needs it again: with its own thresholds it gives the
    pages back and faults them in anew, a sixth of the CPU time of a condor step at 1,024 rows.
    """
    limits = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in limits},
        "NUMBA_NUM_THREADS": str(threads),
        "POLARS_MAX_THREADS": str(threads),
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that it takes
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }


def encode_assignment(assignment: Assignment) -> str:
    """Return the assignment as JSON text.

    Raises:
        ValueError: A value is NaN or infinite.
        TypeError: A value is not of JSON.
    """
    return json.dumps(asdict(assignment), allow_nan=False)


def decode_assignment(text: str) -> Assignment:
    """Return the assignment that `encode_assignment` wrote, equal to it, tuples included."""
    fields = json.loads(text)
    fields["ladder"] = tuple((int(fold), float(share)) for fold, share in fields["ladder"])
    fields["reach"] = {name: tuple(values) for name, values in fields["reach"].items()}
    return Assignment(**fields)


def ending_of(error: BaseException) -> tuple[TrialState, str]:
    """Return the state in which an error leaves a trial, and the reason in one line (SEARCH-9)."""
    if isinstance(error, TrialDiverged):
        return TrialState.DIVERGED, _one_line(error.reason)
    state = TrialState.OUT_OF_MEMORY if is_out_of_memory(error) else TrialState.FAILED
    return state, _one_line(f"{type(error).__name__}: {error}")


class TrialActor(Trainable):
    """A worker. Ray Tune asks it for one rung at a time and gives it the next trial by `reset_config`.

    The configuration holds `assignment` (JSON text), `attempt` (number of this start), and for a trial of several
    workers `worker_share`, what Ray sets aside for each: this actor then only starts them and asks them. The result of
    a step holds one key, `message`: JSON text, because Tune flattens nested results and has its own meaning for
    `trial_id` and `done`. See `step` for what is in it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._share = config.get("worker_share", {})
        self._assignment = decode_assignment(config["assignment"])
        self._attempt = int(config["attempt"])
        self._reports: Iterator[RungReport] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, str]:
        """Run the trial to its next rung.

        Returns:
            `message`, a JSON object: `trial_id`, `attempt`, and either `report` (the fields of a `RungReport`) with
            `is_last`, or `ended` (`state`, `reason`, `traceback`).
        """
        message: dict[str, Any] = {"trial_id": self._assignment.trial_id, "attempt": self._attempt}
        try:
            message |= self._next_report()
        except (Exception, SystemExit) as error:
            state, reason = ending_of(error)
            message["ended"] = {"state": state.value, "reason": reason, "traceback": traceback.format_exc()}
        if "ended" in message or message["is_last"]:
            self._close()
        return {"message": json.dumps(message)}

    def cleanup(self) -> None:
        self._close()

    def _next_report(self) -> dict[str, Any]:
        if self._reports is None:
            self._reports = self._start()
        report = next(self._reports, None)
        if report is None:
            raise RuntimeError("the trial ended before the last rung of its ladder")
        return {"report": _plain(report), "is_last": report.rung >= len(self._assignment.ladder) - 1}

    def _start(self) -> Iterator[RungReport]:
        given, runner = self._assignment, _runner(self._assignment)
        if given.n_workers == 1:
            return iter(runner(given))
        from cluster.worker_group import run_on_workers  # Ray Train imports torch

        return run_on_workers(given, self._share, runner)

    def _close(self) -> None:
        """End the trial's generator, so that a reused worker starts the next trial with its memory free."""
        reports, self._reports = self._reports, None
        if reports is None:
            return
        try:
            getattr(reports, "close", lambda: None)()
        except Exception:
            logger.exception("trial %s: closing it raised", self._assignment.trial_id)
        del reports
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _runner(assignment: Assignment) -> RunTrial:
    """Return the function that runs the trial; `options["runner"]`, `module:function`, replaces the shared walk."""
    module, _, name = str(assignment.options.get("runner", DEFAULT_RUNNER)).partition(":")
    runner: RunTrial = getattr(_imported(module), name)
    return runner


@cache
def _imported(name: str) -> ModuleType:
    """Import what runs trials, before the first of them, and take all that imports made out of garbage collection.

    It stays for as long as the process. To look through it again at the end of every trial took 0.1 s each.
    """
    module = import_module(name)
    gc.collect()
    gc.freeze()
    return module


def _plain(report: RungReport) -> dict[str, Any]:
    for name, value in report.metrics.items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"metrics[{name!r}] at rung {report.rung}: expected a number, found {type(value).__name__}")
    return {
        "rung": int(report.rung),
        "fold": int(report.fold),
        "share": float(report.share),
        "metrics": {str(name): float(value) for name, value in report.metrics.items()},
        "n_scored": int(report.n_scored),
        "seconds": float(report.seconds),
        "blocks": [float(value) for value in report.blocks],
        "reused_from": str(report.reused_from),
    }


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
