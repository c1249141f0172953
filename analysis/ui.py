"""`make ui`: serve the MLflow pages of a run folder on this machine only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def newest_run(runs: Path) -> Path | None:
    """Return the run folder below `runs` whose tracking database changed last, or None."""
    found = sorted(runs.glob("*/mlflow.db"), key=lambda p: p.stat().st_mtime)
    return found[-1].parent if found else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace this process by an MLflow server bound to loopback; exit 2 where there is no run to show."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    run = Path(given[0]) if given else newest_run(Path("runs"))
    if run is None or not (run / "mlflow.db").is_file():
        print(
            f"ui: expected a run folder with mlflow.db, found {run or 'none below runs/'}; type `make search` first",
            file=sys.stderr,
        )
        return 2
    port = os.environ.get("PORT", "5000")
    print(f"http://127.0.0.1:{port}/#/experiments/1/runs   (Ctrl-C ends it)", flush=True)
    server = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--host",
        "127.0.0.1",
        "--port",
        port,
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{(run / 'mlflow.db').resolve()}",
    ]
    os.execve(sys.executable, server, {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


if __name__ == "__main__":
    sys.exit(main())
