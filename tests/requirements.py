"""`python -m tests.requirements`: which requirement ids of the specification a passing test proves."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

PROVEN = Path(__file__).parent.parent / ".pytest_cache" / "requirements.json"


def main() -> int:
    """Print one line per id: proven or not, by how many tests, and whether it needs a GPU or a cluster."""
    if not PROVEN.exists():
        print("requirements: no test run is recorded; type `make test` first", file=sys.stderr)
        return 2
    table = json.loads(PROVEN.read_text(encoding="utf-8"))
    n_proven = 0
    for name in sorted(table, key=_natural):
        outcomes = [row["outcome"] for row in table[name].values()]
        is_proven = "passed" in outcomes and "failed" not in outcomes
        n_proven += is_proven
        needs = sorted({need for row in table[name].values() for need in row["needs"]})
        note = f"  needs a {' and a '.join(needs)}" if needs else ""
        word, n_passed = "proven" if is_proven else "OPEN  ", outcomes.count("passed")
        print(f"{word}  {name:<14} {n_passed} of {len(outcomes)} tests{note}")
    print(f"{n_proven} of {len(table)} marked requirements are proven")
    return 0


def _natural(name: str) -> list[object]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


if __name__ == "__main__":
    sys.exit(main())
