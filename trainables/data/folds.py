"""Walk-forward folds: calendar windows, the vault, and the rows that a fold trains and scores on (WF-1, WF-4, WF-7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, time

import numpy as np
from numpy.typing import NDArray

from trainables.data.config import FinalFolds, FoldsConfig
from trainables.data.dataset import NO_LABEL, Dataset
from trainables.data.windows import history_length
from trainables.data.zones import NS_PER_DAY, day_of, instant, instants, local_day
from trainables.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldWindow:
    """Time ranges of one fold, ns UTC, each `[start, end)` in `known_time`.

    Attributes:
        index: Position in the plan, from 0, in time order.
        train_start, train_end: Training window; its end is the start of validation.
        validation_start, validation_end: Scored window.
        vault_start: Start of the final test period: labels known from here on are not used.
        purge_days: Shortest purge that was asked for, calendar days; None: each row's own label end decides.
    """

    index: int
    train_start: int
    train_end: int
    validation_start: int
    validation_end: int
    vault_start: int
    purge_days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldPlan:
    """All folds of a search and the final test period `[vault_start, vault_end)`, ns UTC."""

    windows: tuple[FoldWindow, ...]
    vault_start: int
    vault_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRows:
    """Positions of the last rows of a fold's windows, increasing: (n_train,) and (n_scored,)."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def plan_folds(known_time: NDArray[np.int64], folds: FoldsConfig) -> FoldPlan:
    """Lay folds over the months of the data. Source: WF-1, C-52.

    A month is a calendar month in New York, counted from the month of the first row to the month of the last; a first
    or last month that the data cover only in part counts. The last `test_months` of them are the vault. With
    `unit: days` a New York day that has rows stands for a month. `FinalFolds` open the vault: their one fold trains on
    all that lies before and is scored on it (SEARCH-17).

    Args:
        known_time: (n_rows,) ns UTC, increasing, of all rows, the vault's included (`loader.load_times`): what a closed
            vault leaves over would be planned as if it were everything.
        folds: The `folds` section.

    Raises:
        DataError: There is no row, or too few months for one fold.
    """
    if len(known_time) == 0:
        raise DataError("data: expected at least one row, found none; nothing can be split into folds")
    edges = _edges(known_time, folds)
    n_units = len(edges) - 1
    vault = n_units - folds.test_months
    step = folds.step_months or folds.validation_months
    starts = range(folds.train_months, vault - folds.validation_months + 1, step)
    if not starts:
        needed = folds.train_months + folds.validation_months + folds.test_months
        raise DataError(
            f"folds: one fold needs train {folds.train_months} + validation {folds.validation_months} + "
            f"test {folds.test_months} = {needed} {folds.unit}, found {n_units} "
            f"({_day(known_time[0])} to {_day(known_time[-1])}); give more data or lower folds.train_months"
        )
    vault_end = max(edges[-1], int(known_time[-1]) + 1)
    if isinstance(folds, FinalFolds):
        return _final_plan(_window(edges, vault, edges[vault], folds), vault_end)
    windows = [_window(edges, start, edges[vault], folds) for start in starts]
    kept = windows[-folds.max_folds :] if folds.max_folds else windows
    return FoldPlan(
        windows=tuple(_numbered(kept)),
        vault_start=edges[vault],
        vault_end=vault_end,
    )


def fold_rows(
    window: FoldWindow, dataset: Dataset, *, lookback: int, scored_lookback: int, embargo: float = 0.0
) -> FoldRows:
    """Return the rows that a trial trains on in a fold, and the rows on which every trial of the search is scored.

    A training row lies in the training window, has `lookback` rows of complete features, and a label known before
    validation starts, less the embargo and any longer purge (Lopez de Prado 2018, ch. 7; WF-4). A scored row lies in
    the validation window, has `scored_lookback` rows of complete features, and a label known before the vault: this
    does not depend on the trial's own look-back (SEARCH-14, WF-7).

    Args:
        window: One fold of the plan.
        dataset: Features and labels.
        lookback: Rows of a window of this trial, at most `scored_lookback`.
        scored_lookback: Rows of the longest window that the space allows.
        embargo: Calendar days between the last training label and the start of validation (`folds.embargo_days`).

    Raises:
        ValueError: `lookback` is above `scored_lookback` or below 1.
        DataError: The purge is shorter than a label, or training or validation would be empty.
    """
    if not 1 <= lookback <= scored_lookback:
        raise ValueError(f"lookback: expected 1 to scored_lookback ({scored_lookback}), found {lookback}")
    history = history_length(dataset)
    in_training = _in(dataset.known_time, window.train_start, window.train_end)
    limit = window.validation_start - round(embargo * NS_PER_DAY)
    train = in_training & dataset.usable & (history >= lookback) & (dataset.label_end < limit)
    if window.purge_days is not None:
        _check_purge(window.purge_days, dataset)
        train &= dataset.known_time < window.validation_start - round(window.purge_days * NS_PER_DAY)
    scored = _scored(window, dataset, history, scored_lookback)
    if not scored.any():
        raise DataError(
            f"folds: {_name(window)} has no row to score; {_why_empty(window, dataset, history, scored_lookback)}"
        )
    if not train.any():
        raise DataError(
            f"folds: {_name(window)} has no training row; {_why_untrained(window, dataset, in_training, limit)}"
        )
    validation = np.flatnonzero(scored)
    validation = validation[np.argsort(dataset.known_time[validation], kind="stable")]
    return FoldRows(train=np.flatnonzero(train), validation=validation)


def thinned(rows: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """Return rows at least `stride` apart: the first, and each next one that is far enough (DATA-5, C-13).

    Args:
        rows: (n,) increasing positions.
        stride: 1 or more; 1 returns all.
    """
    if stride == 1 or not len(rows):
        return rows
    kept = [0]
    while (following := int(np.searchsorted(rows, rows[kept[-1]] + stride))) < len(rows):
        kept.append(following)
    return rows[kept]


def check_folds(
    windows: Iterable[FoldWindow], dataset: Dataset, *, lookback: int, scored_lookback: int, embargo: float = 0.0
) -> tuple[FoldRows, ...]:
    """Return the rows of every fold, or one error that lists all folds that have none (never fewer folds silently).

    Raises:
        DataError: See `fold_rows`; one line for all folds.
    """
    rows, problems = [], []
    for window in windows:
        try:
            rows.append(fold_rows(window, dataset, lookback=lookback, scored_lookback=scored_lookback, embargo=embargo))
        except DataError as problem:
            problems.append(str(problem).removeprefix("folds: "))
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise DataError(
            f"folds: {len(problems)} of {len(problems) + len(rows)} cannot be used: {'; '.join(problems[:3])}{more}"
        )
    return tuple(rows)


def scored_digest(folds: Iterable[FoldRows], dataset: Dataset) -> str:
    """Return the SHA-256 of what is scored in all folds, times and targets: values over equal ones may be compared."""
    digest = hashlib.sha256(json.dumps(dataset.target_names).encode())
    for rows in folds:
        digest.update(np.ascontiguousarray(dataset.known_time[rows.validation]))
        digest.update(np.ascontiguousarray(dataset.targets[rows.validation]))
    return digest.hexdigest()


def _edges(known_time: NDArray[np.int64], folds: FoldsConfig) -> list[int]:
    """Return the New York midnights at which the units of the plan begin, and the one at which the last ends."""
    if folds.unit == "days":
        days = np.unique(local_day(known_time - 1))
        return [int(edge) for edge in instants(np.append(days, days[-1] + 1), time())]
    first, last = _month(int(known_time[0])), _month(int(known_time[-1]) - 1)
    return [_midnight(month) for month in range(first, last + 2)]


def _window(edges: list[int], start: int, vault_start: int, folds: FoldsConfig) -> FoldWindow:
    return FoldWindow(
        index=0,
        train_start=edges[0 if folds.mode == "anchored" else start - folds.train_months],
        train_end=edges[start],
        validation_start=edges[start],
        validation_end=edges[min(start + folds.validation_months, len(edges) - 1)],
        vault_start=vault_start,
        purge_days=folds.purge_days,
    )


def _final_plan(window: FoldWindow, vault_end: int) -> FoldPlan:
    """Return the one fold that is scored on the whole vault; behind it nothing is withheld."""
    final = replace(window, validation_end=vault_end, vault_start=vault_end)
    return FoldPlan(windows=(final,), vault_start=vault_end, vault_end=vault_end)


def _numbered(windows: list[FoldWindow]) -> Iterable[FoldWindow]:
    return (replace(window, index=i) for i, window in enumerate(windows))


def _scored(window: FoldWindow, dataset: Dataset, history: NDArray[np.int64], lookback: int) -> NDArray[np.bool_]:
    in_window = _in(dataset.known_time, window.validation_start, window.validation_end)
    scored = in_window & dataset.usable & (history >= lookback) & (dataset.label_end < window.vault_start)
    return scored if dataset.scored is None else scored & dataset.scored


def _check_purge(purge_days: float, dataset: Dataset) -> None:
    """Refuse a purge that does not cover every label (A31)."""
    has_label = dataset.label_end != NO_LABEL
    spans = dataset.label_end[has_label] - dataset.known_time[has_label]
    longest = float(spans.max()) / NS_PER_DAY if len(spans) else 0.0
    if purge_days < longest:
        raise DataError(
            f"folds.purge_days: expected at least the longest label, {longest:.4g} days, found {purge_days:g}; "
            "raise it, or leave it out so that each row's own label end decides"
        )


def _why_empty(window: FoldWindow, dataset: Dataset, history: NDArray[np.int64], lookback: int) -> str:
    inside = _in(dataset.known_time, window.validation_start, window.validation_end)
    usable = inside & dataset.usable
    long_enough = usable & (history >= lookback)
    return (
        f"of {int(inside.sum())} rows {int(usable.sum())} have features and a label, {int(long_enough.sum())} of them "
        f"{lookback} rows of complete history, none a label known before the vault; move or widen the folds"
    )


def _why_untrained(window: FoldWindow, dataset: Dataset, in_training: NDArray[np.bool_], limit: int) -> str:
    usable = in_training & dataset.usable
    kept = usable & (dataset.label_end < limit)
    return (
        f"of {int(in_training.sum())} rows {int(usable.sum())} have features and a label, {int(kept.sum())} a label "
        f"known before {_day(limit)} less purge_days; raise folds.train_months or shorten the labels"
    )


def _in(times: NDArray[np.int64], start: int, end: int) -> NDArray[np.bool_]:
    return (times >= start) & (times < end)


def _name(window: FoldWindow) -> str:
    return f"fold {window.index} (validation {_day(window.validation_start)} to {_day(window.validation_end)})"


def _month(time_ns: int) -> int:
    """Number of the New York calendar month that holds an instant, from year 0."""
    day = day_of(time_ns)
    return day.year * 12 + day.month - 1


def _midnight(month: int) -> int:
    return instant(date(month // 12, month % 12 + 1, 1), time())


def _day(time_ns: int) -> str:
    return day_of(int(time_ns)).isoformat()
