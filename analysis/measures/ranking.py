"""Order of trials: criteria one after another with a noise tolerance, ties as ties; the Pareto set (RANK-1, RANK-2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Direction = Literal["minimise", "maximise"]
Order = Literal["merged", "condor_doc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A measure that trials are compared by, and which way is better."""

    metric: str
    direction: Direction


ORDERS: Mapping[Order, tuple[Criterion, ...]] = {
    "merged": (
        Criterion(metric="val_loss", direction="minimise"),
        Criterion(metric="ic", direction="maximise"),
        Criterion(metric="crps", direction="minimise"),
        Criterion(metric="flatness", direction="minimise"),
        Criterion(metric="regime_accuracy", direction="maximise"),
    ),
    "condor_doc": (
        Criterion(metric="val_loss", direction="minimise"),
        Criterion(metric="curve_flatness", direction="minimise"),
        Criterion(metric="regime_accuracy", direction="maximise"),
    ),
}
"""The orders of RANK-1: `merged` keeps the criteria of both documents, `condor_doc` is the order of one (its 11.2)."""


def rank(values: ArrayLike, errors: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.int64]:
    """Return the rank of each trial, 1 is best; equal numbers are ties and the next number is skipped (1, 2, 2, 4).

    A criterion decides only where the earlier ones tie. Who ties is settled from the top: the best of those left leads,
    all within one standard error of it join it, and the next criterion orders this group in the same way; then the best
    of the rest leads. (Pairwise tolerance would not be transitive and so no order.) RANK-1, C-60.

    Args:
        values: (n, k), criteria in order of importance. NaN: not known; such trials come last in that criterion.
        errors: (n, k) standard errors over folds; NaN (one fold): only equal values tie.
        directions: (k,) which way is better.

    Returns:
        (n,) int64.

    Raises:
        ValueError: Shapes do not fit, a value is infinite, or an error is negative.
    """
    scores, tolerances = _oriented(values, directions), np.asarray(errors, dtype=np.float64)
    if tolerances.shape != scores.shape:
        raise ValueError(f"errors: expected the shape of values, {scores.shape}, found {tolerances.shape}")
    if (tolerances < 0).any():
        raise ValueError(f"errors: expected zero or more, found {float(np.nanmin(tolerances))}")
    ranks = np.zeros(len(scores), dtype=np.int64)
    place = 1
    for tied in _groups(np.arange(len(scores)), scores, np.nan_to_num(tolerances, nan=0.0), 0):
        ranks[tied] = place
        place += len(tied)
    return ranks


def within_one_error(values: ArrayLike, errors: ArrayLike, direction: Direction) -> NDArray[np.bool_]:
    """Return which trials lie within one standard error of the best one, itself included; NaN never does.

    Args:
        values: (n,) one criterion.
        errors: (n,) standard errors; NaN counts as zero.
        direction: Which way is better.

    Raises:
        ValueError: As in `rank`.
    """
    column = np.asarray(values, dtype=np.float64)[:, None]
    scores = _oriented(column, (direction,))[:, 0]
    known = np.flatnonzero(np.isfinite(scores))
    chosen = np.zeros(len(scores), dtype=np.bool_)
    if len(known):
        tolerances = np.nan_to_num(np.asarray(errors, dtype=np.float64), nan=0.0)
        chosen[_leading(known, scores, tolerances)] = True
    return chosen


def pareto(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Return which trials no other trial beats: at least as good in every criterion and better in one.

    Equal trials do not beat one another. A trial with a NaN is never in the set and beats nobody.

    Args:
        values: (n, k) criteria.
        directions: (k,) which way is better.

    Raises:
        ValueError: Shapes do not fit, or a value is infinite.
    """
    scores = _oriented(values, directions)
    known = ~np.isnan(scores).any(axis=1)
    chosen = known.copy()
    for i in np.flatnonzero(known):
        as_good = (scores[known] <= scores[i]).all(axis=1)
        better = (scores[known] < scores[i]).any(axis=1)
        chosen[i] = not (as_good & better).any()
    return chosen


def _oriented(values: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.float64]:
    """Turn every criterion into one to be minimised: signs turn here and nowhere else."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(directions):
        raise ValueError(f"values: expected shape (n, k) with k = {len(directions)} criteria, found {matrix.shape}")
    if np.isinf(matrix).any():
        raise ValueError("values: expected finite values or NaN, found infinity; a diverged trial is not ranked")
    unknown = set(directions) - {"minimise", "maximise"}
    if unknown:
        raise ValueError(f"directions: expected 'minimise' or 'maximise', found {sorted(unknown)}")
    return matrix * np.where(np.asarray(directions) == "maximise", -1.0, 1.0)


def _groups(
    rows: NDArray[np.int64], scores: NDArray[np.float64], tolerances: NDArray[np.float64], criterion: int
) -> list[NDArray[np.int64]]:
    if criterion == scores.shape[1] or len(rows) == 1:
        return [rows] if len(rows) else []
    column, tolerance = scores[:, criterion], tolerances[:, criterion]
    left = rows[np.isfinite(column[rows])]
    missing = rows[~np.isfinite(column[rows])]
    found: list[NDArray[np.int64]] = []
    while len(left):
        tied = _leading(left, column, tolerance)
        found += _groups(tied, scores, tolerances, criterion + 1)
        left = np.setdiff1d(left, tied)
    return found + _groups(missing, scores, tolerances, criterion + 1)


def _leading(rows: NDArray[np.int64], column: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows within the leader's tolerance of it. Of equal leaders the smallest tolerance counts."""
    best = column[rows].min()
    reach = tolerance[rows[column[rows] == best]].min()
    return rows[column[rows] <= best + reach]
