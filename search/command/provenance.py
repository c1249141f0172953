"""What made a search: code, packages and the file that locks them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "deepspeed", "ray", "optuna", "mlflow", "numpy", "pyarrow", "arch")
"""Those whose version may change a result."""


def provenance() -> dict[str, Any]:
    """Return commit (with `+` where the tree was changed), versions and the lock file's hash (REPRO-2)."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "versions": {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in PACKAGES},
        "constraints_sha256": hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()[:16],
    }


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
