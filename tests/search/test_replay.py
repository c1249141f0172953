from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.simulated import simulate
from cluster.synthetic_tables import SyntheticTable, World
from search.errors import JournalError
from search.journal import Journal
from search.replay import main, replay
from search.study import Study
from search.trial import TrialState
from tests.search.toy_search import RUNGS, SPACE, loss_of, run_trial

ROOT = Path(__file__).parents[2]


def search(folder: Path, optimizer: str, **changes: Any) -> Path:
    """Run a search of 18 trials, three at a time, with failures, refusals and a resume in the middle."""
    arguments: dict[str, Any] = {
        "space": SPACE,
        "ladder": RUNGS,
        "n_trials": 18,
        "optimizer": optimizer,
        "stopping": {"name": "asha", "eta": 2},
        "seed": 5,
        "population": 4,
        "enqueue": [{"lr": 1e-2}],
        "infeasible": lambda config: "too deep" if config["depth"] == 9 else None,
        **changes,
    }
    path = folder / "journal.sqlite"
    with Study.create(path, **arguments) as study:
        advance(study, 9)
    with Study.resume(path, **arguments) as study:
        advance(study, 99)
        study.stop("the end")
    return path


def advance(study: Study, n_trials: int) -> None:
    waiting = []
    for count in range(n_trials):
        trial = study.next()
        if trial is not None:
            waiting.append(trial)
        if len(waiting) == 3 or (trial is None and waiting):
            ready = waiting.pop(count % len(waiting))
            if ready.number % 7 == 3:
                study.finish(ready.trial_id, TrialState.OUT_OF_MEMORY, "drawn")
            else:
                run_trial(study, ready, [loss_of(ready.config) + fold / 10 for fold in range(len(RUNGS))])


@pytest.mark.parametrize("optimizer", ["random", "qmc", "tpe", "cma_es", "nsga2"])
@pytest.mark.requirement("REPRO-1")
def test_a_search_replays_identically(tmp_path: Path, optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = search(tmp_path, optimizer)
    with Journal.read(path) as journal:
        kinds = [event.kind for event in journal.events()]
    assert main([str(tmp_path)]) == 0
    n_proposals, n_decisions = kinds.count("proposed"), kinds.count("observed")
    assert n_proposals >= 18
    assert capsys.readouterr().out == f"replayed {n_proposals} proposals and {n_decisions} decisions: identical\n"


@pytest.mark.parametrize("rule", ["none", "asha", "hyperband", "fold_racing", "predicted"])
@pytest.mark.requirement("REPRO-1")
def test_every_stopping_rule_replays_identically(tmp_path: Path, rule: str) -> None:
    """40 trials with three workers, killed twice; every rule that drops trials drops some of them."""
    table = SyntheticTable(3, World(n_folds=5, noise=0.5))
    arguments: dict[str, Any] = {
        "space": table.space,
        "ladder": table.ladder,
        "optimizer": "random",
        "stopping": rule,
        "n_trials": 40,
        "limits": {"patience": 39},
    }
    path = tmp_path / "journal.sqlite"
    with Study.create(path, **arguments) as study:
        simulate(study, table, n_workers=3, most_folds=30)
    for budget in (30, 200):
        with Study.resume(path, **arguments) as study:
            simulate(study, table, n_workers=3, most_folds=budget)
            n_stopped = study.counts()[TrialState.STOPPED]
    found = replay(path)
    assert found.difference is None
    assert found.n_proposals == 40
    assert (n_stopped > 0) == (rule != "none")


@pytest.mark.requirement("REPRO-1")
def test_the_command_replays_in_another_process(tmp_path: Path) -> None:
    search(tmp_path, "tpe")
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    done = subprocess.run(
        [sys.executable, "-m", "search.replay", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("identical\n")


def forged(path: Path, kind: str, change: dict[str, Any]) -> Path:
    """Write a sound journal in which one event tells something that this program would not have done."""
    copy = path.parent / "forged" / path.name
    copy.parent.mkdir()
    with Journal.read(path) as old, Journal.create(copy, old.header) as new:
        events = list(old.events())
        last = [event.seq for event in events if event.kind == kind][-1]
        for event in events:
            new.append(event.kind, {**event.body, **change} if event.seq == last else event.body)
    return copy.parent


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("proposed", {"seed": 1}, "seed was 1, is now"),
        ("proposed", {"generation": 77}, "generation was 77, is now 5"),
        ("observed", {"decision": "continue", "state": "running"}, "decision was 'continue', is now 'stop'"),
    ],
)
def test_the_first_difference_is_told(
    tmp_path: Path, kind: str, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = forged(search(tmp_path, "random"), kind, change)
    assert main([str(folder)]) == 1
    told = capsys.readouterr().out
    assert "first difference at event" in told
    assert message in told


def test_another_optimizer_is_told(tmp_path: Path) -> None:
    path = search(tmp_path, "random")
    other = tmp_path / "other.sqlite"
    with Journal.read(path) as old:
        study = {**old.header["study"], "optimizer": {"name": "qmc"}}
        with Journal.create(other, {"study": study}) as new:
            for event in old.events():
                new.append(event.kind, event.body)
    found = replay(other)
    assert found.n_proposals == 1  # the enqueued one
    assert found.difference is not None
    assert "t0001: config was" in found.difference


def test_what_is_no_run_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("kind", "body"), [("dreamt", {"trial_id": "t0000"}), ("finished", {"trial_id": "t0000"})])
def test_events_that_this_program_does_not_know_are_errors(tmp_path: Path, kind: str, body: dict[str, str]) -> None:
    other = tmp_path / "other.sqlite"
    with Journal.read(search(tmp_path, "random")) as old, Journal.create(other, old.header) as new:
        for event in list(old.events())[:3]:
            new.append(event.kind, event.body)
        new.append(kind, body)
    with pytest.raises(JournalError, match=f"event 4 \\({kind}\\)"):
        replay(other)


def test_the_header_holds_everything_as_json(tmp_path: Path) -> None:
    path = search(tmp_path, "tpe")
    copy = tmp_path / "copy.sqlite"
    shutil.copy(path, copy)
    connection = sqlite3.connect(copy)
    study = json.loads(connection.execute("SELECT body FROM header").fetchone()[0])["study"]
    connection.close()
    assert study["space"]["fingerprint"] == SPACE.fingerprint()
    assert study["optimizer"] == {"name": "tpe"}
    assert study["ladder"] == [[0, 1.0], [1, 1.0], [2, 1.0], [3, 1.0]]
