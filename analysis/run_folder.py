"""The run folder: the one interface between running a search and reading it.

    RUN_DIR/
      space.yaml            the space file, resolved
      plan.json             what was going to be done, where and with what; see `Plan`
      journal.sqlite        the event log (`search.journal`); here only the tracker reads it
      trials.parquet        one row a trial; see TRIAL_COLUMNS, and `param.*`, `metric.*`, `metric.*.se`
      folds.parquet         one row a (trial, fold, metric); see FOLD_COLUMNS
      pareto.json           the Pareto set, where the search has several objectives (`search.pareto`)
      ranking.csv           one row a ranked trial (`analysis.reports.leaderboard`)
      report.html           the page (`analysis.reports.page`)
      vault.json            ledger of the final test period, and final/ what it left (`analysis.vault`)
      evidence/t0007/fold-00.parquet   one row a scored timestamp; see EVIDENCE_COLUMNS

Every file is written whole or not at all. Reports read this folder and never the code that wrote it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from analysis.atomic import write_bytes, write_text

FORMAT = 1
"""Version of this contract, kept in `plan.json`; a reader refuses a newer one."""
FIDELITY = ("scale", "width_frac", "depth_frac", "data_frac")
"""Name and shares of the scale at which a run was trained: only equal ones are compared (SEARCH-16)."""

TRIAL_COLUMNS: Mapping[str, Any] = {
    "trial_id": pl.String,
    "number": pl.Int64,
    "state": pl.String,
    "origin": pl.String,
    "generation": pl.Int64,
    "parents": pl.String,
    "reason": pl.String,
    "seed": pl.Int64,
    "attempts": pl.Int64,
    "seconds": pl.Float64,
    "n_folds": pl.Int64,
}
"""`parents` is a JSON list of trial ids; `n_folds` counts complete folds; `seconds` is training time on all rungs."""

FOLD_COLUMNS: Mapping[str, Any] = {
    "trial_id": pl.String,
    "fold": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,
    "n_scored": pl.Int64,
    "share": pl.Float64,
}
"""`share` is the part of the fold's epochs that was trained; below 1 the trial was stopped inside the fold."""

EVIDENCE_COLUMNS = ("timestamp", "loss")
"""Columns that evidence must have: decision time (UTC) and reference loss. It may have `crps`, and for each horizon h
`prediction_h`, `target_h` and `scale_h` (predicted standard deviation), and `baseline_loss`, `baseline_crps`: scores of
the naive forecast of ANALYSIS-4 on the same rows."""


class RunFolderError(ValueError):
    """A run folder lacks something or holds something broken; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `plan.json` says.

    Attributes:
        family: Key of the family.
        seed: Seed of the search.
        objectives: Mappings with `metric` and `direction` (`min` or `max`).
        folds: In time order, mappings with train_start, train_end, validation_start, validation_end (ISO dates, ends
            exclusive) and optionally n_train, n_validation.
        ladder: (fold, share) of each rung.
        marks: What of the data is modelled and not measured, such as {"iv": "modelled before 2014"}.
        data_snapshot: Content hash of the data.
        commit: Git commit; empty where unknown. With `+` at its end the tree was changed.
        versions: Package name -> version.
        started_utc, ended_utc: ISO times; `ended_utc` is None while the search runs.
        wall_s: Seconds that the search took so far, over all resumes.
        order: Order of the ranking (RANK-1): `merged` or `condor_doc`.
        vault: `start` and `end` (ISO dates) of the final test period; who opened it is in `vault.json`.
        more: Everything else in the file, shown in the report as it is.
    """

    family: str
    seed: int
    objectives: Sequence[Mapping[str, str]]
    folds: Sequence[Mapping[str, Any]]
    ladder: Sequence[Sequence[float]]
    marks: Mapping[str, str]
    data_snapshot: str
    commit: str
    versions: Mapping[str, str]
    started_utc: str
    ended_utc: str | None = None
    wall_s: float | None = None
    order: str = "merged"
    vault: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


_REQUIRED = (
    "family",
    "seed",
    "objectives",
    "folds",
    "ladder",
    "marks",
    "data_snapshot",
    "commit",
    "versions",
    "started_utc",
)
_OPTIONAL = ("ended_utc", "wall_s", "order", "vault")


def write_plan(run_dir: Path, plan: Mapping[str, Any]) -> None:
    """Write `plan.json`: the fields of `Plan`, and any others, which the report shows as they are.

    Raises:
        ValueError: A required field is missing, or a value is no JSON (NaN included).
    """
    missing = [name for name in _REQUIRED if name not in plan]
    if missing:
        raise ValueError(f"plan: expected {', '.join(_REQUIRED)}; missing {', '.join(missing)}")
    try:
        text = json.dumps({"format": FORMAT, **plan}, indent=2, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"plan: expected JSON values only: {error}") from error
    write_text(run_dir / "plan.json", text + "\n")


def write_tables(run_dir: Path, trials: Iterable[Mapping[str, Any]], folds: Iterable[Mapping[str, Any]]) -> None:
    """Write `trials.parquet` and `folds.parquet`.

    Args:
        run_dir: An existing folder.
        trials: One mapping a trial: the keys of TRIAL_COLUMNS, `param.<name>`, `metric.<name>` and
            `metric.<name>.se`. What a trial does not have (an inactive parameter) is absent or None. A parameter column
            is boolean, integer, float or text, whichever holds all of its values; lists and mixtures become JSON text.
        folds: One mapping a (trial, fold, metric) with the keys of FOLD_COLUMNS; `share` may be absent and is then 1.

    Raises:
        ValueError: A row lacks a column of the contract or has one that it does not know.
    """
    trial_rows, fold_rows = [dict(row) for row in trials], [{"share": 1.0, **row} for row in folds]
    extra = sorted({key for row in trial_rows for key in row} - set(TRIAL_COLUMNS))
    unknown = [key for key in extra if not key.startswith(("param.", "metric."))]
    unknown += sorted({key for row in fold_rows for key in row} - set(FOLD_COLUMNS))
    if unknown:
        raise ValueError(f"tables: expected the columns of the contract, param.* and metric.*, found {unknown}")
    _require(trial_rows, TRIAL_COLUMNS, "trials")
    _require(fold_rows, FOLD_COLUMNS, "folds")
    columns = [pl.Series(name, [row[name] for row in trial_rows], dtype=t) for name, t in TRIAL_COLUMNS.items()]
    columns += [_column(name, [row.get(name) for row in trial_rows]) for name in extra]
    _write_parquet(run_dir / "trials.parquet", pl.DataFrame(columns))
    _write_parquet(run_dir / "folds.parquet", pl.DataFrame(fold_rows, schema=dict(FOLD_COLUMNS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceCheck:
    """What of the evidence can be used.

    Attributes:
        n_expected: Trials with at least one complete fold.
        missing: Ids of those without any evidence file.
        broken: (file below the run folder, why) of files that cannot be read; their trials are left out.
    """

    n_expected: int
    missing: tuple[str, ...]
    broken: tuple[tuple[str, str], ...]


class RunFolder:
    """A finished or running search, to be read.

    Args:
        path: The run folder.

    Raises:
        RunFolderError: No such folder, or `plan.json`, `trials.parquet` or `folds.parquet` is missing, broken or of
            another version.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise RunFolderError(f"{path}: expected a run folder, found no such folder; give the last line of a search")
        self.path = path
        self.plan = read_plan(path)
        self.trials = self._table("trials.parquet", TRIAL_COLUMNS)
        self.folds = self._table("folds.parquet", FOLD_COLUMNS)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the `param.*` columns, without the prefix."""
        return tuple(c.removeprefix("param.") for c in self.trials.columns if c.startswith("param."))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the `metric.*` columns, without prefix and without standard errors."""
        names = (c.removeprefix("metric.") for c in self.trials.columns if c.startswith("metric."))
        return tuple(name for name in names if not name.endswith(".se"))

    @property
    def n_tried(self) -> int:
        """Number of trials of this run, without those refused before they began, as in the ledger of the vault.

        A trial that broke a constraint once it had been scored was a chance to be lucky like any other.
        """
        is_refused = (self.trials["state"] == "infeasible") & (self.trials["attempts"] == 0)
        return len(self.trials) - int(is_refused.sum())

    @property
    def n_ever_tried(self) -> int:
        """Number of trials tried here or before on these folds: what every test of luck counts."""
        return self.n_tried + inherited_trials(self.plan)

    def evidence(self, trial_id: str) -> pl.DataFrame | None:
        """Return the evidence of a trial over its folds in time order, with a column `fold`; None where there is none.

        Raises:
            RunFolderError: A file is cut short, lacks a column of EVIDENCE_COLUMNS, or its times are no times.
        """
        frames = []
        for file in self._evidence_files(trial_id):
            frame = _read_parquet(file)
            absent = [c for c in EVIDENCE_COLUMNS if c not in frame.columns]
            if absent:
                raise RunFolderError(f"{file}: expected the columns {', '.join(absent)}, found {frame.columns}")
            if not (frame["timestamp"].dtype.is_temporal() or frame["timestamp"].dtype.is_integer()):
                raise RunFolderError(f"{file}: timestamp: expected UTC times, found {frame['timestamp'].dtype}")
            frames.append(frame.with_columns(pl.lit(int(file.stem.removeprefix("fold-"))).alias("fold")))
        return pl.concat(frames, how="diagonal_relaxed").sort("fold", "timestamp") if frames else None

    def check_evidence(self) -> EvidenceCheck:
        """Return which trials have no usable evidence; opens the footer of every file, reads no rows."""
        expected = self.trials.filter(pl.col("n_folds") > 0)["trial_id"].to_list()
        missing, broken = [], []
        for trial_id in expected:
            files = self._evidence_files(trial_id)
            if not files:
                missing.append(trial_id)
            for file in files:
                try:
                    pl.read_parquet_schema(file)
                except (pl.exceptions.PolarsError, OSError) as error:
                    broken.append((str(file.relative_to(self.path)), _one_line(error)))
        return EvidenceCheck(n_expected=len(expected), missing=tuple(missing), broken=tuple(broken))

    def _evidence_files(self, trial_id: str) -> list[Path]:
        return sorted((self.path / "evidence" / trial_id).glob("fold-*.parquet"))

    def _table(self, name: str, columns: Mapping[str, Any]) -> pl.DataFrame:
        file = self.path / name
        if not file.is_file():
            raise RunFolderError(f"{file}: expected the table of a search, found no such file; finish it with --resume")
        table = _read_parquet(file)
        absent = [c for c in columns if c not in table.columns]
        if absent:
            raise RunFolderError(f"{file}: expected the columns {', '.join(absent)}; written by another version?")
        return table


def read_plan(run_dir: Path) -> Plan:
    """Read `plan.json`.

    Raises:
        RunFolderError: The file is missing, no JSON, of a newer version, or lacks a field.
    """
    file = run_dir / "plan.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{file}: expected a plan: {error.strerror}; is this a run folder?") from error
    except ValueError as error:
        raise RunFolderError(f"{file}: expected JSON: {error}; restore the file from the run's artifacts") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        version = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise RunFolderError(f"{file}: expected format {FORMAT}, found {version}; use the program that wrote it")
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise RunFolderError(f"{file}: expected the fields {', '.join(missing)}; written by another version?")
    known = {name: found[name] for name in (*_REQUIRED, *_OPTIONAL) if name in found}
    return Plan(**known, more={k: v for k, v in found.items() if k not in known and k != "format"})


def write_pareto(run_dir: Path, front: Mapping[str, Any]) -> None:
    """Write `pareto.json`: `objectives`, `constraints` and `trials` with values, errors and configs (SEARCH-19)."""
    write_text(run_dir / "pareto.json", json.dumps(front, indent=2, allow_nan=False) + "\n")


def fidelity(plan: Plan) -> dict[str, Any]:
    """Return how much of the real thing was trained, as far as the plan tells; one that names no scale trained all."""
    return {"scale": "full"} | {name: plan.more[name] for name in FIDELITY if name in plan.more}


def inherited_trials(plan: Plan) -> int:
    """Return how many trials an earlier search tried on these folds before this one began from its results (A32)."""
    return int(plan.more.get("inherited_trials", 0))


def _require(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Any], table: str) -> None:
    for number, row in enumerate(rows):
        absent = [c for c in columns if c not in row]
        if absent:
            raise ValueError(f"{table}: row {number}: expected the columns {', '.join(columns)}; missing {absent}")


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    if name.startswith("metric."):
        finite = [None if v is None or not math.isfinite(v) else float(v) for v in values]
        return pl.Series(name, finite, dtype=pl.Float64)
    kinds = {type(v) for v in values if v is not None}
    for dtype, held in ((pl.Boolean, {bool}), (pl.Int64, {int}), (pl.Float64, {int, float}), (pl.String, {str})):
        if kinds <= held:
            return pl.Series(name, values, dtype=dtype, strict=False)
    return pl.Series(name, [None if v is None else json.dumps(v) for v in values], dtype=pl.String)


def _write_parquet(path: Path, table: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def _read_parquet(file: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunFolderError(f"{file}: expected a Parquet file, cannot read it: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
