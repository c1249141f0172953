"""Whole runs on a private Ray. Each is a process of its own, because it is killed, or because its output is judged."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import toy_trials
from fake_study import LADDER, FakeStudy, assignments
from stub_search import real_study
from stub_trials import run as run_stub
from stub_trials import starts
from toy_trials import toy_assignment

from search.study import Study
from search.trial import Decision, Observation, TrialState
from trainables import catalogue

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def drive(tmp_path, temporary):
    """Start drivers of stub trials in `tmp_path`; their private Rays live below `temporary`. None outlives the test."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environ |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE))), "TMPDIR": str(temporary), "HOME": str(tmp_path)}
    drivers = []

    def start(configs=None, *flags, **resources):
        command = [sys.executable, str(HERE / "stub_search.py"), str(tmp_path), "--resources", json.dumps(resources)]
        command += flags
        command += ["--configs", json.dumps(configs)] if configs else []
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        drivers.append(subprocess.Popen(command, env=environ, text=True, cwd=tmp_path, **pipes))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()
        driver.communicate()


@pytest.fixture
def temporary():
    """A short folder: Ray's sockets are below it."""
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def finished(driver, *, within_s=90.0):
    out, err = driver.communicate(timeout=within_s)
    return driver.returncode, out, err


def wait_for(condition, *, within_s):
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def processes_of(temporary, folder):
    """Return the processes with a path below `temporary` among their arguments, and the workers that ran a trial."""
    workers = {start["pid"] for start in starts(folder)}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.name) in workers or str(temporary).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def in_a_plain_loop(folder):
    """Run the real study without Ray, one trial after another: what one worker must be equal to."""
    folder.mkdir()
    with real_study(folder) as study:
        while (trial := study.next()) is not None:
            attempt = study.started(trial.trial_id)
            for report in run_stub(assignments(folder)(trial)):
                if study.observe(trial.trial_id, Observation(**asdict(report)), attempt) is Decision.STOP:
                    break
        return results(study)


def results(study):
    """Return what a study found out, without the number of starts."""
    return {trial_id: replace(trial, attempts=0) for trial_id, trial in study.trials.items()}


@pytest.mark.requirement("CLUSTER-4")
@pytest.mark.requirement("CLUSTER-3")
@pytest.mark.requirement("SEARCH-9")
def test_every_way_to_end_is_told_apart_and_a_killed_worker_costs_no_trial(drive, tmp_path, temporary):
    misbehaviours = [None, None, "die_once", "diverge", "nan", "memory", "raise", "environment", "hang", "freeze"]
    configs = [{"x": 5.0 if number == 1 else 0.1, "misbehave": kind} for number, kind in enumerate(misbehaviours)]
    status, out, err = finished(drive(configs, max_concurrent=2, hang_minutes=0.25), within_s=180)
    assert (status, out, err) == (0, "finished\n", "")
    study = FakeStudy(configs, path=tmp_path / "events.jsonl")
    assert list(study.states().values()) == [
        "complete",
        "stopped",
        "complete",
        "diverged",
        "diverged",
        "out_of_memory",
        "failed",
        "complete",
        "failed",
        "failed",
    ]
    assert [trial.attempts for trial in study.trials.values()] == [1, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    for hung in ("t0008", "t0009"):
        assert study.trials[hung].reason == "hang: no sign of life for 0.25 minutes, the last one before the first step"
    assert "KeyError: 'no such column'" in (tmp_path / "failures" / "t0006.txt").read_text()
    witnessed = starts(tmp_path)
    assert [(s["trial_id"], s["rung"]) for s in witnessed if s["trial_id"] == "t0002"] == [("t0002", 0), ("t0002", 1)]
    assert len(witnessed) == len(configs) + 1
    assert len({s["pid"] for s in witnessed}) <= 5, "workers are reused"
    assert json.loads((tmp_path / "environment.json").read_text()) == {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert "died" in (tmp_path / "log.txt").read_text()
    assert list(temporary.iterdir()) == [], "nothing of Ray stays"
    assert not (tmp_path / ".ray").exists(), "no token is written to the home folder"
    assert not (tmp_path / "ray_results").exists()


@pytest.mark.timeout(600)  # Ray Train starts eight processes: minutes on a busy machine
@pytest.mark.requirement("TRAIN-4")
@pytest.mark.requirement("CLUSTER-2")
def test_two_workers_train_what_one_trains_with_twice_the_batch(drive, tmp_path, monkeypatch):
    for table in (catalogue.CONFIGS, catalogue.FAMILIES):
        monkeypatch.setitem(table, "toy", "")  # what `toy_trials.run` registers is gone after the test
    status, out, err = finished(drive([{"batch_size": 32}], "--toy", workers_per_trial=2), within_s=550)
    assert (status, out, err) == (0, "finished\n", "")
    study = FakeStudy([{"batch_size": 32}], path=tmp_path / "events.jsonl")
    assert study.counts() == {"complete": 1}
    alone = list(toy_trials.run(toy_assignment(tmp_path / "alone", "t0000", {"batch_size": 64}, n_workers=1)))
    told = [event["loss"] for event in study.events if event["kind"] == "observe"]
    assert told == pytest.approx([report.metrics["val_loss"] for report in alone], rel=1e-5)
    assert not (tmp_path / "ray_train").exists(), "Ray Train's own files are gone"
    assert len(list((tmp_path / "evidence" / "t0000").iterdir())) == len(LADDER)


@pytest.mark.requirement("SEARCH-15")
def test_a_killed_search_leaves_no_process_and_ends_with_the_same_trials(drive, tmp_path, temporary):
    killed = drive(max_concurrent=1)
    wait_for(lambda: len(starts(tmp_path)) >= 6, within_s=60)
    killed.kill()
    killed.communicate()
    wait_for(lambda: not processes_of(temporary, tmp_path), within_s=30)
    finished_before = {
        i for i, trial in Study.read(tmp_path / "journal.sqlite").trials.items() if trial.state.is_finished
    }
    n_before = len(starts(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("f" * 64)  # the home folder has the token of some cluster

    assert finished(drive(max_concurrent=1)) == (0, "finished\n", "")
    with real_study(tmp_path) as study:
        assert study.is_done
        assert results(study) == in_a_plain_loop(tmp_path / "plain")
        assert {trial.state for trial in study.trials.values()} == {TrialState.COMPLETE, TrialState.STOPPED}
    started_after = [start["trial_id"] for start in starts(tmp_path)[n_before:]]
    assert len(finished_before) >= 5
    assert not finished_before & set(started_after), "nothing is started again after its end"
    assert len(started_after) == len(set(started_after)) == len(study.trials) - len(finished_before)


@pytest.mark.requirement("CLUSTER-1")
def test_two_machines_share_a_search_that_is_interrupted_and_goes_on(drive, tmp_path, temporary):
    script = (
        "import json, logging, os, sys\n"
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})\n"
        "cluster.add_node(num_cpus=1)\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.readline()\n"
        "cluster.shutdown()\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environ |= {"TMPDIR": str(temporary), "HOME": str(tmp_path)}
    cluster = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address = cluster.stdout.readline().strip()
        configs = [{"x": 0.1, "seconds": 0.4}] * 12
        status, _, err = finished(drive(configs, ray_address=address, cpus_per_trial=2))
        assert status == 4
        assert "needs CPU 2 and GPU 0, the cluster's machines have at most: CPU 1 and GPU 0" in err
        assert starts(tmp_path) == []
        interrupted = drive(configs, ray_address=address)
        wait_for(lambda: len({start["pid"] for start in starts(tmp_path)}) == 2, within_s=60)
        interrupted.terminate()
        assert finished(interrupted, within_s=30)[:2] == (130, "interrupted\n")
        assert finished(drive(configs, ray_address=address))[:2] == (0, "finished\n")
    finally:
        cluster.communicate("\n", timeout=30)
    study = FakeStudy(configs, path=tmp_path / "events.jsonl")
    assert study.counts() == {"complete": len(configs)}
    assert all(len(trial.observations) == len(LADDER) for trial in study.trials.values())
    assert sum(trial.attempts for trial in study.trials.values()) == len(starts(tmp_path)) <= len(configs) + 2
