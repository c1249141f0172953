"""What a check of a data file says: facts, and findings with their count and first place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning", "note"]
OF_THE_OPTION = ("bid", "ask", "iv", "ivr", "delta", "gamma", "theta", "vega")
"""Columns that differ from strike to strike, in a market."""
MIN_ROWS = 5
"""Fewer equal values are no evidence of a placeholder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of thing found.

    Attributes:
        severity: `error`: the file cannot be used as it is; `warning`: rows are masked or somebody should look; `note`:
            good to know.
        what: In words.
        count: How many rows, gaps or sessions; 0 where counting means nothing.
        first: Where the first one is; empty where there is no place.
    """

    severity: Severity
    what: str
    count: int = 0
    first: str = ""

    def __str__(self) -> str:
        count = f" ({self.count:,})" if self.count else ""
        return f"{self.severity}: {self.what}{count}" + (f"; first: {self.first}" if self.first else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Facts and findings of one symbol of a file, or of a file."""

    title: str
    facts: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        lines = [self.title, *(f"  {name}: {value}" for name, value in self.facts.items())]
        return "\n".join([*lines, *(f"  {finding}" for finding in self.findings)])


def stamp(time_ns: int) -> str:
    """Return an instant as text, UTC to the second."""
    return f"{np.datetime64(int(time_ns), 'ns').astype('datetime64[s]')}Z".replace("T", " ")


def at_rows(severity: Severity, what: str, bad: NDArray[np.bool_], times: NDArray[np.int64]) -> tuple[Finding, ...]:
    """Return a finding about the rows where `bad` holds, or none."""
    rows = np.flatnonzero(bad)
    if len(rows) == 0:
        return ()
    first = f"row {rows[0] + 1}, {stamp(times[rows[0]])}"
    return (Finding(severity=severity, what=what, count=len(rows), first=first),)


def constant_columns(columns: Mapping[str, NDArray[Any]]) -> tuple[Finding, ...]:
    """Return a finding for each column of numbers that has no value, or only one (DATA-31)."""
    found = []
    for name, values in columns.items():
        known = values[~np.isnan(values)] if np.issubdtype(values.dtype, np.floating) else values
        if len(known) == 0:
            found.append(Finding(severity="note", what=f"{name} has no value"))
        elif len(known) >= MIN_ROWS and (known == known[0]).all():
            found.append(Finding(severity="warning", what=f"{name} is {known[0]:g} in every row", count=len(known)))
    return tuple(found)


def placeholder_columns(columns: Mapping[str, NDArray[Any]]) -> tuple[Finding, ...]:
    """Return a finding for each column that should differ from strike to strike and does not (DATA-17, C-3).

    Args:
        columns: Among them `strike`; of the others those in `OF_THE_OPTION` are looked at.
    """
    strike = columns["strike"]
    if len(strike) < MIN_ROWS or (strike == strike[0]).all():
        return ()
    return tuple(
        Finding(
            severity="warning",
            what=f"{name} is {columns[name][0]:g} at every strike: it looks like a placeholder",
            count=len(strike),
        )
        for name in OF_THE_OPTION
        if name in columns and (columns[name] == columns[name][0]).all()
    )
