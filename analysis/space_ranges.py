"""The ranges that a search could choose from, read from the resolved space file of its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Ends of a number's range, inclusive, and whether it is searched on a logarithmic scale."""

    low: float
    high: float
    is_log: bool


def ranges(run_dir: Path) -> dict[str, Range]:
    """Return the ranges of all numeric parameters of `space.yaml`; empty where the file is missing or no space.

    A report must open without it: ranges then show as what was tried.
    """
    try:
        content = YAML(typ="safe", pure=True).load((run_dir / "space.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError):
        return {}
    parameters = content.get("parameters") if isinstance(content, Mapping) else None
    found = {name: _range(entry) for name, entry in parameters.items()} if isinstance(parameters, Mapping) else {}
    return {str(name): value for name, value in found.items() if value is not None}


def _range(entry: Any) -> Range | None:
    if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry):
        return None
    low, high = entry["low"], entry["high"]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (low, high)):
        return None
    return Range(low=float(low), high=float(high), is_log=bool(entry.get("log", False)))
