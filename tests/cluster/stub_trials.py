"""Trials without models: what they do at a rung is in their config, and a start log is the independent witness."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from trainables.protocol import Assignment, RungReport, TrialDiverged

WITNESSED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "CUDA_VISIBLE_DEVICES")


def run(assignment: Assignment):
    """Report each rung of the ladder from the newest one that was finished before; `misbehave` says what else."""
    folder = Path(assignment.run_dir)
    done = _newest_rung(folder / f"{assignment.trial_id}.rung")
    _append(folder / "starts.jsonl", trial_id=assignment.trial_id, pid=os.getpid(), rung=done + 1)
    for index in range(max(done, 0), len(assignment.ladder)):
        time.sleep(assignment.config.get("seconds", 0.0))
        if index > done:
            _misbehave(assignment, index, folder)
        fold, share = assignment.ladder[index]
        (folder / f"{assignment.trial_id}.rung").write_text(str(index))
        loss = assignment.config["x"] + 0.1 * index
        if assignment.config.get("misbehave") == "nan" and index == 1:
            loss = float("nan")
        yield RungReport(rung=index, fold=fold, share=share, metrics={"val_loss": loss}, n_scored=10, seconds=0.0)


def no_op(assignment: Assignment):
    """Report each rung at once and write nothing."""
    for index, (fold, share) in enumerate(assignment.ladder):
        yield RungReport(rung=index, fold=fold, share=share, metrics={"val_loss": 1.0}, n_scored=1, seconds=0.0)


def starts(folder: Path) -> list[dict]:
    """Read the start log."""
    path = folder / "starts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _misbehave(assignment: Assignment, index: int, folder: Path) -> None:
    kind = assignment.config.get("misbehave")
    if index != 1 or kind is None:
        return
    if kind == "raise":
        raise KeyError("no such column")
    if kind == "exit":
        sys.exit(3)
    if kind == "diverge":
        raise TrialDiverged("loss became nan in fold 0 at step 7")
    if kind == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if kind == "hang":
        time.sleep(3600)
    if kind == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "environment":
        (folder / "environment.json").write_text(json.dumps({name: os.environ.get(name) for name in WITNESSED}))
    witness = folder / f"{assignment.trial_id}.killed"
    if kind == "die" or (kind == "die_once" and not witness.exists()):
        witness.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _newest_rung(path: Path) -> int:
    return int(path.read_text()) if path.exists() else -1


def _append(path: Path, **fields: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, (json.dumps({**fields, "time": time.time()}) + "\n").encode())
    finally:
        os.close(descriptor)
