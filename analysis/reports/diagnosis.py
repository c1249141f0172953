"""Overfitting diagnosis of trials from their training and validation losses per fold (ANALYSIS-12)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from analysis.measures.gates import diagnose
from analysis.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Labels of one trial.

    Attributes:
        label: That of most folds; of equally frequent ones the worse, in the order of `WORST_FIRST`.
        n_folds: Folds with this label.
        n_known: Folds with both losses.
        train, validation: (n_known,) losses, folds in time order.
    """

    label: str
    n_folds: int
    n_known: int
    train: tuple[float, ...]
    validation: tuple[float, ...]


WORST_FIRST = ("data_problem", "overfitting", "unusual", "healthy")


def of_trials(run: RunFolder, trial_ids: Sequence[str]) -> dict[str, Diagnosis]:
    """Return the diagnosis of each trial that has training and validation losses of a whole fold.

    Both must be the same measure: `train_loss` is the reference loss on training rows.
    """
    whole = run.folds.filter((pl.col("share") >= 1.0) & pl.col("metric").is_in(["train_loss", "val_loss"]))
    losses = {
        (t, f, m): math.nan if v is None else v
        for t, f, m, v in whole.select("trial_id", "fold", "metric", "value").iter_rows()
    }
    folds = sorted(set(whole["fold"].to_list()))
    found = {}
    for trial in trial_ids:
        pairs = [
            (losses[trial, f, "train_loss"], losses[trial, f, "val_loss"])
            for f in folds
            if (trial, f, "train_loss") in losses and (trial, f, "val_loss") in losses
        ]
        if not pairs:
            continue
        counts = Counter(diagnose(t, v) for t, v in pairs)
        label = max(counts, key=lambda name: (counts[name], -WORST_FIRST.index(name)))
        found[trial] = Diagnosis(
            label=label,
            n_folds=counts[label],
            n_known=len(pairs),
            train=tuple(t for t, _ in pairs),
            validation=tuple(v for _, v in pairs),
        )
    return found


def by_label(diagnoses: Mapping[str, Diagnosis]) -> dict[str, list[str]]:
    """Return the trials of each label that occurs, worst label first."""
    found = {label: [t for t, d in diagnoses.items() if d.label == label] for label in WORST_FIRST}
    return {label: trials for label, trials in found.items() if trials}
