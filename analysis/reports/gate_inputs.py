"""What the gates ask for, gathered from a run folder; nothing that is not stored is guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from analysis import naive
from analysis.measures import classification, gates, trading
from analysis.measures.gates import Gate
from analysis.reports.leaderboard import Entry
from analysis.run_folder import RunFolder

DAYS_PER_YEAR = 252.0


def evaluate(run: RunFolder, leader: Entry, phase_1: RunFolder | None = None) -> list[Gate]:
    """Return GATE-0 to GATE-4 and ACC-1 to ACC-7 of a trial.

    Args:
        run: Its run.
        leader: The trial.
        phase_1: Run of phase 1 on the same folds, for GATE-2.

    Raises:
        ValueError: The trial's evidence is broken.
    """
    values = leader.values
    evidence = run.evidence(leader.trial_id)
    crps, baseline = _crps(evidence)
    ic = values.get("ic")
    accuracy = values.get("accuracy", values.get("directional_accuracy"))
    folds = _by_fold(run, leader.trial_id)
    tail, n_tail = _tail(evidence)
    first = [
        gates.proceed(ic, crps, baseline),
        gates.phase_1(ic, run.plan.more.get("peak_vram_gib")),
        gates.phase_2(values.get("crps"), _phase_1_crps(run, phase_1)),
        gates.phase_3(tail, n_tail),
    ]
    pnl = _fold_pnl(evidence)
    return [
        *first,
        gates.ladder(accuracy, values.get("nan_rate")),
        gates.scalper_accuracy(values.get("directional_accuracy"), _majority(values)),
        gates.sharpe(_sharpe(evidence)),
        gates.consistent_profit(pnl),
        gates.no_recent_decline(pnl or folds.get("ic", ())),
        gates.no_overfitting(
            folds.get("train_loss", ()), folds.get("val_loss", ())[: len(folds.get("train_loss", ()))]
        ),
        gates.stable_training(folds.get("nan_rate", ())),
        gates.aspiration(ic, crps, baseline, first),
    ]


def _by_fold(run: RunFolder, trial_id: str) -> dict[str, list[float]]:
    own = run.folds.filter((pl.col("trial_id") == trial_id) & (pl.col("share") >= 1.0)).sort("fold")
    found: dict[str, list[float]] = {}
    for metric, value in own.select("metric", "value").iter_rows():
        found.setdefault(metric, []).append(math.nan if value is None else value)
    return found


def _crps(evidence: pl.DataFrame | None) -> tuple[float | None, float | None]:
    """Return mean scores of trial and naive forecast on the same rows."""
    compared = None if evidence is None else naive.advantage(evidence)
    if compared is None or not compared.measure.startswith(("CRPS", "Brier")):
        return None, None
    known = np.isfinite(compared.values)
    return (float(compared.own[known].mean()), float(compared.naive[known].mean())) if known.any() else (None, None)


def _phase_1_crps(run: RunFolder, phase_1: RunFolder | None) -> float | None:
    if phase_1 is None:
        return None
    if list(phase_1.plan.folds) != list(run.plan.folds):
        raise ValueError(
            f"{phase_1.path}: expected the folds of {run.path}, found others; GATE-2 compares the same folds"
        )
    scores = phase_1.trials.filter(pl.col("state") == "complete")
    return scores["metric.crps"].min() if "metric.crps" in scores.columns and len(scores) else None


def _tail(evidence: pl.DataFrame | None) -> tuple[float | None, int]:
    """Return ANALYSIS-5 at the shortest horizon, the 5 % and 95 % quantiles those of the targets of earlier folds."""
    known = [] if evidence is None else naive.horizons(evidence.columns)
    if evidence is None or not known:
        return None, 0
    prediction, target = (evidence[f"{w}_{known[0]}"].to_numpy().astype(float) for w in ("prediction", "target"))
    fold = evidence["fold"].to_numpy()
    known_rows = np.isfinite(prediction) & np.isfinite(target)
    n_hits, n_events = 0.0, 0
    for number in np.unique(fold)[1:]:
        past, rows = target[(fold < number) & known_rows], (fold == number) & known_rows
        if len(past) and rows.any():
            low, high = np.quantile(past, (0.05, 0.95))
            share, n = classification.tail_accuracy(prediction[rows], target[rows], low=float(low), high=float(high))
            n_hits, n_events = n_hits + (share or 0.0) * n, n_events + n
    return (n_hits / n_events if n_events else None), n_events


def _majority(values: Mapping[str, float]) -> float | None:
    gain, directional = values.get("directional_gain"), values.get("directional_accuracy")
    return directional - gain if gain is not None and directional is not None else None


def _sharpe(evidence: pl.DataFrame | None) -> float | None:
    if evidence is None or "pnl" not in evidence.columns:
        return None
    times = pl.Series(naive.nanoseconds(evidence["timestamp"])).cast(pl.Datetime("ns")).dt.date()
    daily = (
        pl.DataFrame({"day": times, "pnl": evidence["pnl"].cast(pl.Float64)}).group_by("day").agg(pl.col("pnl").sum())
    )
    return trading.sharpe(daily.sort("day")["pnl"].to_numpy(), periods_per_year=DAYS_PER_YEAR)


def _fold_pnl(evidence: pl.DataFrame | None) -> list[float]:
    if evidence is None or "pnl" not in evidence.columns:
        return []
    return evidence.group_by("fold", maintain_order=True).agg(pl.col("pnl").cast(pl.Float64).sum())["pnl"].to_list()
