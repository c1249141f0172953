"""How good the neighbours of a configuration are: a winner among bad neighbours is luck, one on a plateau is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.measures.importance import Axis

Float = NDArray[np.float64]
N_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """The neighbourhood of a trial in the space of hyperparameters.

    Attributes:
        neighbours: (k,) positions of the nearest other trials, nearest first.
        distance: (k,) Gower distances, 0 to 1.
        rise: Mean loss of the neighbours minus that of the trial, in units of the loss.
        error: Standard error of `rise` over the neighbours; None for one neighbour.
        share: Share of all other trials whose loss is above the neighbours' mean: near 1 on a plateau of the best, one
            half where the neighbours are as anybody else, and the trial alone stands out.
    """

    neighbours: tuple[int, ...]
    distance: tuple[float, ...]
    rise: float
    error: float | None
    share: float


def plateau(axes: Sequence[Axis], losses: ArrayLike, trial: int, *, n_neighbours: int = N_NEIGHBOURS) -> Plateau | None:
    """Look at the nearest trials of one trial.

    Gower's distance (1971): the mean over parameters of the distance on the scale of the search, 0 or 1 for categories
    and for a parameter that only one of both has.

    Args:
        axes: Parameters that vary, of all trials.
        losses: (n_trials,) finite losses of the same trials.
        trial: Position of the trial.
        n_neighbours: How many are looked at, where there are so many.

    Returns:
        None without another trial or without a parameter that varies.

    Raises:
        ValueError: Lengths differ.
    """
    y = np.asarray(losses, dtype=np.float64)
    if any(len(a.values) != len(y) for a in axes):
        raise ValueError(f"axes, losses: expected one value a trial, {len(y)}, found {[len(a.values) for a in axes]}")
    others = np.flatnonzero(np.arange(len(y)) != trial)
    if not len(others) or not axes:
        return None
    distance = gower(axes, trial)
    near = others[np.argsort(distance[others], kind="stable")[:n_neighbours]]
    rises = y[near] - y[trial]
    return Plateau(
        neighbours=tuple(int(k) for k in near),
        distance=tuple(float(d) for d in distance[near]),
        rise=float(rises.mean()),
        error=float(rises.std(ddof=1) / math.sqrt(len(rises))) if len(rises) > 1 else None,
        share=float((y[others] > y[near].mean()).mean()),
    )


def gower(axes: Sequence[Axis], trial: int) -> Float:
    """Return Gower's distance of every trial to one, (n_trials,)."""
    parts = []
    for a in axes:
        known, here = np.isfinite(a.values), a.values[trial]
        gap = np.abs(a.values - here) if not a.n_categories else (a.values != here).astype(np.float64)
        both = known & np.isfinite(here)
        parts.append(np.where(both, np.minimum(np.nan_to_num(gap, nan=1.0), 1.0), (known != np.isfinite(here)) * 1.0))
    return np.mean(parts, axis=0)
