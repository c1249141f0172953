"""Two searches on the timestamps that both scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.evidence import CommonEvidence, gather
from analysis.measures.block_bootstrap import block_length
from analysis.measures.confidence_set import confidence_set
from analysis.measures.long_run import MeanEstimate, mean_with_error
from analysis.reports.honesty import LEAST_ROWS, LEVEL, N_RESAMPLES, SEED, binned
from analysis.run_folder import RunFolder, fidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Run A against run B.

    Attributes:
        best_a, best_b: Trials with the lowest loss on the common timestamps.
        loss_a, loss_b: Their losses there.
        difference: Loss of `best_a` minus that of `best_b`, with EWC standard error; negative: A is better.
        p: Two-sided, not corrected for the choice within each run; None with too few rows.
        level: Of the confidence set over the trials of both runs.
        members_a, members_b: Its trials.
        n_a, n_b: Trials compared.
        notes: What weakens the comparison.
    """

    best_a: str
    best_b: str
    loss_a: float
    loss_b: float
    difference: MeanEstimate
    p: float | None
    level: float
    members_a: tuple[str, ...]
    members_b: tuple[str, ...]
    n_a: int
    n_b: int
    notes: tuple[str, ...]


def compare(run_a: RunFolder, run_b: RunFolder) -> Comparison:
    """Compare two runs.

    Raises:
        ValueError: The families or the fidelities differ, a run has no usable evidence, or fewer than 40 timestamps are
            common.
    """
    if run_a.plan.family != run_b.plan.family:
        raise ValueError(
            f"{run_b.path}: expected family {run_a.plan.family}, found {run_b.plan.family}; losses of "
            f"different families are not comparable"
        )
    here, there = fidelity(run_a.plan), fidelity(run_b.plan)
    if differing := [name for name in here if name in there and here[name] != there[name]]:
        name = differing[0]
        raise ValueError(
            f"{run_b.path}: expected {name} {here[name]}, found {there[name]}; what is trained at different fidelities "
            f"is not comparable (SEARCH-16)"
        )
    a, b = _of(run_a), _of(run_b)
    common = np.intersect1d(a.timestamp, b.timestamp, assume_unique=True)
    if len(common) < LEAST_ROWS:
        raise ValueError(
            f"{run_b.path}: expected {LEAST_ROWS} timestamps or more in common with {run_a.path}, found {len(common)}"
        )
    rows_a, rows_b = np.isin(a.timestamp, common), np.isin(b.timestamp, common)
    loss = np.hstack([a.loss_TK[rows_a], b.loss_TK[rows_b]])
    means = loss.mean(axis=0, dtype=np.float64)
    n_a = len(a.trial_ids)
    first, second = int(means[:n_a].argmin()), n_a + int(means[n_a:].argmin())
    gap = (loss[:, first] - loss[:, second]).astype(np.float64)
    difference = mean_with_error(gap)
    p = None
    if difference.error and difference.degrees_of_freedom:
        p = float(2 * stats.t.sf(abs(difference.mean) / difference.error, difference.degrees_of_freedom))
    values, size = binned(loss, a.fold[rows_a])
    horizon = max(1, -(-max(a.horizon_rows, b.horizon_rows) // size))
    block = block_length((values[:, first] - values[:, second]).astype(np.float64), horizon_rows=horizon)
    whole = confidence_set(values, mean_block=block, seed=SEED, level=LEVEL, n_resamples=N_RESAMPLES)
    ids = (*a.trial_ids, *b.trial_ids)
    return Comparison(
        best_a=ids[first],
        best_b=ids[second],
        loss_a=float(means[first]),
        loss_b=float(means[second]),
        difference=difference,
        p=p,
        level=LEVEL,
        members_a=tuple(t for t, m in zip(ids[:n_a], whole.is_member[:n_a], strict=True) if m),
        members_b=tuple(t for t, m in zip(ids[n_a:], whole.is_member[n_a:], strict=True) if m),
        n_a=n_a,
        n_b=len(b.trial_ids),
        notes=_notes(run_a, run_b, len(common), max(len(a.timestamp), len(b.timestamp))),
    )


def _of(run: RunFolder) -> CommonEvidence:
    found, left_out = gather(run)
    if found is None:
        names = [trial for trial, _ in left_out.broken] + list(left_out.missing)
        raise ValueError(f"{run.path}: expected evidence of a complete trial, found none that is usable ({names[:3]})")
    return found


def _notes(run_a: RunFolder, run_b: RunFolder, n_common: int, n_all: int) -> tuple[str, ...]:
    found = []
    if run_a.plan.data_snapshot != run_b.plan.data_snapshot:
        found.append("The data differ: the same timestamps may hold different values.")
    if n_common < n_all:
        found.append(f"{n_common} of {n_all} timestamps are common; the others are left out.")
    found.append(
        "Each best trial was chosen by these rows: the difference says which search found more, not which will."
    )
    return tuple(found)
