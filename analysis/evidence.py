"""The evidence of all complete trials on common timestamps: what every comparison between trials stands on.

loss_TK, advantage_TK, signal_TK: T timestamps, K trials, float32, 4 bytes x T x K each
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis import naive
from analysis.run_folder import EVIDENCE_COLUMNS, RunFolder

Float32 = NDArray[np.float32]
LEAST_COVERAGE = 0.9
"""A trial that lacks more of the usual timestamps is left out, so that one short trial does not shorten all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Trials that could not be compared, by reason; and those that could, but predict nothing.

    Attributes:
        missing: No evidence file.
        broken: (trial, why): a file cannot be read, lacks a column, or holds losses that are not finite.
        short: (trial, share of the usual timestamps that it has), below `LEAST_COVERAGE`.
        constant_loss: The loss is the same at every timestamp: nothing was measured.
        constant_prediction: Compared, but its forecast never changes, so its IC is not defined.
    """

    missing: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    short: tuple[tuple[str, float], ...] = ()
    constant_loss: tuple[str, ...] = ()
    constant_prediction: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonEvidence:
    """Losses of trials at the same timestamps.

    Attributes:
        trial_ids: (K,) in order of number.
        timestamp: (T,) ns UTC, increasing.
        fold: (T,) number of the fold.
        loss_TK: Reference loss.
        advantage_TK: Score of the naive forecast minus that of the trial; NaN where either is not known. None where the
            evidence lets nothing be compared, or trials differ in what they let compare.
        measure, baseline: What `advantage_TK` compares, for a reader; empty without it.
        signal_TK: Product of the standardised ranks of prediction and target of the shortest horizon, whose mean is the
            rank correlation; 0 where not known. None where no prediction is there.
        signal_horizon: Its label; empty without it.
        horizon_rows: Rows that the longest target spans.
        pnl_TK: Column `pnl` of the evidence, where all trials have it: net result of acting on the row.
        left_out: What is not in it, and why.
        n_expected: Complete trials of the run.
    """

    trial_ids: tuple[str, ...]
    timestamp: NDArray[np.int64]
    fold: NDArray[np.int64]
    loss_TK: Float32
    advantage_TK: Float32 | None
    measure: str
    baseline: str
    signal_TK: Float32 | None
    signal_horizon: str
    horizon_rows: int
    pnl_TK: Float32 | None
    left_out: LeftOut
    n_expected: int

    def fold_means(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return mean losses (n_folds, K) and rows of each fold (n_folds,), folds in time order."""
        starts = np.flatnonzero(np.r_[True, self.fold[1:] != self.fold[:-1]])
        sizes = np.diff(np.r_[starts, len(self.fold)])
        return np.add.reduceat(self.loss_TK, starts, axis=0, dtype=np.float64) / sizes[:, None], sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One trial's series, all (n_rows,), float32 but for times and folds."""

    timestamp: NDArray[np.int64]
    fold: NDArray[np.int64]
    loss: Float32
    advantage: Float32 | None
    measure: str
    baseline: str
    signal: Float32 | None
    signal_horizon: str
    horizon_rows: int
    pnl: Float32 | None
    is_constant_prediction: bool


@dataclass(frozen=True, slots=True)
class _Shared:
    """What trials of one search have in common, kept once: times, folds, targets, and what follows from them."""

    arrays: dict[bytes, NDArray[Any]] = field(default_factory=dict)
    ranks: dict[int, Float32] = field(default_factory=dict)
    naive_scores: naive.Scores = field(default_factory=dict)

    def one_of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return an array of the same content, the same object for equal contents."""
        return self.arrays.setdefault(hashlib.blake2b(values.tobytes()).digest(), values)


def gather(run: RunFolder) -> tuple[CommonEvidence | None, LeftOut]:
    """Read the evidence of all complete trials and put it on common timestamps.

    One trial is read after the other; of each only its float32 series are kept.

    Returns:
        The evidence, None where no complete trial has any that is usable; and what was left out, and why.
    """
    complete = run.trials.filter(pl.col("state") == "complete").sort("number")["trial_id"].to_list()
    trials: dict[str, _Trial] = {}
    missing, broken, constant = [], [], []
    shared = _Shared()
    for trial_id in complete:
        files = sorted((run.path / "evidence" / trial_id).glob("fold-*.parquet"))
        if not files:
            missing.append(trial_id)
            continue
        try:
            trial = _trial(files, shared)
        except (ValueError, OSError, pl.exceptions.PolarsError) as error:
            broken.append((trial_id, _reason(files, error)))
            continue
        if np.ptp(trial.loss) == 0 and len(trial.loss) > 1:
            constant.append(trial_id)
        else:
            trials[trial_id] = trial
    gaps = LeftOut(missing=tuple(missing), broken=tuple(broken), constant_loss=tuple(constant))
    if not trials:
        return None, gaps
    found = _align(trials, gaps, len(complete))
    return found, found.left_out


def _trial(files: Sequence[Path], shared: _Shared) -> _Trial:
    columns = list(pl.read_parquet_schema(files[0]))
    absent = [c for c in EVIDENCE_COLUMNS if c not in columns]
    if absent:
        raise ValueError(f"expected the columns {', '.join(absent)}")
    horizons = naive.horizons(columns)
    wanted = {*EVIDENCE_COLUMNS, *naive.columns_needed(columns)}
    wanted |= {f"{what}_{horizons[0]}" for what in ("prediction", "target")} if horizons else set()
    wanted |= {"pnl"} & set(columns)
    parts = [pl.read_parquet(file, columns=sorted(wanted)) for file in files]
    numbers = [int(file.stem.removeprefix("fold-")) for file in files]
    evidence = pl.concat([p.with_columns(fold=pl.lit(n)) for p, n in zip(parts, numbers, strict=True)])
    timestamp = shared.one_of(naive.nanoseconds(evidence["timestamp"]))
    if not (np.diff(timestamp) > 0).all():
        raise ValueError("expected timestamps that increase over rows and folds")
    loss = evidence["loss"].cast(pl.Float32).to_numpy()
    if not len(loss) or not np.isfinite(loss).all():
        raise ValueError(f"expected finite losses, found {int((~np.isfinite(loss)).sum())} of {len(loss)} that are not")
    gain = naive.advantage(evidence, shared.naive_scores)
    signal, is_constant = _signal(evidence, horizons[0], shared) if horizons else (None, False)
    return _Trial(
        timestamp=timestamp,
        fold=shared.one_of(evidence["fold"].cast(pl.Int64).to_numpy()),
        loss=loss,
        advantage=gain.values.astype(np.float32) if gain else None,
        measure=gain.measure if gain else "",
        baseline=gain.baseline if gain else "",
        signal=signal,
        signal_horizon=horizons[0] if horizons else "",
        horizon_rows=max((naive.horizon_rows(evidence["timestamp"], h) for h in horizons), default=1),
        pnl=evidence["pnl"].cast(pl.Float32).to_numpy() if "pnl" in columns else None,
        is_constant_prediction=is_constant,
    )


def _signal(evidence: pl.DataFrame, horizon: str, shared: _Shared) -> tuple[Float32, bool]:
    """Return the products of standardised ranks and whether one side never changes."""
    x, y = (evidence[f"{what}_{horizon}"].cast(pl.Float32).to_numpy() for what in ("prediction", "target"))
    if np.isinf(x).any() or np.isinf(y).any():
        raise ValueError(f"expected finite predictions and targets at {horizon}, found infinity")
    known = ~(np.isnan(x) | np.isnan(y))
    found = np.zeros(len(x), dtype=np.float32)
    if known.sum() < 3 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return found, True
    targets = shared.one_of(y[known])
    if id(targets) not in shared.ranks:
        shared.ranks[id(targets)] = _standard_ranks(targets)
    found[known] = _standard_ranks(x[known]) * shared.ranks[id(targets)]
    return found, False


def _standard_ranks(values: Float32) -> Float32:
    """Return ranks, ties averaged, with mean 0 and variance 1; one sort instead of the two of scipy.stats.rankdata."""
    order = np.argsort(values)
    ordered = values[order]
    is_new = np.r_[True, ordered[1:] != ordered[:-1]]
    starts = np.flatnonzero(is_new)
    middle = (starts + np.r_[starts[1:], len(values)] - 1) / 2
    ranks = np.empty(len(values))
    ranks[order] = middle[np.cumsum(is_new) - 1]
    return ((ranks - ranks.mean()) / ranks.std()).astype(np.float32)


def _align(trials: dict[str, _Trial], gaps: LeftOut, n_expected: int) -> CommonEvidence:
    usual = _usual(trials)
    kinds = {id(v.timestamp): v.timestamp for v in trials.values()}
    has = {key: np.isin(usual.timestamp, times, assume_unique=True) for key, times in kinds.items()}
    share = {t: float(has[id(v.timestamp)].mean()) for t, v in trials.items()}
    kept = {t: v for t, v in trials.items() if share[t] >= LEAST_COVERAGE}
    common = np.logical_and.reduce([has[key] for key in {id(v.timestamp) for v in kept.values()}])
    timestamp, fold = usual.timestamp[common], usual.fold[common]
    gaps = replace(
        gaps,
        short=tuple((t, share[t]) for t in trials if t not in kept),
        constant_prediction=tuple(t for t, v in kept.items() if v.is_constant_prediction),
    )
    measures, baselines, horizons = (
        {getattr(v, n) for v in kept.values()} for n in ("measure", "baseline", "signal_horizon")
    )
    advantage = _stack(kept, "advantage", timestamp) if len(measures) == 1 else None
    signal = _stack(kept, "signal", timestamp) if len(horizons) == 1 else None
    return CommonEvidence(
        trial_ids=tuple(kept),
        timestamp=timestamp,
        fold=fold,
        loss_TK=_stack(kept, "loss", timestamp),
        advantage_TK=advantage,
        measure=measures.pop() if advantage is not None else "",
        baseline=(baselines.pop() if len(baselines) == 1 else "the naive forecast of its targets")
        if advantage is not None
        else "",
        signal_TK=signal,
        signal_horizon=horizons.pop() if signal is not None else "",
        horizon_rows=max(v.horizon_rows for v in kept.values()),
        pnl_TK=_stack(kept, "pnl", timestamp),
        left_out=gaps,
        n_expected=n_expected,
    )


def _usual(trials: dict[str, _Trial]) -> _Trial:
    """Return a trial with the timestamps that most have, of equally frequent ones the longest."""
    counts = Counter(id(v.timestamp) for v in trials.values())
    return max(trials.values(), key=lambda v: (counts[id(v.timestamp)], len(v.timestamp)))


def _stack(trials: dict[str, _Trial], name: str, timestamp: NDArray[np.int64]) -> Float32 | None:
    """Return one column a trial at the given timestamps; None where a trial has no such series."""
    if any(getattr(v, name) is None for v in trials.values()):
        return None
    found = np.empty((len(trials), len(timestamp)), dtype=np.float32)
    kinds = {id(v.timestamp): v.timestamp for v in trials.values()}
    rows = {key: np.isin(times, timestamp, assume_unique=True) for key, times in kinds.items()}
    for k, trial in enumerate(trials.values()):
        found[k] = getattr(trial, name)[rows[id(trial.timestamp)]]
    return found.T


def _reason(files: Sequence[Path], error: Exception) -> str:
    """Name the first file that cannot be read; else say what is wrong with the whole."""
    for file in files:
        try:
            pl.read_parquet(file, columns=list(EVIDENCE_COLUMNS))
        except (OSError, pl.exceptions.PolarsError):
            return f"{file.name} cannot be read"
    return " ".join(str(error).split())[:200]
