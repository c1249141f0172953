"""The final evaluation as the run folder holds it: who may be chosen for it, its ledger, and what it says.

RUN_DIR/
vault.json                              the ledger: one entry an opening
final/01/evidence/t0007/fold-00.parquet one row a scored timestamp of the vault
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis import evidence as common
from analysis import naive
from analysis.atomic import write_text
from analysis.measures import ic
from analysis.measures.long_run import MeanEstimate, mean_with_error
from analysis.reports import honesty, leaderboard
from analysis.run_folder import RunFolder, RunFolderError

LEDGER, FOLDER = "vault.json", "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One entry of the ledger: who opened the vault, when, for whom, after how many trials, and what it said.

    Attributes:
        number: 1 for the first.
        time_utc: ISO time.
        who: `user@host`.
        choice: How the trials were chosen.
        trial_ids: Whom it was opened for.
        n_trials: Trials started by then.
        n_scored: Rows of the vault that each was scored on; 0 where none is.
        scores: Trial -> measure -> value on the vault.
    """

    number: int
    time_utc: str
    who: str
    choice: str
    trial_ids: Sequence[str]
    n_trials: int
    n_scored: int
    scores: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalScore:
    """What a trial is worth on the vault, beside what the search had promised.

    Attributes:
        validation: Measure -> mean over the folds of the search; `loss`, `ic`, `crps` where known.
        vault: Measure -> value on the vault.
        loss: Mean loss on the vault with a standard error that allows for dependent rows.
        ic: Rank correlation of the shortest horizon on the vault, with its error; None where undefined.
        saving: Naive score minus own score per row of the vault; positive: better than naive. None where the evidence
            lets nothing be compared.
        measure, baseline: What `saving` compares, for a reader; empty without it.
    """

    trial_id: str
    validation: Mapping[str, float]
    vault: Mapping[str, float]
    loss: MeanEstimate | None
    ic: ic.IcEstimate | None
    saving: MeanEstimate | None
    measure: str
    baseline: str


def choose(run: RunFolder, choice: str) -> tuple[str, ...]:
    """Return the trials that a choice names.

    Args:
        run: The run.
        choice: `leader` (first of the ranking), `confidence_set` (those that cannot be told apart from the best), or
            ids with commas between them.

    Raises:
        ValueError: No trial is complete, there is no confidence set, or an id is none of a ranked trial.
    """
    board = leaderboard.build(run)
    if board.leader is None:
        raise ValueError("expected a complete trial to score, found none; resume the search first")
    if choice == "leader":
        return (board.leader.trial_id,)
    if choice == "confidence_set":
        evidence, _ = common.gather(run)
        members = honesty.assess(evidence, n_started=run.n_ever_tried).members
        if not members:
            raise ValueError("expected a confidence set, found too little evidence for one; choose leader or trial ids")
        return members
    ids, ranked = tuple(dict.fromkeys(choice.split(","))), {e.trial_id for e in board.ranked}
    unknown = [name for name in ids if name not in ranked]
    if unknown:
        raise ValueError(
            f"expected leader, confidence_set or ids of ranked trials, found {', '.join(unknown)}; see ranking.csv"
        )
    return ids


def folder(run_dir: Path, opening: int) -> Path:
    """Return where an opening leaves evidence and models."""
    return run_dir / FOLDER / f"{opening:02d}"


def write_ledger(run_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `vault.json`, whole or not at all."""
    write_text(run_dir / LEDGER, json.dumps(list(rows), indent=2, allow_nan=False) + "\n")


def read_ledger(run_dir: Path) -> list[Opening]:
    """Return the openings of the vault in order; empty where it was never opened.

    Raises:
        RunFolderError: The file cannot be understood.
    """
    file = run_dir / LEDGER
    if not file.is_file():
        return []
    try:
        return [Opening(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(
            f"{file}: expected the ledger of the vault, cannot read it: {error}; --resume writes it again"
        ) from error


def scores(run: RunFolder) -> list[FinalScore]:
    """Return what the newest opening says of each of its scored trials; empty where there was none."""
    ledger = read_ledger(run.path)
    if not ledger:
        return []
    last = ledger[-1]
    return [_score(run, last.number, t, last.scores[t]) for t in last.trial_ids if t in last.scores]


def _score(run: RunFolder, opening: int, trial_id: str, vault: Mapping[str, float]) -> FinalScore:
    found = run.trials.filter(pl.col("trial_id") == trial_id)
    if not len(found):
        raise RunFolderError(f"{run.path / LEDGER}: expected trials of this run, found {trial_id}; whose ledger is it?")
    validation = {
        name.removeprefix("metric."): value
        for name, value in found.row(0, named=True).items()
        if name.startswith("metric.") and not name.endswith(".se") and value is not None
    }
    rows = _rows(folder(run.path, opening) / "evidence" / trial_id / "fold-00.parquet")
    gain = None if rows is None else _gain(run, trial_id, rows)
    return FinalScore(
        trial_id=trial_id,
        validation=validation,
        vault=vault,
        loss=None if rows is None else mean_with_error(rows["loss"].cast(pl.Float64).to_numpy()),
        ic=None if rows is None else _ic(rows),
        saving=None if gain is None else mean_with_error(gain.values[-len(rows) :]),
        measure="" if gain is None else gain.measure,
        baseline="" if gain is None else gain.baseline,
    )


def _rows(file: Path) -> pl.DataFrame | None:
    try:
        return pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError):  # the ledger has the means; there are no rows to say more
        return None


def _ic(rows: pl.DataFrame) -> ic.IcEstimate | None:
    horizons = naive.horizons(rows.columns)
    if not horizons:
        return None
    prediction, target = (
        rows[f"{what}_{horizons[0]}"].cast(pl.Float64).to_numpy() for what in ("prediction", "target")
    )
    return ic.estimate(prediction, target, horizon_rows=naive.horizon_rows(rows["timestamp"], horizons[0]))


def _gain(run: RunFolder, trial_id: str, rows: pl.DataFrame) -> naive.Advantage | None:
    """Compare with the naive forecast on the vault, which may know what the folds of the search showed."""
    try:
        before = run.evidence(trial_id)
    except RunFolderError:  # the report names the file; the vault's own rows still have their loss and IC
        return None
    if before is None:
        return None
    n_folds = len(run.plan.folds)
    last = rows.with_columns(pl.lit(n_folds).cast(before["fold"].dtype).alias("fold"))
    gain = naive.advantage(pl.concat([before, last], how="diagonal_relaxed"))
    return gain if gain is not None and np.isfinite(gain.values[-len(rows) :]).all() else None
