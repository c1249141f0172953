"""What a trial's evidence says about its skill: against a naive forecast, and by horizon (ANALYSIS-2, ANALYSIS-4)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from analysis.measures import baselines, crps, ic
from analysis.measures.long_run import mean_with_error

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """How much of a naive forecast's score a trial saves.

    Attributes:
        measure: What is scored, for a reader: `CRPS at 1d`, `loss`.
        baseline: What the naive forecast is, for a reader.
        reduction: 1 - score / baseline score; negative where the trial is worse.
        t: Mean saving per row over its EWC standard error; None with too few rows.
        p: Two-sided, of no difference, for one comparison chosen beforehand; None with `t`.
        n_rows: Rows compared.
    """

    measure: str
    baseline: str
    reduction: float
    t: float | None
    p: float | None
    n_rows: int


def horizons(evidence: pl.DataFrame) -> list[str]:
    """Return the horizon labels that have both a prediction and a target, in order of length."""
    labels = [c.removeprefix("prediction_") for c in evidence.columns if c.startswith("prediction_")]
    known = [h for h in labels if f"target_{h}" in evidence.columns]
    return sorted(known, key=lambda h: (_seconds(h) or math.inf, h))


def ic_by_horizon(evidence: pl.DataFrame) -> dict[str, ic.IcEstimate]:
    """Return the rank correlation over all folds for each horizon where it is defined, with an overlap-proof error."""
    found = {}
    for horizon in horizons(evidence):
        prediction, target = (evidence[f"{what}_{horizon}"].to_numpy() for what in ("prediction", "target"))
        rows = horizon_rows(evidence["timestamp"], horizon)
        estimate = ic.estimate(prediction.astype(float), target.astype(float), horizon_rows=rows)
        if estimate is not None:
            found[horizon] = estimate
    return found


def against_baseline(evidence: pl.DataFrame) -> list[Skill]:
    """Compare a trial with a naive forecast on the same rows, as far as its evidence allows.

    Where the evidence brings the scores of the naive forecast of ANALYSIS-4 these are used. Otherwise, for each horizon
    with a predicted scale, the zero-mean normal forecast whose scale is that of the targets of all earlier folds; the
    first fold is then left out. (The last targets of a fold may reach into the next: a help to the naive forecast.)

    Returns:
        Empty where the evidence lets nothing be compared.
    """
    brought = [_brought(evidence, m) for m in ("crps", "loss") if {m, f"baseline_{m}"} <= set(evidence.columns)]
    if brought:
        return [skill for skill in brought if skill is not None]
    made = [_from_earlier_folds(evidence, h) for h in horizons(evidence) if f"scale_{h}" in evidence.columns]
    return [skill for skill in made if skill is not None]


def horizon_rows(timestamps: pl.Series, horizon: str) -> int:
    """Return how many rows a horizon such as `5d` or `30m` spans at the usual step of the rows; 1 where unknown."""
    seconds = _seconds(horizon)
    if seconds is None or len(timestamps) < 2:
        return 1
    steps = np.diff(timestamps.cast(pl.Datetime("ns"), strict=False).cast(pl.Int64).to_numpy()) / 1e9
    step = float(np.median(steps))
    return max(1, round(seconds / step)) if step > 0 else 1


def _brought(evidence: pl.DataFrame, measure: str) -> Skill | None:
    own, naive = (evidence[c].cast(pl.Float64).to_numpy() for c in (measure, f"baseline_{measure}"))
    return _skill(
        measure.upper() if measure == "crps" else measure, "the naive forecast of the training rows", own, naive
    )


def _from_earlier_folds(evidence: pl.DataFrame, horizon: str) -> Skill | None:
    columns = (f"target_{horizon}", f"prediction_{horizon}", f"scale_{horizon}")
    target, prediction, scale = (evidence[c].cast(pl.Float64).to_numpy() for c in columns)
    fold = evidence["fold"].to_numpy()
    naive = np.full(len(target), math.nan)
    for number in np.unique(fold)[1:]:
        rows, before = fold == number, target[fold < number]
        if np.isfinite(before).any():
            naive[rows] = baselines.zero_mean_gaussian_crps(target[rows], baselines.scale_of(before))
    own = crps.gaussian(target, prediction, scale)
    return _skill(f"CRPS at {horizon}", "a zero-mean normal with the spread of earlier folds", own, naive)


def _skill(measure: str, baseline: str, own: np.ndarray, naive: np.ndarray) -> Skill | None:
    known = np.isfinite(own) & np.isfinite(naive)
    if not known.any() or not naive[known].mean() > 0:
        return None
    saving = mean_with_error(naive[known] - own[known])
    t = saving.mean / saving.error if saving.error else None
    return Skill(
        measure=measure,
        baseline=baseline,
        reduction=baselines.relative_reduction(float(own[known].mean()), float(naive[known].mean())),
        t=t,
        p=two_sided_p(t, saving.degrees_of_freedom),
        n_rows=int(known.sum()),
    )


def two_sided_p(t: float | None, degrees_of_freedom: int | None) -> float | None:
    """Return the two-sided p of Student's t; None where either argument is."""
    if t is None or degrees_of_freedom is None:
        return None
    return float(2 * stats.t.sf(abs(t), degrees_of_freedom))


def _seconds(horizon: str) -> int | None:
    found = re.fullmatch(r"(\d+)([smhd])", horizon)
    return int(found[1]) * _SECONDS[found[2]] if found else None
