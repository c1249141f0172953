"""Print the ranking of a run: `python -m analysis.rank RUN [--order merged|condor_doc] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.measures import ranking
from analysis.reports import console, leaderboard
from analysis.reports.leaderboard import Leaderboard
from analysis.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table or JSON; return 0, or 2 where the folder is no run. Nothing is written."""
    parser = argparse.ArgumentParser(prog="python -m analysis.rank", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN")
    parser.add_argument(
        "--order", choices=tuple(ranking.ORDERS), help="order of the criteria; default: that of the plan"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    asked = parser.parse_args(arguments)
    try:
        board = leaderboard.build(RunFolder(asked.run_dir), order=asked.order)
    except ValueError as error:
        print(f"rank: {error}", file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps(_rows(board), indent=2))
    else:
        console.show(board, asked.run_dir)
    return 0


def _rows(board: Leaderboard) -> list[dict[str, object]]:
    return [
        {
            "rank": e.rank,
            "is_tied": e.is_tied,
            "is_pareto": e.is_pareto,
            "trial_id": e.trial_id,
            "state": e.state,
            "n_folds": e.n_folds,
            "values": dict(e.values),
            "errors": dict(e.errors),
            "parameters": dict(e.parameters),
        }
        for e in (*board.ranked, *board.unranked)
    ]


if __name__ == "__main__":
    sys.exit(main())
