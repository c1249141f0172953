"""What the reports read beside the tables, and what a search leaves and says at its end."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.command.assignments import results_folder, write_best
from search.command.setup import Setup

if TYPE_CHECKING:
    from search.study import Study
    from trainables.data.dataset import Dataset


def plan_file(setup: Setup, run_dir: Path, study: Study, dataset: Dataset) -> dict[str, Any]:
    """Write `plan.json`, what the reports read beside the tables; a resumed run keeps its start and its wall time."""
    from analysis.run_folder import write_plan
    from analysis.vault import write_ledger
    from search.final_evaluation import ledger_rows
    from search.plan import day, fold_dates

    file = run_dir / "plan.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    header, spec = study.history.header, setup.spec
    plan = {
        "family": spec.family,
        "seed": setup.seed,
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in study.charter.objectives],
        "folds": [asdict(fold) for fold in fold_dates(setup.market)],
        "ladder": [[rung.fold, rung.share] for rung in setup.ladder],
        "marks": dict(dataset.marks),
        "data_snapshot": dataset.snapshot,
        "commit": header["commit"],
        "versions": header["versions"],
        "started_utc": before.get("started_utc", datetime.now(UTC).isoformat(timespec="seconds")),
        "ended_utc": before.get("ended_utc") if study.is_done else None,
        "wall_s": before.get("wall_s") or 0.0,
        "vault": {
            "start": day(setup.market.plan.vault_start),
            "end": day(setup.market.plan.vault_end - 1),
        },
        "optimizer": spec.search.optimizer,
        "stopping": spec.search.stopping.rule,
        **setup.fidelity,
        "n_trials": spec.budget.trials,
        "inherited_trials": header["warm_start"]["n_inherited"],
        "warm_start": header["warm_start"]["source"],
        "scored": header["scored"],
        "data": setup.data.source,
        "experiment": spec.tracking.experiment,
        "constraints_sha256": header["constraints_sha256"],
    }
    write_plan(run_dir, plan)
    if study.history.openings:
        write_ledger(run_dir, ledger_rows(study.history.openings))
    return plan


def conclude(setup: Setup, run_dir: Path, study: Study, plan: dict[str, Any], ending: str) -> int:
    """Write tables, ranking, report and best config; print the ranking and what to type next; return the exit code."""
    from analysis.reports import console, page
    from analysis.run_folder import RunFolder, write_pareto, write_plan, write_tables
    from search.outcome import fold_rows, trial_rows
    from search.pareto import pareto_rows

    trials = list(study.trials.values())
    ended = datetime.now(UTC).isoformat(timespec="seconds") if ending == "finished" else None
    n_reused = sum(o.reused_from != "" for t in trials for o in t.observations if o.share >= 1.0)
    write_plan(run_dir, {**plan, "ended_utc": ended, "n_folds_reused": n_reused})
    write_tables(run_dir, trial_rows(trials), fold_rows(trials))
    board, said = page.write(RunFolder(run_dir))
    if board.leader is not None:
        write_best(setup, run_dir, study.trials, board.leader.trial_id)
    console.show(board, run_dir, said)
    if len(study.charter.objectives) > 1:
        front = pareto_rows(trials, study.charter.objectives, study.charter.constraints)
        write_pareto(run_dir, front)
        console.show_pareto(front, run_dir)
    if n_reused:
        print(
            f"{n_reused} folds were not trained: their results are known from before ({results_folder(setup, run_dir)})"
        )
    if ending != "finished":
        print(f"{ending}: go on with   python search/run.py --resume {run_dir}")
    if study.stop_reason:
        print(f"the search stopped: {study.stop_reason}")
    return 130 if ending == "interrupted" else 0 if board.ranked else 1
