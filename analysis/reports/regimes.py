"""Trials by the state of the market: whether the order of quiet times is that of unquiet ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import spearmanr

from analysis import naive
from analysis.evidence import CommonEvidence

REGIMES = ("quiet", "usual", "unquiet")
"""Thirds of the rows by the spread of past targets, known when the row was decided upon."""
LEAST_ROWS = 20
LEAST_TRIALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """The trials in one state of the market.

    Attributes:
        n_rows: Common timestamps in it.
        best: Trial with the lowest mean loss in it.
        place: Place of the trial that is best over all, 1 is first.
        agreement: Rank correlation of the trials' losses in it with those in the other two; None where undefined.
    """

    n_rows: int
    best: str
    place: int
    agreement: float | None


def by_regime(evidence: CommonEvidence | None, rows: pl.DataFrame | None) -> dict[str, Regime]:
    """Split the common timestamps into thirds by past volatility.

    Args:
        evidence: Losses of the trials on common timestamps.
        rows: Evidence of one trial with a target, which tells how large moves were.

    Returns:
        Empty where there is too little to split.
    """
    if evidence is None or rows is None or len(evidence.trial_ids) < LEAST_TRIALS:
        return {}
    state = states(rows)
    if state is None:
        return {}
    times = naive.nanoseconds(rows["timestamp"])
    place = np.searchsorted(times, evidence.timestamp).clip(0, len(times) - 1)
    state = np.where(times[place] == evidence.timestamp, state[place], -1)
    chosen = [np.flatnonzero(state == k) for k in range(len(REGIMES))]
    if min(map(len, chosen)) < LEAST_ROWS:
        return {}
    losses = np.array([evidence.loss_TK[r].mean(axis=0, dtype=np.float64) for r in chosen])
    sizes = np.array([len(r) for r in chosen])
    overall = int((losses * sizes[:, None]).sum(axis=0).argmin())
    found = {}
    for k, name in enumerate(REGIMES):
        others = np.arange(len(REGIMES)) != k
        rest = (losses[others] * sizes[others, None]).sum(axis=0)
        both = np.ptp(losses[k]) > 0 and np.ptp(rest) > 0
        found[name] = Regime(
            n_rows=int(sizes[k]),
            best=evidence.trial_ids[int(losses[k].argmin())],
            place=int((losses[k] < losses[k, overall]).sum()) + 1,
            agreement=float(spearmanr(losses[k], rest).statistic) if both else None,
        )
    return found


def states(rows: pl.DataFrame) -> NDArray[np.int64] | None:
    """Return for each row its third by past volatility, 0 to 2, -1 where none is known yet; None without targets."""
    scale = naive.past_scale(rows)
    if scale is None or not np.isfinite(scale).any():
        return None
    bounds = np.nanquantile(scale, [1 / 3, 2 / 3])
    return np.where(np.isfinite(scale), np.digitize(scale, bounds), -1)


def sentences(found: Mapping[str, Regime], n_trials: int) -> list[str]:
    """Return whether the order holds over states of the market."""
    known = [(name, r.agreement) for name, r in found.items() if r.agreement is not None]
    if not known:
        return []
    name, lowest = min(known, key=lambda pair: pair[1])
    places = ", ".join(f"{r.place} in {n} times" for n, r in found.items())
    return [
        f"By past volatility, the order of {n_trials} trials in {name} times agrees least with that of the others "
        f"(rank correlation {lowest:+.2f}); the trial with the lowest loss over all is number {places}."
    ]
