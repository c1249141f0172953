"""Judge the documents' hypotheses by an ablation search: `python -m analysis.hypotheses RUN [--json]`.

Make the search by `python search/run.py --space spaces/grok_ablation.yaml` or `spaces/condor_modules.yaml`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.atomic import write_text
from analysis.reports import hypotheses
from analysis.reports.hypotheses import Judged
from analysis.run_folder import RunFolder

FILE = "hypotheses.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every claim with effect, interval and verdict, and write `hypotheses.json`; return 0, or 2 for no run."""
    parser = argparse.ArgumentParser(prog="python -m analysis.hypotheses", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    asked = parser.parse_args(arguments)
    try:
        judged = hypotheses.judge(RunFolder(asked.run_dir))
    except (ValueError, LookupError) as error:
        print(f"hypotheses: {error}", file=sys.stderr)
        return 2
    text = json.dumps([asdict(j) for j in judged], indent=2).replace("NaN", "null")
    write_text(asked.run_dir / FILE, text + "\n")
    if asked.json:
        print(text)
    else:
        _show(judged)
    return 0


def _show(judged: Sequence[Judged]) -> None:
    out = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if not judged:
        out.print(
            "no claim is about switches in which complete trials of this run differ; see spaces/grok_ablation.yaml"
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("claim", "what", "trials", "effect", "90 % interval", "asked", "verdict"):
        table.add_column(name, justify="right" if name in ("effect", "90 % interval", "asked") else "left")
    said = ""
    for j in judged:
        value = "–" if j.found is None or math.isnan(j.found.value) else f"{j.found.value:+.3f}"
        trials = " against ".join(filter(None, (j.base, j.ablated)))
        words = "the same" if j.words == said else j.words
        words, said = f"{words} ({j.reason})" if j.reason else words, j.words
        table.add_row(j.name, words, trials, value, _interval(j), f"{j.threshold:+.2f}", j.verdict.replace("_", " "))
    out.print(table)


def _interval(judged: Judged) -> str:
    found = judged.found
    return "–" if found is None or math.isnan(found.low) else f"{found.low:+.3f} to {found.high:+.3f}"


if __name__ == "__main__":
    sys.exit(main())
