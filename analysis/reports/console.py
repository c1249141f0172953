"""The ranking as a table on standard output, and what to type next."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.reports import amounts, final, verdict
from analysis.reports.leaderboard import SHOWN, Leaderboard
from analysis.reports.verdict import Verdict
from analysis.run_folder import RunFolder
from analysis.vault import FinalScore, Opening

MOST_ROWS = 12
"""Rows printed; all are in ranking.csv."""


def show(board: Leaderboard, run_dir: Path, said: Verdict | None = None, console: Console | None = None) -> None:
    """Print the ranked trials, how many ended in which other state, the verdict if given, and the next commands."""
    out = console or Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    out.print(_table(board) if board.ranked else "no trial visited every fold: nothing can be ranked")
    states = ", ".join(f"{n} {state}" for state, n in board.counts().items())
    out.print(f"{sum(board.counts().values())} trials: {states}")
    if said is not None:
        out.print(said.headline, style="bold")
    out.print(f"next:  open {run_dir}/report.html")
    out.print("       make ui")
    if board.ranked:
        out.print(f"       python -m trainables.train --config {run_dir}/best_config.yaml")


def show_pareto(front: Mapping[str, Any], run_dir: Path, console: Console | None = None) -> None:
    """Print the Pareto set of a search over several objectives, as `pareto.json` has it."""
    out = console or Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if not front["trials"]:
        out.print("Pareto set: empty, no trial is complete and within all constraints")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Pareto set")
    for objective in front["objectives"]:
        table.add_column(f"{objective['metric']} ({objective['direction']})", justify="right")
    for row in front["trials"][:MOST_ROWS]:
        table.add_row(row["trial_id"], *(f"{row['values'][o['metric']]:.5g}" for o in front["objectives"]))
    out.print(table)
    more = len(front["trials"]) - MOST_ROWS
    out.print(f"{f'and {more} more: ' if more > 0 else ''}{run_dir}/pareto.json")


def show_final(
    run: RunFolder, ledger: Sequence[Opening], scores: Sequence[FinalScore], console: Console | None = None
) -> None:
    """Print what the vault said of the chosen trials, beside what the search had promised."""
    out = console or Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in final.HEAD:
        table.add_column(name, justify="left" if name == "trial" else "right")
    for score in scores:
        table.add_row(*final.cells(score))
    if scores:
        out.print(table)
    for sentence in final.sentences(run.plan, ledger, scores):
        out.print(sentence)
    for warning in final.warnings(ledger, run.n_tried):
        out.print(f"warning: {warning}", style="yellow")
    out.print(f"next:  open {run.path}/report.html")


def _table(board: Leaderboard) -> Table:
    metrics = [m for m in SHOWN if any(m in entry.values for entry in board.ranked)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("trial")
    for metric in metrics:
        table.add_column(verdict.METRIC_WORDS.get(metric, metric), justify="right")
    table.add_column("from")
    for entry in board.ranked[:MOST_ROWS]:
        rank = f"{entry.rank}{'=' if entry.is_tied else ''}"
        cells = [amounts.amount(entry, metric) for metric in metrics]
        table.add_row(rank, entry.trial_id, *cells, entry.origin, style="bold" if entry.rank == 1 else None)
    return table
