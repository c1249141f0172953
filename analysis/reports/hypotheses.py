"""The hypotheses of the documents, judged by the trials of one search that differ in one switch (HYP-1 to HYP-8).

Such a search is an ablation: `spaces/grok_ablation.yaml`, `spaces/condor_modules.yaml`. Folds, data and scored
timestamps are equal for all of its trials, so every effect is one of pairs of rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from analysis import naive
from analysis.measures import ic, trading
from analysis.measures.effects import Effect, Verdict, effect, verdict
from analysis.reports.documented_claims import CLAIMS, LARGEST, Claim, Rows
from analysis.reports.leaderboard import COMPLETE
from analysis.reports.regimes import REGIMES, states
from analysis.run_folder import RunFolder

Float = NDArray[np.float64]
SPREAD_IC = 0.3
"""Rank correlation of predicted spread and size of the move from which HYP-4 counts."""
ZONE = "America/New_York"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A claim and what the run says of it.

    Attributes:
        name, words: The claim.
        base, ablated: The trials compared; empty where the run has no such pair, `ablated` also for HYP-4.
        threshold: From which effect on it is supported.
        found: The effect; None where it was not measured.
        verdict: See `analysis.measures.effects.verdict`.
        reason: Why there is no effect; empty otherwise.
    """

    name: str
    words: str
    base: str
    ablated: str
    threshold: float
    found: Effect | None
    verdict: Verdict
    reason: str = ""


def judge(run: RunFolder, claims: Sequence[Claim] = CLAIMS) -> list[Judged]:
    """Judge every claim about the run's family that its trials can speak of.

    A claim without a pair of complete trials that differ in its switch alone is `inconclusive`, with the reason; a
    claim whose switch the run does not vary is left out.

    Raises:
        RunFolderError: Evidence cannot be read.
    """
    trials = list(_complete(run))
    found: list[Judged] = []
    for claim in claims:
        if claim.family == run.plan.family and _is_asked(claim, trials):
            found += _judge(run, claim, trials)
    return found + (_spread(run, trials) if run.plan.family == "grok" else [])


def _judge(run: RunFolder, claim: Claim, trials: Sequence[Mapping[str, Any]]) -> list[Judged]:
    pairs = list(_pairs(claim, trials))
    about = {"name": claim.name, "words": claim.words, "threshold": claim.threshold}
    if not pairs:
        why = "no two complete trials differ in it alone"
        return [Judged(**about, base="", ablated="", found=None, verdict="inconclusive", reason=why)]
    judged = []
    for base, ablated in pairs:
        try:
            measured = _effect(run, claim, base, ablated)
            reason = "" if math.isfinite(measured.value) else "the measure is not defined for both"
        except LookupError as missing:
            measured, reason = None, f"not recorded: {missing.args[0]}"
        outcome = verdict(measured, claim.threshold)
        judged.append(Judged(**about, base=base, ablated=ablated, found=measured, verdict=outcome, reason=reason))
    return judged


def _effect(run: RunFolder, claim: Claim, base: str, ablated: str) -> Effect:
    if claim.measure not in ("crps", "loss", "ic"):
        x, y = _fold_values(run, base, claim.measure), _fold_values(run, ablated, claim.measure)
        shared = sorted(set(x) & set(y))
        if not shared:
            raise LookupError(claim.measure)
        return effect([x[k] for k in shared], [y[k] for k in shared], claim.kind)
    both = [_evidence(run, trial) for trial in (base, ablated)]
    common = both[0].select("timestamp").join(both[1].select("timestamp"), on="timestamp")
    first, second = (rows.join(common, on="timestamp", how="semi").sort("timestamp") for rows in both)
    chosen = SELECT[claim.rows](first)
    horizon = claim.horizon or next(iter(naive.horizons(first.columns)), "")
    values = [_values(rows.filter(chosen), claim.measure, horizon) for rows in (first, second)]
    return effect(*values, claim.kind, horizon_rows=naive.horizon_rows(first["timestamp"], horizon))


def _values(rows: pl.DataFrame, measure: str, horizon: str) -> Float:
    """Return the scores of rows; for `ic` products of standardised ranks, whose mean is the rank correlation."""
    if measure != "ic":
        return _column(rows, measure)
    x, y = (_column(rows, f"{what}_{horizon}") for what in ("prediction", "target"))
    known = np.isfinite(x) & np.isfinite(y)
    found = np.full(len(x), math.nan)
    if known.sum() >= ic.LEAST_ROWS and np.ptp(x[known]) > 0 and np.ptp(y[known]) > 0:
        ranks = [rankdata(v[known]) for v in (x, y)]
        found[known] = np.prod([(r - r.mean()) / r.std() for r in ranks], axis=0)
    return found


def _spread(run: RunFolder, trials: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Judge HYP-4: a wide forecast is followed by a large move, and a size of one over the spread is no worse."""
    words = "the predicted spread ranks the size of moves above 0.3, and sizing by it does not lower the Sharpe ratio"
    judged = []
    for trial in trials:
        rows = _evidence(run, trial["trial_id"])
        horizon = next((h for h in naive.horizons(rows.columns) if f"scale_{h}" in rows.columns), None)
        if horizon is None:
            continue
        scale, target, signal = (_column(rows, f"{what}_{horizon}") for what in ("scale", "target", "prediction"))
        about = {"name": "HYP-4", "words": words, "base": trial["trial_id"], "ablated": "", "threshold": SPREAD_IC}
        told = ic.estimate(scale, np.abs(target), horizon_rows=naive.horizon_rows(rows["timestamp"], horizon))
        if told is None or told.error is None:
            why = "the spread is constant" if told is None else "too few rows"
            judged.append(Judged(**about, found=None, verdict="inconclusive", reason=why))
            continue
        found = Effect(
            value=told.value,
            low=told.value - 1.645 * told.error,
            high=told.value + 1.645 * told.error,
            level=0.9,
            n_rows=told.n_rows,
        )
        outcome = verdict(found, SPREAD_IC)
        fixed, sized = _sharpe_ratios(scale, target, signal)
        if outcome == "supported" and fixed is not None and sized is not None and sized < fixed:
            outcome = "not_supported"
        ratios = "" if fixed is None or sized is None else f"Sharpe ratio of a row {fixed:.3f}, sized {sized:.3f}"
        judged.append(Judged(**about, found=found, verdict=outcome, reason=ratios))
    return judged


def _sharpe_ratios(scale: Float, target: Float, signal: Float) -> tuple[float | None, float | None]:
    known = np.isfinite(scale) & np.isfinite(target) & np.isfinite(signal) & (scale > 0)
    gain = np.sign(signal[known]) * target[known]
    return tuple(trading.sharpe(g, periods_per_year=1.0) for g in (gain, gain / scale[known]))  # type: ignore[return-value]


def _all(rows: pl.DataFrame) -> pl.Series:
    return pl.Series(np.ones(len(rows), dtype=bool))


def _unquiet(rows: pl.DataFrame) -> pl.Series:
    """Return the third of the rows before which moves were largest; past moves alone are looked at."""
    state = states(rows)
    return pl.Series(np.zeros(len(rows), dtype=bool) if state is None else state == len(REGIMES) - 1)


def _clock(start: str, end: str) -> Callable[[pl.DataFrame], pl.Series]:
    def chosen(rows: pl.DataFrame) -> pl.Series:
        minute = _local(rows).dt.strftime("%H:%M")
        return (minute >= start) & (minute < end)

    return chosen


def _friday(rows: pl.DataFrame) -> pl.Series:
    return _local(rows).dt.weekday() == 5


SELECT: Mapping[Rows, Callable[[pl.DataFrame], pl.Series]] = {
    "all": _all,
    "unquiet": _unquiet,
    "open": _clock("09:30", "10:00"),
    "close": _clock("15:30", "16:00"),
    "friday": _friday,
}


def _local(rows: pl.DataFrame) -> pl.Series:
    """Return New York times of decision, a minute back: the bar that closes at 09:31 is that of 09:30."""
    times = pl.Series(naive.nanoseconds(rows["timestamp"])).cast(pl.Datetime("ns", "UTC"))
    return times.dt.offset_by("-1m").dt.convert_time_zone(ZONE)


def _complete(run: RunFolder) -> Iterator[dict[str, Any]]:
    for row in run.trials.filter(pl.col("state") == COMPLETE).sort("number").iter_rows(named=True):
        parameters = {k.removeprefix("param."): _parsed(v) for k, v in row.items() if k.startswith("param.")}
        yield {"trial_id": row["trial_id"], "parameters": {k: v for k, v in parameters.items() if v is not None}}


def _parsed(value: Any) -> Any:
    """Return a parameter as it was: a column of mixed kinds holds JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_asked(claim: Claim, trials: Sequence[Mapping[str, Any]]) -> bool:
    return all(len({repr(t["parameters"].get(name)) for t in trials}) > 1 for name in claim.ablated) and any(
        all(t["parameters"].get(name) == value for name, value in claim.ablated.items()) for t in trials
    )


def _pairs(claim: Claim, trials: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield (base, ablated): equal in every parameter that both have but those of the claim."""
    favoured = {
        name: max(t["parameters"][name] for t in trials if name in t["parameters"]) if value == LARGEST else value
        for name, value in claim.base.items()
    }
    for base in trials:
        for other in trials:
            x, y = base["parameters"], other["parameters"]
            if all(x.get(k) == v for k, v in favoured.items()) and all(y.get(k) == v for k, v in claim.ablated.items()):
                shared = (x.keys() & y.keys()) - claim.ablated.keys()
                if base is not other and all(x[k] == y[k] for k in shared):
                    yield base["trial_id"], other["trial_id"]


def _evidence(run: RunFolder, trial_id: str) -> pl.DataFrame:
    rows = run.evidence(trial_id)
    if rows is None:
        raise LookupError(f"evidence of {trial_id}")
    return rows


def _fold_values(run: RunFolder, trial_id: str, metric: str) -> dict[int, float]:
    whole = run.folds.filter((pl.col("trial_id") == trial_id) & (pl.col("metric") == metric) & (pl.col("share") >= 1.0))
    return {fold: value for fold, value in whole.select("fold", "value").iter_rows() if value is not None}


def _column(rows: pl.DataFrame, name: str) -> Float:
    if name not in rows.columns:
        raise LookupError(name)
    return rows[name].cast(pl.Float64).to_numpy()
