"""Write the report of a run again: `python -m analysis.report RUN_DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.reports import page
from analysis.run_folder import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Write `ranking.csv` and `report.html`; return 0, 2 where the folder is no run, 4 where it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a search: its last line of output")
    run_dir = parser.parse_args(arguments).run_dir
    try:
        page.write(RunFolder(run_dir))
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"report: {run_dir}: cannot write the report: {error.strerror}; check rights and space", file=sys.stderr)
        return 4
    print(run_dir / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
