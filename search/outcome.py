"""A search as plain rows: what the analysis layer writes to `trials.parquet` and `folds.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from .trial import Trial


def trial_rows(trials: Iterable[Trial]) -> Iterator[dict[str, Any]]:
    """Yield one mapping a trial: identity, state, `param.*`, and `metric.*` with standard errors `metric.*.se`."""
    for trial in trials:
        row: dict[str, Any] = {
            "trial_id": trial.trial_id,
            "number": trial.number,
            "state": str(trial.state),
            "origin": trial.origin,
            "generation": trial.generation,
            "parents": json.dumps(trial.parents),
            "reason": trial.reason,
            "seed": trial.seed,
            "attempts": trial.attempts,
            "seconds": sum(o.seconds for o in trial.observations),
            "n_folds": trial.n_folds,
        }
        row |= {f"param.{name}": value for name, value in trial.config.items()}
        for metric in sorted({name for o in trial.observations for name in o.metrics}):
            if estimate := trial.estimate(metric):
                row |= {f"metric.{metric}": estimate.mean, f"metric.{metric}.se": estimate.error}
        yield row


def fold_rows(trials: Iterable[Trial]) -> Iterator[dict[str, Any]]:
    """Yield one mapping for each metric of each visited fold of each trial."""
    for trial in trials:
        for fold, seen in trial.latest_by_fold().items():
            for metric, value in seen.metrics.items():
                yield {
                    "trial_id": trial.trial_id,
                    "fold": fold,
                    "metric": metric,
                    "value": value,
                    "n_scored": seen.n_scored,
                    "share": seen.share,
                }
