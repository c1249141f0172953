"""What may be claimed after having tried many trials: gathered from the evidence, decided by stated rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.evidence import CommonEvidence
from analysis.measures import nested, overfitting
from analysis.measures.block_bootstrap import block_length
from analysis.measures.confidence_set import ConfidenceSet, confidence_set
from analysis.measures.folds import FoldMean, over_folds
from analysis.measures.long_run import MeanEstimate, mean_with_error
from analysis.measures.nested import Persistence
from analysis.measures.overfitting import Optimism, Overfitting
from analysis.measures.predictive_ability import PredictiveAbility, superior_predictive_ability, superior_trials

LEVEL = 0.9
"""Of the confidence set (issue of this report: "cannot be told apart at 90 %")."""
ERROR = 0.025
"""Chance of announcing skill where there is none, over all comparisons with a naive forecast together: half of the 5 %
that a reader is promised, as resampling rejects a little too often in short samples."""
N_RESAMPLES = 1000
MOST_ROWS = 6000
"""More timestamps than these are averaged in bins within folds before resampling; blocks span many bins."""
LEAST_ROWS = 40
"""Fewer timestamps carry no resampling."""
SEED = 20050301
"""Of the resampling, fixed so that a report written again says the same."""

LEAST_FOLDS = 3
"""Fewer folds announce nothing: skill in one stretch of time is an anecdote."""

Finding = Literal["nothing", "single", "no_winner", "unknown", "too_few_folds", "group", "winner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveTest:
    """Whether any trial beats a naive forecast, allowing for the choice.

    Attributes:
        what, baseline: For a reader: `CRPS at 1d`, `a zero-mean normal ...`.
        p: Of "no trial is better", by the studentised SPA, raised for the trials that were started but cannot be
            compared: 1 - (1 - p)^(started / compared), as if they were as many more independent sets (Sidak).
        superior: Trials that beat it by StepM, at the level that the test was given.
        level: That level.
        later: Mean advantage of trials chosen by it on earlier folds, in the next folds; None with one fold.
        n_rows: Timestamps.
    """

    what: str
    baseline: str
    p: float
    superior: tuple[str, ...]
    level: float
    later: MeanEstimate | None
    n_rows: int

    @property
    def is_beaten(self) -> bool:
        """Unlikely to be luck, and choosing by it earlier did not lose later."""
        return self.p < self.level and (self.later is None or self.later.mean > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """The search as a forecaster: trials chosen on earlier folds, scored on the next.

    Attributes:
        chosen: Trial chosen before each fold from the second on.
        against_median: Loss minus that of the median trial, over these folds; negative: choosing helps.
        against_naive: Score of the naive forecast minus that of the chosen, over these timestamps; None without one.
    """

    chosen: tuple[str, ...]
    against_median: FoldMean
    against_naive: MeanEstimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Honesty:
    """What of a ranking can be believed.

    Attributes:
        finding: `nothing` to compare; `single` trial; `no_winner`: nothing beats the naive forecast; `unknown`: there
            was no naive forecast to compare with; `too_few_folds`: it is beaten, but in fewer than `LEAST_FOLDS`;
            `group` or `winner`: it is beaten, by a set or by one trial.
        best: Trial with the lowest loss on the common timestamps; "" for `nothing`.
        n_started, n_compared: Trials ever started; trials with usable evidence.
        n_effective: Independent trials that the started ones are worth.
        n_rows, n_folds: Common timestamps and folds.
        n_independent: Timestamps over the horizon in rows.
        block_rows: Mean block length of the resampling.
        confidence: Confidence set; None below two trials or too few rows.
        members: Its trials, lowest loss first.
        p_by_trial: p of the confidence set, lowest loss first.
        behind: Loss minus that of `best` on the same timestamps.
        naive: Comparisons with naive forecasts, the main one first.
        deflated_sharpe: Of the best trial's `pnl`; None where evidence has none.
        sharpe_record_rows: Rows of P&L that 95 % confidence needs (MinTRL); None likewise.
        deflated_z: Of the lowest loss: standard errors beyond the expected best of as many trials without skill.
        best_minus_median: Loss of the best minus that of the median trial; paired, with standard error (SEARCH-17).
        shrunken: Loss of the best, drawn towards the mean by the share of the spread that is noise.
        overfitting, optimism, nested, persistence: See the measures; None with too few rows, folds or trials.
        drift: Parameter -> mean value among the best fifth of each fold.
    """

    finding: Finding
    best: str = ""
    n_started: int = 0
    n_compared: int = 0
    n_effective: float = 1.0
    n_rows: int = 0
    n_folds: int = 0
    n_independent: float = 0.0
    block_rows: float = 1.0
    confidence: ConfidenceSet | None = None
    members: tuple[str, ...] = ()
    p_by_trial: Mapping[str, float] = field(default_factory=dict)
    behind: Mapping[str, MeanEstimate] = field(default_factory=dict)
    naive: tuple[NaiveTest, ...] = ()
    deflated_sharpe: float | None = None
    sharpe_record_rows: float | None = None
    deflated_z: float | None = None
    best_minus_median: MeanEstimate | None = None
    shrunken: float | None = None
    overfitting: Overfitting | None = None
    optimism: Optimism | None = None
    nested: Nested | None = None
    persistence: Persistence | None = None
    drift: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def assess(
    evidence: CommonEvidence | None,
    *,
    n_started: int,
    parameters: Mapping[str, NDArray[np.float64]] | None = None,
) -> Honesty:
    """Judge a search by its evidence.

    Args:
        evidence: Losses of the complete trials on common timestamps; None where there are none.
        n_started: Trials ever started on these folds, stopped and failed ones included: each was a chance to be lucky.
        parameters: Parameter -> (K,) values of the compared trials on the scale of the search; NaN where not active.
    """
    if evidence is None or not len(evidence.timestamp):
        return Honesty(finding="nothing", n_started=n_started)
    ids, n_trials = evidence.trial_ids, len(evidence.trial_ids)
    loss, bins = binned(evidence.loss_TK, evidence.fold)
    best = int(evidence.loss_TK.mean(axis=0, dtype=np.float64).argmin())
    horizon = max(1, math.ceil(evidence.horizon_rows / bins))
    fold_losses, sizes = evidence.fold_means()
    facts = {
        "best": ids[best],
        "n_started": max(n_started, n_trials),
        "n_compared": n_trials,
        "n_rows": len(evidence.timestamp),
        "n_folds": len(sizes),
        "n_independent": len(evidence.timestamp) / evidence.horizon_rows,
        "drift": {name: nested.best_value_by_fold(v, fold_losses) for name, v in (parameters or {}).items()},
    }
    enough = len(loss) >= LEAST_ROWS
    naive = _naive_tests(evidence, horizon, facts["n_started"] / n_trials) if enough else ()
    chosen = _nested(evidence, fold_losses, sizes)
    facts |= {"naive": naive, "nested": chosen, "persistence": nested.rank_persistence(fold_losses)}
    if n_trials > 1 and enough:
        facts |= _comparisons(loss, best, ids, horizon, bins, facts["n_started"])
        facts |= _sharpe(evidence, best, facts["n_effective"])
    return Honesty(finding=_decide(n_trials, len(sizes), naive, facts.get("members", ())), **facts)


def _decide(n_trials: int, n_folds: int, naive: tuple[NaiveTest, ...], members: tuple[str, ...]) -> Finding:
    """Skill is announced where a naive forecast is beaten allowing for the choice, and was also by past choices."""
    if not naive:
        return "single" if n_trials == 1 else "unknown"
    beaten = [t for t in naive if t.is_beaten]
    if not beaten:
        return "no_winner"
    if n_folds < LEAST_FOLDS:
        return "too_few_folds"
    superior = {trial for t in beaten for trial in t.superior}
    is_alone = n_trials == 1 or len(members) == 1
    return "winner" if is_alone and (n_trials == 1 or members[0] in superior) else "group"


def _comparisons(
    loss: NDArray[np.float32], best: int, ids: tuple[str, ...], horizon: int, bins: int, n_started: int
) -> dict[str, object]:
    """Compare the trials with one another, on rows or bins of rows."""
    own = loss - loss.mean(axis=1, keepdims=True)
    means = own.mean(axis=0, dtype=np.float64)
    block = _block(own, horizon)
    whole = confidence_set(own, mean_block=block, seed=SEED, level=LEVEL, n_resamples=N_RESAMPLES)
    order = np.argsort(means, kind="stable")
    effective = overfitting.effective_trials(own)
    started = max(1.0, effective / len(ids) * n_started)
    median = int(order[len(order) // 2])
    errors = np.array([mean_with_error(own[:, k].astype(np.float64)).error or 0.0 for k in range(len(ids))])
    shrunken = overfitting.shrink(means, errors)
    block_rows = max(1, math.ceil(block))
    n_blocks = 16 if len(own) >= 16 * (horizon + 7) else 8
    return {
        "n_effective": started,
        "block_rows": block * bins,
        "confidence": whole,
        "members": tuple(ids[k] for k in order if whole.is_member[k]),
        "p_by_trial": {ids[k]: float(whole.p[k]) for k in order},
        "behind": {ids[k]: mean_with_error((own[:, k] - own[:, best]).astype(np.float64)) for k in order},
        "deflated_z": overfitting.deflated_z(-means, errors, n_effective=started),
        "best_minus_median": mean_with_error((own[:, best] - own[:, median]).astype(np.float64)),
        "shrunken": float(shrunken[best] + loss.mean(dtype=np.float64)),
        "overfitting": overfitting.backtest_overfitting(own, n_blocks=n_blocks, gap_rows=horizon - 1)
        if len(own) // n_blocks > horizon
        else None,
        "optimism": overfitting.selection_optimism(loss, block_rows=block_rows, n_resamples=N_RESAMPLES, seed=SEED)
        if len(own) >= 4 * block_rows
        else None,
    }


def _naive_tests(evidence: CommonEvidence, horizon: int, sets: float) -> tuple[NaiveTest, ...]:
    """Test the score against the naive forecast, and the rank correlation against none; the error is shared."""
    asked = []
    if evidence.advantage_TK is not None:
        known = np.isfinite(evidence.advantage_TK).all(axis=1)
        if known.sum() >= LEAST_ROWS:
            asked.append((evidence.measure, evidence.baseline, evidence.advantage_TK[known], evidence.fold[known]))
    if evidence.signal_TK is not None:
        words = f"rank correlation at {evidence.signal_horizon}"
        asked.append((words, "a forecast that knows nothing", evidence.signal_TK, evidence.fold))
    level = ERROR / max(1, len(asked))
    found = []
    for what, baseline, values, fold in asked:
        rows, _ = binned(values, fold)
        block = _block(rows, horizon)
        test: PredictiveAbility = superior_predictive_ability(
            rows, mean_block=block, n_resamples=N_RESAMPLES, seed=SEED
        )
        p, names = 1 - (1 - test.p) ** sets, ()
        if p < level:
            own_level = 1 - (1 - level) ** (1 / sets)
            chosen = superior_trials(rows, mean_block=block, level=own_level, n_resamples=N_RESAMPLES, seed=SEED)
            names = tuple(evidence.trial_ids[k] for k in np.flatnonzero(chosen))
        later = _later(values, fold)
        found.append(
            NaiveTest(what=what, baseline=baseline, p=p, superior=names, level=level, later=later, n_rows=len(values))
        )
    return tuple(found)


def _nested(evidence: CommonEvidence, fold_losses: NDArray[np.float64], sizes: NDArray[np.int64]) -> Nested | None:
    choice = nested.walk_forward_choice(fold_losses, sizes)
    if choice is None:
        return None
    against_median = over_folds(choice.loss - choice.median, sizes[1:])
    assert against_median is not None
    gains = None
    if evidence.advantage_TK is not None:
        place = np.searchsorted(np.unique(evidence.fold), evidence.fold)
        later = place > 0
        gain = evidence.advantage_TK[later, choice.chosen[place[later] - 1]].astype(np.float64)
        gain = gain[np.isfinite(gain)]
        gains = mean_with_error(gain) if len(gain) else None
    return Nested(
        chosen=tuple(evidence.trial_ids[k] for k in choice.chosen),
        against_median=against_median,
        against_naive=gains,
    )


def _later(values: NDArray[np.float32], fold: NDArray[np.int64]) -> MeanEstimate | None:
    """Choose by the mean advantage on earlier folds; return the mean of what this gave in the folds after."""
    numbers, place = np.unique(fold, return_inverse=True)
    sums = np.array([values[place == k].sum(axis=0, dtype=np.float64) for k in range(len(numbers))])
    if len(sums) < 2:
        return None
    choice = nested.walk_forward_choice(-sums / np.bincount(place)[:, None], np.bincount(place))
    assert choice is not None
    later = place > 0
    return mean_with_error(values[later, choice.chosen[place[later] - 1]].astype(np.float64))


def _sharpe(evidence: CommonEvidence, best: int, n_effective: float) -> dict[str, float | None]:
    if evidence.pnl_TK is None or not np.isfinite(evidence.pnl_TK).all():
        return {}
    pnl = evidence.pnl_TK.astype(np.float64)
    spread = pnl.std(axis=0, ddof=1)
    ratios = np.divide(pnl.mean(axis=0), spread, out=np.zeros(len(spread)), where=spread > 0)
    own = pnl[:, best]
    return {
        "deflated_sharpe": overfitting.deflated_sharpe(own, trial_sharpes=ratios, n_effective=n_effective),
        "sharpe_record_rows": overfitting.minimum_track_record(own),
    }


def _block(values: NDArray[np.float32], horizon: int) -> float:
    """Return the longest block that one of the five best columns asks for, at least the horizon."""
    best = np.argsort(np.abs(values.mean(axis=0, dtype=np.float64)))[-5:]
    return max(block_length(values[:, k], horizon_rows=horizon) for k in best)


def binned(values: NDArray[np.float32], fold: NDArray[np.int64]) -> tuple[NDArray[np.float32], int]:
    """Average neighbouring rows within folds so that at most about MOST_ROWS are left; return rows per bin too."""
    size = math.ceil(len(values) / MOST_ROWS)
    if size <= 1:
        return np.ascontiguousarray(values), 1
    starts: list[int] = []
    for first in np.flatnonzero(np.r_[True, fold[1:] != fold[:-1]]):
        n = int((fold == fold[first]).sum())
        starts += [first + int(part[0]) for part in np.array_split(np.arange(n), max(1, n // size))]
    counts = np.diff(np.r_[starts, len(values)])
    sums = np.add.reduceat(values, starts, axis=0)
    return (sums / counts[:, None]).astype(np.float32), size
