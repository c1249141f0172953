"""Two processes that train one trial are one process with twice the batch, on every engine and ZeRO stage."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.worker import encode_assignment
from tests.trainables.training.test_walk import _toy_family, assignment, weights  # noqa: F401 - a fixture
from trainables.training.walk import run_trial
from trainables.training.workers import ALONE, Workers, gather_states, join_workers, own_state

ROOT = Path(__file__).parents[3]
ENGINES = [("plain", 0), ("deepspeed", 0), ("deepspeed", 2)]
LADDER = ((0, 0.5), (0, 1.0))
CONFIG = {"dropout": 0.0, "epochs": 1, "batch_size": 31, "accum_steps": 2}


def job(given, n_reports=9):
    return json.dumps({"assignment": encode_assignment(given), "n_reports": n_reports})


def run_together(folder, jobs, size=2):
    """Return the reports of each job, as the first process told them."""
    module = "tests.trainables.training.together"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(folder / "meeting"), str(rank), str(size), *jobs],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=550) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, ended
    return [json.loads(line) for line in ended[0][0].splitlines()]


def same_trial(folder, engine, stage, **changes):
    config = {**CONFIG, "zero_stage": stage, **changes.pop("config", {})}
    options = {"engine": engine, "deterministic": True, "flatness_steps": 0}
    return assignment(folder, config=config, ladder=LADDER, options=options, **changes)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.requirement("TRAIN-4")
@pytest.mark.requirement("TRAIN-15")
def test_two_processes_equal_one_with_twice_the_batch_and_go_on_from_their_checkpoint(tmp_path):
    """Every engine, and a resume of two processes with dropout, in one start of them: it is the start that costs."""
    shared = {engine: same_trial(tmp_path / "-".join(map(str, engine)), *engine, n_workers=2) for engine in ENGINES}
    whole = same_trial(tmp_path / "whole", "deepspeed", 1, n_workers=2, config={"dropout": 0.3})
    halves = replace(whole, run_dir=str(tmp_path / "halves"))
    jobs = [*map(job, shared.values()), job(whole), job(halves, n_reports=1), job(halves)]
    *each, uninterrupted, _, resumed = run_together(tmp_path, jobs)

    alone = list(run_trial(same_trial(tmp_path / "alone", "plain", 0, config={"batch_size": 62})))
    for (engine, stage), reports in zip(shared, each, strict=True):
        for found, expected in zip(reports, alone, strict=True):
            for name in ("val_loss", "train_objective", "ic", "grad_norm_max", "train_loss"):
                assert found["metrics"][name] == pytest.approx(expected.metrics[name], rel=1e-5), (engine, stage, name)
        for name, tensor in weights(tmp_path / "alone").items():
            found = weights(tmp_path / f"{engine}-{stage}")[name]
            torch.testing.assert_close(found, tensor, rtol=1e-5, atol=1e-6)
    for report in (*resumed, *uninterrupted):
        report["metrics"].pop("latency_ms", None)
    assert [r["metrics"] for r in resumed] == [r["metrics"] for r in uninterrupted], "bit for bit, both generators"


def test_a_trial_of_two_needs_two_processes(tmp_path):
    with pytest.raises(ValueError, match="n_workers: expected a process group of 2, found 1; start the trial under"):
        next(run_trial(assignment(tmp_path, n_workers=2)))
    assert join_workers(1) is ALONE


def test_the_states_of_all_processes_are_told_apart():
    states = {"torch": torch.tensor(0), "1/torch": torch.tensor(1), "10/torch": torch.tensor(10)}
    assert {r: int(own_state(Workers(rank=r, size=11), states)["torch"]) for r in (0, 1, 10)} == {0: 0, 1: 1, 10: 10}
    assert gather_states(ALONE, states) == states


def test_what_two_processes_trained_is_no_checkpoint_of_one(tmp_path, monkeypatch):
    next(run_trial(assignment(tmp_path)))
    monkeypatch.setattr("trainables.training.prepared.join_workers", lambda n: ALONE)
    with pytest.raises(ValueError, match="n_workers: 1 there, 2 here"):
        next(run_trial(assignment(tmp_path, n_workers=2)))
