"""What a trial's evidence says about its skill: against a naive forecast, and by horizon (ANALYSIS-2, ANALYSIS-4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from analysis import naive
from analysis.measures import baselines, crps, ic
from analysis.measures.long_run import mean_with_error


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


def ic_by_horizon(evidence: pl.DataFrame) -> dict[str, ic.IcEstimate]:
    """Return the rank correlation over all folds for each horizon where it is defined, with an overlap-proof error."""
    found = {}
    for horizon in naive.horizons(evidence.columns):
        prediction, target = (evidence[f"{what}_{horizon}"].to_numpy() for what in ("prediction", "target"))
        rows = naive.horizon_rows(evidence["timestamp"], horizon)
        estimate = ic.estimate(prediction.astype(float), target.astype(float), horizon_rows=rows)
        if estimate is not None:
            found[horizon] = estimate
    return found


def against_baseline(evidence: pl.DataFrame) -> list[Skill]:
    """Compare a trial with a naive forecast on the same rows, as far as its evidence allows.

    Where the evidence brings the scores of the naive forecast of ANALYSIS-4 these are used. Otherwise, for each horizon
    with a predicted scale, the better of two zero-mean normal forecasts that know past targets only, see
    `naive.naive_crps`; the first fold is then left out. Without a scale, what `naive.advantage` can compare.

    Returns:
        Empty where the evidence lets nothing be compared.
    """
    brought = [_brought(evidence, m) for m in ("crps", "loss") if {m, f"baseline_{m}"} <= set(evidence.columns)]
    if brought:
        return [skill for skill in brought if skill is not None]
    made = [
        _from_earlier_folds(evidence, h) for h in naive.horizons(evidence.columns) if f"scale_{h}" in evidence.columns
    ]
    if not made and (gain := naive.advantage(evidence)) is not None:
        made = [_skill(gain.measure, gain.baseline, gain.own, gain.naive)]
    return [skill for skill in made if skill is not None]


def _brought(evidence: pl.DataFrame, measure: str) -> Skill | None:
    own, other = (evidence[c].cast(pl.Float64).to_numpy() for c in (measure, f"baseline_{measure}"))
    return _skill(
        measure.upper() if measure == "crps" else measure, "the naive forecast of the training rows", own, other
    )


def _from_earlier_folds(evidence: pl.DataFrame, horizon: str) -> Skill | None:
    columns = (f"target_{horizon}", f"prediction_{horizon}", f"scale_{horizon}")
    target, prediction, scale = (evidence[c].cast(pl.Float64).to_numpy() for c in columns)
    rows = naive.horizon_rows(evidence["timestamp"], horizon)
    score, words = naive.naive_crps(target, evidence["fold"].to_numpy(), rows)
    return _skill(f"CRPS at {horizon}", words, crps.gaussian(target, prediction, scale), score)


def _skill(measure: str, baseline: str, own: np.ndarray, other: np.ndarray) -> Skill | None:
    known = np.isfinite(own) & np.isfinite(other)
    if not known.any() or not other[known].mean() > 0:
        return None
    saving = mean_with_error(other[known] - own[known])
    t = saving.mean / saving.error if saving.error else None
    return Skill(
        measure=measure,
        baseline=baseline,
        reduction=baselines.relative_reduction(float(own[known].mean()), float(other[known].mean())),
        t=t,
        p=two_sided_p(t, saving.degrees_of_freedom),
        n_rows=int(known.sum()),
    )


def two_sided_p(t: float | None, degrees_of_freedom: int | None) -> float | None:
    """Return the two-sided p of Student's t; None where either argument is."""
    if t is None or degrees_of_freedom is None:
        return None
    return float(2 * stats.t.sf(abs(t), degrees_of_freedom))
