"""Compare two searches trial by trial on common timestamps: `python -m analysis.compare RUN_A RUN_B [--json]`.

The leaders of both runs are compared by their paired loss, and all trials of both stand in one confidence set.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis import paired
from analysis.paired import Comparison
from analysis.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; return 0, or 2 where a folder is no run or nothing can be compared."""
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description=__doc__)
    parser.add_argument("run_a", type=Path, metavar="RUN_A")
    parser.add_argument("run_b", type=Path, metavar="RUN_B")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    asked = parser.parse_args(arguments)
    try:
        found = paired.compare(RunFolder(asked.run_a), RunFolder(asked.run_b))
    except ValueError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps(_body(found), indent=2))
    else:
        _show(found)
    return 0


def _body(found: Comparison) -> dict[str, Any]:
    return {
        "best": [found.best_a, found.best_b],
        "loss": [found.loss_a, found.loss_b],
        "a_minus_b": found.difference.mean,
        "a_minus_b_se": found.difference.error,
        "p": found.p,
        "n_timestamps": found.difference.n_rows,
        "level": found.level,
        "confidence_set": [list(found.members_a), list(found.members_b)],
        "n_trials": [found.n_a, found.n_b],
        "notes": list(found.notes),
    }


def _show(found: Comparison) -> None:
    out = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "best trial", "loss", "trials", f"in the {found.level:.0%} set"):
        table.add_column(name, justify="left" if name in ("run", "best trial") else "right")
    rows = (("A", found.best_a, found.loss_a, found.n_a, found.members_a),)
    rows += (("B", found.best_b, found.loss_b, found.n_b, found.members_b),)
    for name, best, loss, n, members in rows:
        table.add_row(name, best, f"{loss:.5g}", str(n), str(len(members)))
    out.print(table)
    error = "" if found.difference.error is None else f" ± {found.difference.error:.2g}"
    p = "" if found.p is None else f", p = {found.p:.3f}"
    if found.difference.mean == 0 and not found.difference.error:
        out.print(f"Their losses are equal on every one of {found.difference.n_rows} common timestamps.")
    else:
        out.print(f"A minus B on {found.difference.n_rows} common timestamps: {found.difference.mean:+.5g}{error}{p}")
    for note in found.notes:
        out.print(note)


if __name__ == "__main__":
    sys.exit(main())
