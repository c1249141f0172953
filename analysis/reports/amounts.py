"""Numbers as a reader sees them: with the decimals that their error leaves meaning."""

from __future__ import annotations

from analysis.reports.leaderboard import Entry

FINEST = 6
"""Most decimals of a fixed number; smaller errors are written with an exponent."""


def amount(entry: Entry, metric: str, digits: int | None = None) -> str:
    """Return a measure as text, `0.842 ± 0.013`, with the decimals that its error leaves meaning, or the given ones."""
    value, error = entry.values.get(metric), entry.errors.get(metric)
    if value is None:
        return "–"
    if error is None:
        return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    shown = decimals(error) if digits is None else digits
    return f"{value:.{shown}f} ± {error:.{shown}f}"


def decimals(error: float) -> int:
    """Return the decimals that show two significant digits of a standard error, at most `FINEST`; four for zero."""
    exponent = int(f"{error:.1e}".split("e")[1])
    return max(0, min(FINEST, 1 - exponent)) if error > 0 else 4


def with_error(value: float, error: float | None, sign: str = "") -> str:
    """Return `0.842 ± 0.013`, both to two significant digits of the error; `sign` is `+` to show it always."""
    if error is None or error == 0:
        return f"{value:{sign}.4g}"
    if error < 10**-FINEST:
        return f"{value:{sign}.1e} ± {error:.1e}"
    shown = decimals(error)
    return f"{value:{sign}.{shown}f} ± {error:.{shown}f}"
