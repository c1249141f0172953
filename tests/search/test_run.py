"""The real command line on real data: a whole small search, and one that is killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import date
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "space.yaml", "plan.json", "journal.sqlite", "trials.parquet", "folds.parquet", "ranking.csv", "best_config.yaml",
    "evidence", "checkpoints", "mlflow.db", "log.txt", "report.html",
}  # fmt: skip
SEARCH = ["search/run.py", "--space", "spaces/mlp.yaml", "--profile", "smoke", "--seed", "3"]
ONE_AT_A_TIME = ["--set", "resources.max_concurrent=1", "--set", "budget.trials=6"]


def search(*arguments: str | Path, wait: bool = True) -> subprocess.Popen[str]:
    environment = {**os.environ, "RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS")
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    if wait:
        process.wait(timeout=280)
    return process


def outcome(run_dir: Path) -> pl.DataFrame:
    """What a search found, less what no two runs share: times."""
    trials = pl.read_parquet(run_dir / "trials.parquet")
    return trials.drop("seconds", "attempts", *[c for c in trials.columns if "second" in c or "latency" in c])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run") / "whole"
    done = search(*SEARCH, *ONE_AT_A_TIME, "--out", run_dir)
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert out.splitlines()[-1] == str(run_dir)
    return run_dir


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.requirement("SEARCH-18", "MLFLOW-1", "REPRO-2", "ART-2")
def test_a_search_leaves_a_complete_run_folder_and_its_mirror(whole_run: Path) -> None:
    assert {path.name for path in whole_run.iterdir()} >= FILES
    trials = pl.read_parquet(whole_run / "trials.parquet")
    assert len(trials) == 6
    assert set(trials["state"]) <= {"complete", "stopped"}
    plan = json.loads((whole_run / "plan.json").read_text())
    assert plan["marks"].keys() >= {"iv", "chain"}
    assert plan["data_snapshot"]
    assert {p.name for p in (whole_run / "evidence").iterdir()} == set(trials["trial_id"])
    with closing(sqlite3.connect(whole_run / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT key, value FROM tags WHERE key IN ('state', 'mark.iv', 'data_snapshot')"
        ).fetchall()
    assert sum(key == "state" for key, _ in rows) == 6
    assert ("mark.iv", plan["marks"]["iv"]) in rows


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.requirement("SEARCH-15", "CLUSTER-4", "REPRO-3")
def test_a_search_that_is_killed_and_resumed_ends_as_one_left_alone(whole_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "killed"
    process = search(*SEARCH, *ONE_AT_A_TIME, "--out", run_dir, wait=False)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and n_observed(run_dir) < 3:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert 3 <= n_observed(run_dir)
    assert not (run_dir / "trials.parquet").exists(), "the search ended before it was killed"
    resumed = search("search/run.py", "--resume", run_dir)
    out, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert out.splitlines()[-1] == str(run_dir)
    assert outcome(run_dir).equals(outcome(whole_run), null_equal=True)


@pytest.mark.slow
@pytest.mark.cluster
def test_a_widened_search_trains_no_known_fold_again_and_counts_what_was_tried(whole_run: Path) -> None:
    """The leaders of the first search come first, from its results; then the wider space is searched."""
    run_dir = whole_run.parent / "wider"
    wider = "parameters.hidden={type: choice, choices: [32-16, 64-32-16, 128-64-32], default: 32-16}"
    before = pl.read_parquet(whole_run / "trials.parquet")
    n_leaders = min(5, len(before.filter(pl.col("state") == "complete")))
    start = ["--warm-start", whole_run, "--set", wider, "--set", f"budget.trials={n_leaders + 1}"]
    done = search(*SEARCH[:-2], *start, "--out", run_dir)
    _, err = done.communicate()
    assert done.returncode == 0, err
    assert f"warm start from whole: {6 - n_leaders} results are known, its {n_leaders} leaders are tried first" in err
    after = pl.read_parquet(run_dir / "trials.parquet").sort("number")
    leaders = after.filter(pl.col("origin") == "enqueued")
    assert len(leaders) == n_leaders
    old = dict(before.select("seed", "metric.val_loss").iter_rows())
    complete = leaders.filter(pl.col("n_folds") == 2).select("seed", "metric.val_loss")
    assert all(old[seed] == loss for seed, loss in complete.iter_rows())
    plan = json.loads((run_dir / "plan.json").read_text())
    assert plan["n_folds_reused"] == leaders["n_folds"].sum() > 0
    assert plan["inherited_trials"] == 6 - n_leaders
    replayed = subprocess.run(
        [sys.executable, "-m", "search.replay", run_dir], cwd=ROOT, capture_output=True, text=True
    )
    assert replayed.stdout.endswith("identical\n"), replayed.stdout + replayed.stderr


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.requirement("SEARCH-16")
def test_what_was_best_at_a_small_scale_is_trained_anew_at_the_full_one(tmp_path: Path) -> None:
    small, full = tmp_path / "small", tmp_path / "full"
    for arguments in (
        ["--set", "fidelity.scale=small", "--set", "budget.trials=2", "--out", small],
        ["--warm-start", small, "--set", "budget.trials=1", "--out", full],
    ):
        done = search(*SEARCH, "--set", "tracking.enabled=false", "--set", "search.stopping={rule: none}", *arguments)
        _, err = done.communicate()
        assert done.returncode == 0, err
    assert "so its best tenth is promoted: 1 config is tried first; no value is compared; 2 trials tried" in err
    plans = [json.loads((run_dir / "plan.json").read_text()) for run_dir in (small, full)]
    assert [(plan["scale"], plan["data_frac"], plan["inherited_trials"]) for plan in plans] == [
        ("small", 0.5, 0),
        ("full", 1.0, 2),
    ]
    assert plans[1]["n_folds_reused"] == 0
    before = pl.read_parquet(small / "trials.parquet").sort("metric.val_loss")
    (promoted,) = pl.read_parquet(full / "trials.parquet").iter_rows(named=True)
    assert (promoted["origin"], promoted["seed"]) == ("enqueued", before["seed"][0])
    assert promoted["metric.val_loss"] != before["metric.val_loss"][0]


def n_observed(run_dir: Path) -> int:
    journal = run_dir / "journal.sqlite"
    if not journal.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM events WHERE kind = 'observed'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.requirement("SEARCH-17", "WF-3")
def test_the_vault_opens_once_for_the_leader_and_the_ledger_knows(whole_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "opened"
    shutil.copytree(whole_run, run_dir)
    done = search("search/run.py", "--resume", run_dir, "--final-eval", "leader")
    _, err = done.communicate()
    assert done.returncode == 0, err
    (opening,) = json.loads((run_dir / "vault.json").read_text())
    leader = pl.read_csv(run_dir / "ranking.csv")["trial_id"][0]
    assert opening["trial_ids"] == [leader]
    assert opening["n_trials"] == 6
    rows = pl.read_parquet(run_dir / "final" / "01" / "evidence" / leader / "fold-00.parquet")
    plan = json.loads((run_dir / "plan.json").read_text())
    assert rows["timestamp"].cast(pl.Datetime("ns")).dt.date().min() >= date.fromisoformat(plan["vault"]["start"])
    assert opening["scores"][leader]["val_loss"] == pytest.approx(rows["loss"].cast(pl.Float64).mean(), rel=1e-6)
    again = search("search/run.py", "--resume", run_dir, "--final-eval", "leader")
    _, err = again.communicate()
    assert again.returncode == 2
    assert "--reopen" in err


@pytest.mark.slow
@pytest.mark.cluster
def test_a_tracking_server_that_does_not_answer_costs_one_warning(tmp_path: Path) -> None:
    run_dir = tmp_path / "alone"
    done = search(*SEARCH, "--set", "budget.trials=2", "--out", run_dir, "--mlflow-uri", "http://127.0.0.1:9")
    _, err = done.communicate()
    assert done.returncode == 0, err
    assert (run_dir / "log.txt").read_text().count("does not take results") == 1
    assert "analysis.mlflow_tracker" in (run_dir / "log.txt").read_text()
