"""Journals that lie around: of an earlier version, of a newer one, and cut by a crash."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from search.errors import JournalError
from search.journal import Journal
from search.parameters import Float, Int
from search.replay import main
from search.space import Space
from search.study import Study
from search.trial import Decision, Observation, TrialState, ladder

RECORDED = Path(__file__).with_name("journal_of_version_1.sqlite")
"""Written by `record` at schema version 1, 2026-11-26. Never written anew: what it holds must stay readable."""
ARGUMENTS: dict[str, Any] = {
    "space": Space({"lr": Float(low=1e-4, high=1e-1, log=True), "depth": Int(low=1, high=3)}),
    "ladder": ladder(3),
    "n_trials": 8,
    "optimizer": "random",
    "stopping": {"name": "asha", "eta": 2},
    "seed": 1,
    "population": 4,
}


def record(path: Path) -> None:
    """Write six trials of eight: one failed, one diverged, some stopped; the journal is left unfinished."""
    with Study.create(path, **ARGUMENTS) as study:
        for _ in range(6):
            trial = study.next()
            assert trial is not None
            attempt = study.started(trial.trial_id)
            for rung in study.charter.ladder:
                if trial.number == 1:
                    study.finish(trial.trial_id, TrialState.FAILED, "ValueError: drawn")
                    break
                loss = math.nan if trial.number == 4 else abs(math.log10(trial.config["lr"]) + 3) + rung.fold / 10
                blocks = (loss - 0.1, loss + 0.1)
                report = Observation(
                    rung=rung.index, fold=rung.fold, share=1.0, metrics={"val_loss": loss}, n_scored=9, seconds=0.1,
                    blocks=blocks if math.isfinite(loss) else (),
                )  # fmt: skip
                if study.observe(trial.trial_id, report, attempt) is Decision.STOP:
                    break


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copy(RECORDED, tmp_path / "journal.sqlite")
    return tmp_path / "journal.sqlite"


@pytest.mark.requirement("REPRO-1")
def test_a_journal_of_an_earlier_version_is_read_replayed_and_gone_on_with(path: Path) -> None:
    states = [str(trial.state) for trial in Study.read(path).trials.values()]
    assert states == ["complete", "failed", "stopped", "stopped", "diverged", "stopped"]
    assert main([str(path.parent)]) == 0
    with Study.resume(path, **ARGUMENTS) as study:
        trial = study.next()
        assert trial is not None
        assert trial.trial_id == "t0006"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("merged", {"trial_id": "t0000"}),
        ("finished", {"trial_id": "t0000", "state": "asleep", "reason": ""}),
        ("finished", {"trial_id": "t0077", "state": "failed", "reason": ""}),
        ("proposed", {"number": 6, "trial_id": "t0006", "config": {}, "colour": "blue"}),
    ],
)
def test_a_line_of_a_newer_version_is_told_and_nothing_is_guessed(path: Path, kind: str, body: dict[str, Any]) -> None:
    with Journal.open(path) as journal:
        journal.append(kind, body)
    for use in (lambda: Study.read(path), lambda: Study.resume(path, **ARGUMENTS)):
        with pytest.raises(JournalError, match=rf"event \d+ \({kind}\): cannot be understood"):
            use()


@pytest.mark.requirement("SEARCH-15")
def test_a_torn_tail_costs_the_line_that_was_being_written_and_no_other(path: Path, tmp_path: Path) -> None:
    """A crash of the machine tears the last page of the write-ahead log: what was whole before it is all there."""
    torn = tmp_path / "torn" / "journal.sqlite"
    torn.parent.mkdir()
    with Study.resume(path, **ARGUMENTS) as study:
        trial = study.next()
        assert trial is not None
        study.started(trial.trial_id)
        n_events = sum(1 for _ in study.events())
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{torn}{suffix}")
    os.truncate(f"{torn}-wal", os.path.getsize(f"{torn}-wal") - 100)
    with Journal.read(torn) as journal:
        assert [event.kind for event in journal.events()][-1] == "proposed"
        assert sum(1 for _ in journal.events()) == n_events - 1
