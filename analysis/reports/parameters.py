"""Parameters of the ranked trials on the scale of the search: for importance, slices, drift, and the ends of ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.measures.importance import Axis, axis
from analysis.reports.leaderboard import Entry
from analysis.run_folder import RunFolder
from analysis.space_ranges import ranges

EDGE = 0.03
"""Share of a range, on the scale of the search, that counts as its end."""
TOP = 5
"""Best trials whose median place is looked at: one alone may lie anywhere."""


def axes_of(run: RunFolder, entries: Sequence[Entry]) -> dict[str, Axis]:
    """Return the parameters that vary over the entries, coded on the range of the space where it is known."""
    return _axes(run, {name: [e.parameters.get(name) for e in entries] for name in run.parameters})


def numeric_places(run: RunFolder, trial_ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return numeric parameters of the given trials, 0 to 1 on the scale of the search; NaN where not active."""
    rows = pl.DataFrame({"trial_id": list(trial_ids)}).join(
        run.trials, on="trial_id", how="left", maintain_order="left"
    )
    axes = _axes(run, {name: rows[f"param.{name}"].to_list() for name in run.parameters})
    return {name: a.values for name, a in axes.items() if not a.n_categories}


def at_an_edge(axes: Mapping[str, Axis], entries: Sequence[Entry]) -> list[str]:
    """Describe the numeric parameters whose best trials lie at an end of the range: widen it, and search again."""
    found = []
    for name, a in axes.items():
        best = a.values[: min(TOP, len(entries))]
        best = best[np.isfinite(best)]
        if a.n_categories or len(entries) < 2 * TOP or len(best) < TOP or len(np.unique(a.values)) <= 6:
            continue
        place = float(np.median(best))
        if place <= EDGE or place >= 1 - EDGE:
            end, bound = ("lower", a.low) if place <= EDGE else ("upper", a.high)
            found.append(
                f"Edge of the range: the best {TOP} trials have {name} at its {end} end ({bound:g}); "
                f"better values may lie beyond it."
            )
    return found


def _axes(run: RunFolder, columns: Mapping[str, Sequence[object]]) -> dict[str, Axis]:
    known = ranges(run.path)
    found = {}
    for name, values in columns.items():
        if len({repr(v) for v in values}) < 2:
            continue
        if (limits := known.get(name)) is not None:
            found[name] = axis(values, low=limits.low, high=limits.high, is_log=limits.is_log)
        else:
            found[name] = axis(values)
    return found
