"""Evaluate phase gates and acceptance checks on the leader of a run: `python -m analysis.gates RUN [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.measures.gates import Gate
from analysis.reports import gate_inputs, leaderboard
from analysis.run_folder import RunFolder

WHAT: Mapping[str, str] = {
    "GATE-0": "is it worth going on",
    "GATE-1": "phase 1: plain Transformer",
    "GATE-2": "phase 2: against phase 1",
    "GATE-3": "phase 3: tails",
    "GATE-4": "accuracy ladder",
    "ACC-1": "directional accuracy",
    "ACC-2": "net Sharpe ratio",
    "ACC-3": "profit in most folds",
    "ACC-4": "recent folds no worse",
    "ACC-5": "steady over folds, no look-ahead",
    "ACC-6": "few NaN",
    "ACC-7": "what the Grok document hopes for",
}
"""What each asks, for a reader."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every gate with outcome, margin and reason; return 0, or 2 where the folder is no run or has no leader."""
    parser = argparse.ArgumentParser(prog="python -m analysis.gates", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    parser.add_argument("--phase-1", type=Path, metavar="RUN", help="phase 1 run on the same folds, for GATE-2")
    asked = parser.parse_args(arguments)
    try:
        run = RunFolder(asked.run_dir)
        leader = leaderboard.build(run).leader
        if leader is None:
            raise ValueError(f"{asked.run_dir}: expected a complete trial to evaluate, found none")
        gates = gate_inputs.evaluate(run, leader, RunFolder(asked.phase_1) if asked.phase_1 else None)
    except ValueError as error:
        print(f"gates: {error}", file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps({"trial_id": leader.trial_id, "gates": [asdict(g) for g in gates]}, indent=2))
    else:
        _show(leader.trial_id, gates)
    return 0


def _show(trial_id: str, gates: Sequence[Gate]) -> None:
    out = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"gates of {trial_id}", title_justify="left")
    table.add_column("gate")
    table.add_column("what it asks")
    table.add_column("outcome")
    table.add_column("margin", justify="right")
    table.add_column("reason")
    for g in gates:
        table.add_row(
            g.name, WHAT.get(g.name, ""), g.outcome, "–" if g.margin is None else f"{g.margin:+.4g}", g.reason
        )
    out.print(table)


if __name__ == "__main__":
    sys.exit(main())
