"""The leaderboard: which trials rank where, who cannot be told apart from the leader, and who did not rank (RANK-1)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.atomic import write_text
from analysis.measures import ranking
from analysis.measures.folds import FoldMean, over_folds
from analysis.measures.foresight import N_RESAMPLES, Foresight, foresight
from analysis.run_folder import RunFolder

COMPLETE = "complete"
"""The one state that ranks: every fold was scored, so the numbers are over the same rows for all."""
SHOWN = ("val_loss", "ic", "crps", "flatness", "regime_accuracy")
"""Measures with a column of their own in ranking.csv and on the page, where the run has them."""


FLATNESS = "flatness"
"""The one criterion that must earn its place: see `told_by`."""
MANY = 10_000
"""Trials times folds beyond which intervals are resampled less often: a report is awaited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One trial on the leaderboard.

    Attributes:
        rank: 1 is best; equal numbers are ties. None where the trial does not rank.
        is_tied: Another trial has the same rank.
        is_indistinct: Its loss lies within one standard error of the lowest one.
        is_pareto: No other complete trial is at least as good in every criterion and better in one.
        values, errors: Measure -> mean over folds, and its standard error; absent where unknown.
        behind: Loss minus that of the leader on the same folds (paired), with the error of this difference.
        parameters: Active parameters.
    """

    trial_id: str
    number: int
    state: str
    origin: str
    generation: int
    parents: tuple[str, ...]
    reason: str
    n_folds: int
    seconds: float
    values: Mapping[str, float]
    errors: Mapping[str, float]
    parameters: Mapping[str, Any]
    rank: int | None = None
    is_tied: bool = False
    is_indistinct: bool = False
    is_pareto: bool = False
    behind: FoldMean | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Ranked trials in order, then the rest.

    Attributes:
        ranked: Complete trials with a loss, best first; ties in order of loss, then of number.
        unranked: All others, those with most folds first.
        order: Name of the order, a key of `ranking.ORDERS`.
        criteria: Its criteria that the run has values for; the others could not decide anything. In the merged order
            flatness is among them only where it told of the next fold.
        n_folds: Folds of a complete trial.
        foresight: What flatness told of the next fold; None where that could not be asked.
        is_flatness_silent: The run has flatness, and the order leaves it out because it told nothing.
    """

    ranked: Sequence[Entry]
    unranked: Sequence[Entry]
    order: str
    criteria: Sequence[ranking.Criterion]
    n_folds: int
    foresight: Foresight | None = None
    is_flatness_silent: bool = False

    @property
    def leader(self) -> Entry | None:
        return self.ranked[0] if self.ranked else None

    @property
    def indistinct(self) -> list[Entry]:
        """Trials within one standard error of the lowest loss, the leader among them."""
        return [entry for entry in self.ranked if entry.is_indistinct]

    def counts(self) -> dict[str, int]:
        """Return the number of trials in each state that occurs, most frequent first."""
        states = [entry.state for entry in (*self.ranked, *self.unranked)]
        return dict(sorted(((s, states.count(s)) for s in set(states)), key=lambda pair: (-pair[1], pair[0])))


def build(run: RunFolder, *, order: str | None = None) -> Leaderboard:
    """Rank the complete trials of a run.

    Args:
        run: The run.
        order: A key of `ranking.ORDERS`; none: the one that the plan names.

    Raises:
        ValueError: The plan names an order that does not exist.
    """
    order = order or run.plan.order
    if order not in ranking.ORDERS:
        raise ValueError(f"plan.json: order: expected one of {', '.join(ranking.ORDERS)}, found {order!r}")
    criteria = [c for c in ranking.ORDERS[order] if c.metric in run.metrics]
    entries = [_entry(row) for row in run.trials.sort("number").iter_rows(named=True)]
    ranks = [e for e in entries if e.state == COMPLETE and "val_loss" in e.values]
    is_asked = FLATNESS in [c.metric for c in criteria]
    told = told_by(run, [e.trial_id for e in ranks], FLATNESS) if is_asked else None
    is_silent = is_asked and (told is None or not told.is_told)
    criteria = [c for c in criteria if not (is_silent and c.metric == FLATNESS)]
    values, errors = _matrix(ranks, criteria, "values"), _matrix(ranks, criteria, "errors")
    directions = [c.direction for c in criteria]
    places = ranking.rank(values, errors, directions)
    losses = np.asarray([e.values["val_loss"] for e in ranks])
    indistinct = ranking.within_one_error(losses, [e.errors.get("val_loss", math.nan) for e in ranks], "minimise")
    is_known = ~np.isnan(values).all(axis=0) if len(ranks) else np.zeros(len(criteria), dtype=bool)
    fronts = ranking.pareto(values[:, is_known], [d for d, k in zip(directions, is_known, strict=True) if k])
    marked = [
        replace(e, rank=int(p), is_tied=int((places == p).sum()) > 1, is_indistinct=bool(i), is_pareto=bool(f))
        for e, p, i, f in zip(ranks, places, indistinct, fronts, strict=True)
    ]
    ordered = sorted(marked, key=lambda e: (e.rank, e.values["val_loss"], e.number))
    is_ranked = {e.trial_id for e in ranks}
    unranked = sorted((e for e in entries if e.trial_id not in is_ranked), key=lambda e: (-e.n_folds, e.number))
    return Leaderboard(
        ranked=_with_distance(ordered, run.folds),
        unranked=unranked,
        order=order,
        criteria=criteria,
        n_folds=max((e.n_folds for e in ordered), default=0),
        foresight=told,
        is_flatness_silent=is_silent,
    )


def told_by(run: RunFolder, trial_ids: Sequence[str], measure: str) -> Foresight | None:
    """Return whether a measure of these trials told of the next fold; None with too little to ask."""
    losses, values = (fold_matrix(run, trial_ids, metric) for metric in ("val_loss", measure))
    n_resamples = N_RESAMPLES if losses.size <= MANY else N_RESAMPLES // 5
    return foresight(values, losses, n_resamples=n_resamples)


def fold_matrix(run: RunFolder, trial_ids: Sequence[str], metric: str) -> NDArray[np.float64]:
    """Return a metric of whole folds, (n_folds, n_trials) in time order; NaN where a trial lacks it."""
    whole = run.folds.filter((pl.col("share") >= 1.0) & (pl.col("metric") == metric))
    folds = {fold: row for row, fold in enumerate(sorted(run.folds["fold"].unique().to_list()))}
    columns = {trial: column for column, trial in enumerate(trial_ids)}
    found = np.full((len(folds), len(columns)), np.nan)
    for trial, fold, value in whole.select("trial_id", "fold", "value").iter_rows():
        if trial in columns and value is not None:
            found[folds[fold], columns[trial]] = value
    return found


def write_csv(run: RunFolder, board: Leaderboard) -> None:
    """Write `ranking.csv`: ranked trials first, then the others without a rank, with the folds that they saw."""
    shown = [m for m in SHOWN if m in run.metrics]
    head = ["rank", "tie", "within_one_se", "pareto", "trial_id", "state", "n_folds"]
    head += [name for m in shown for name in (m, f"{m}_se")]
    head += ["behind_leader", "behind_leader_se", "seconds", "origin", "generation", *run.parameters]
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(head)
    for e in (*board.ranked, *board.unranked):
        ranked = (
            ["=" if e.is_tied else "", *(int(k) for k in (e.is_indistinct, e.is_pareto))] if e.rank else ["", "", ""]
        )
        measures = [source.get(m) for m in shown for source in (e.values, e.errors)]
        behind = [e.behind.mean, e.behind.error] if e.behind else [None, None]
        parameters = [e.parameters.get(name) for name in run.parameters]
        row = [e.rank, *ranked, e.trial_id, e.state, e.n_folds, *measures, *behind]
        table.writerow([*row, round(e.seconds, 3), e.origin, e.generation, *parameters])
    write_text(run.path / "ranking.csv", buffer.getvalue())


def _entry(row: Mapping[str, Any]) -> Entry:
    known = {k: v for k, v in row.items() if v is not None}
    metrics = {k.removeprefix("metric."): v for k, v in known.items() if k.startswith("metric.")}
    return Entry(
        **{k: row[k] for k in ("trial_id", "number", "state", "origin", "generation", "reason", "n_folds", "seconds")},
        parents=tuple(json.loads(row["parents"] or "[]")),
        values={k: v for k, v in metrics.items() if not k.endswith(".se")},
        errors={k.removesuffix(".se"): v for k, v in metrics.items() if k.endswith(".se")},
        parameters={k.removeprefix("param."): v for k, v in known.items() if k.startswith("param.")},
    )


def _matrix(entries: Sequence[Entry], criteria: Sequence[ranking.Criterion], what: str) -> np.ndarray:
    rows = [[getattr(e, what).get(c.metric, math.nan) for c in criteria] for e in entries]
    return np.asarray(rows, dtype=np.float64).reshape(len(entries), len(criteria))


def _with_distance(ordered: Sequence[Entry], folds: pl.DataFrame) -> list[Entry]:
    """Add the fold-paired distance to the leader: what folds have in common cancels in it."""
    if not ordered:
        return []
    whole = folds.filter((pl.col("metric") == "val_loss") & (pl.col("share") >= 1.0))
    losses = {(t, f): (v, n) for t, f, v, n in whole.select("trial_id", "fold", "value", "n_scored").iter_rows()}
    leader = ordered[0].trial_id
    shared = sorted(f for t, f in losses if t == leader)
    found = []
    for entry in ordered:
        pairs = [(losses[entry.trial_id, f], losses[leader, f]) for f in shared if (entry.trial_id, f) in losses]
        gaps, weights = [own[0] - first[0] for own, first in pairs], [own[1] for own, _ in pairs]
        found.append(replace(entry, behind=over_folds(gaps, weights) if pairs else None))
    return found
