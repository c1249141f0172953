"""Events of a small search in the form of the journal (`search.history`), and a journal file with them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


class Events:
    """Numbers events as the journal does."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def add(self, kind: str, **body: Any) -> dict[str, Any]:
        seq = len(self.all) + 1
        self.all.append(
            {"seq": seq, "time_utc": f"2026-01-05T09:00:{seq % 60:02d}.000+00:00", "kind": kind, "body": body}
        )
        return self.all[-1]

    def propose(self, number: int, state: str = "running", **more: Any) -> str:
        trial_id = f"t{number:04d}"
        config = {"lr": 0.001 * (number + 1), "normalizer": "mad", "widths": [8, 4]}
        proposal = {"origin": "random", "generation": 0, "parents": [], "seed": 5, "reason": "", "note": {}, **more}
        self.add("proposed", number=number, trial_id=trial_id, config=config, state=state, **proposal)
        return trial_id

    def observe(self, trial_id: str, fold: int, state: str = "running", share: float = 1.0, **metrics: Any) -> None:
        seen = {"rung": fold, "fold": fold, "share": share, "metrics": metrics, "n_scored": 20 + fold, "seconds": 0.5}
        self.add("observed", trial_id=trial_id, observation=seen, decision="continue", state=state, reason="")


def search(n_trials: int = 4) -> list[dict[str, Any]]:
    """Complete trials, but for number 1 (stopped), 2 (diverged with NaN) and 3 (infeasible from the start)."""
    events = Events()
    for number in range(n_trials):
        if number == 3:
            events.propose(3, state="infeasible", reason="d_model must be divisible by head_dim")
            continue
        trial_id = events.propose(number, parents=["t0000"] if number else [])
        events.add("started", trial_id=trial_id, attempt=1)
        if number == 2:
            events.observe(trial_id, 0, state="diverged", val_loss="nan", ic=0.1)
            continue
        events.observe(trial_id, 0, val_loss=1.0 + number, ic=0.02, crps=0.5)
        last = "stopped" if number == 1 else "complete"
        events.observe(trial_id, 1, state=last, val_loss=2.0 + number, ic=0.04, crps=0.7)
    events.add("stopped", reason="all trials asked for")
    return events.all


def write(run_dir: Path, events: list[dict[str, Any]]) -> None:
    """Write `journal.sqlite` as the study does."""
    with closing(sqlite3.connect(run_dir / "journal.sqlite")) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(
            "CREATE TABLE events(seq INTEGER PRIMARY KEY, time_utc TEXT NOT NULL, kind TEXT NOT NULL, "
            "body TEXT NOT NULL)"
        )
        rows = [(e["seq"], e["time_utc"], e["kind"], json.dumps(e["body"])) for e in events]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
