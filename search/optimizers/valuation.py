"""What a trial is worth over the whole ladder, as far as its rungs tell.

Trials that were stopped have seen a part of the ladder. Their loss is estimated from differences to complete trials on
the same cells of it (a cell: a fold and a share of its epochs), so that a trial that saw only easy folds does not look
good and one that saw few epochs does not look bad. Over complete folds, how often such an estimate was wrong for
complete trials gives its variance, which is NaN (unknown) before two are complete. How far the trial came goes along as
its progress.

A learning curve is more than its end: of the first fold a trial has rows for its 1st, 2nd, 4th, ... rung too, as if it
had been stopped there. What few epochs get wrong differs from config to config and not by chance; a surrogate learns it
over configs and progress together, so such a row has no variance of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from search.objective import Objective
from search.optimizers.genome import Array
from search.trial import Observation, Trial, TrialState

Cell = tuple[int, float]
Effects = tuple[dict[Cell, float], list[float]]
"""Effect of each of some cells on complete trials, and how wrong these cells were about each of those."""
FIRST_STRENGTH = 0.1
"""Mutation strength of a config that no mutation made, as a share of a gene's range."""
LARGEST_LOSS = 1e100
"""Losses beyond this count as this, so that their squares are finite."""
N_WINDOW = 128
"""Newest complete trials that partial ones are compared to."""


class Valuation:
    """Values trials by what complete ones have taught.

    Args:
        objectives: What is minimised.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self._complete: deque[Trial] = deque(maxlen=N_WINDOW)
        self._effects: dict[tuple[str, tuple[Cell, ...]], Effects] = {}

    def learn(self, complete: Trial) -> None:
        """Take in one more complete trial."""
        self._complete.append(complete)
        self._effects.clear()

    def rows(self, trial: Trial) -> Array:
        """Return losses, variances, progress, strength and 1 for the newest, (m, 2 n_objectives + 3), oldest first.

        Args:
            trial: With a value of every objective.
        """
        strength = float(trial.note.get("strength", FIRST_STRENGTH))
        pairs = [self._estimate(trial, objective) for objective in self.objectives]
        newest = self._progress(trial, len(trial.observations)), strength, 1.0
        rows = [[*(mean for mean, _ in pairs), *(var for _, var in pairs), *newest]]
        for n, cell in _early_cells(trial):
            levels = [self._level(trial, cell, objective) for objective in self.objectives]
            values = [level for level in levels if level is not None]
            if len(values) == len(levels):
                rows.insert(-1, [*values, *(0.0 for _ in values), self._progress(trial, n), strength, 0.0])
        return np.array(rows)

    def _level(self, trial: Trial, cell: Cell, objective: Objective) -> float | None:
        """Return the loss over the whole ladder by one cell alone; None where the trial has no value there."""
        own = _cells(trial, objective, [cell])
        return own[cell] - self._effects_of((cell,), objective)[0].get(cell, 0.0) if own else None

    def _estimate(self, trial: Trial, objective: Objective) -> tuple[float, float]:
        """Return the loss over the whole ladder and its variance."""
        loss = objective.loss(trial)
        assert loss is not None
        loss = _bounded(loss)
        own = _cells(trial, objective)
        if trial.state is TrialState.COMPLETE and len(own) < 2:
            return loss, 0.0
        effects, errors = self._effects_of(tuple(own), objective)
        if trial.state is TrialState.COMPLETE:
            return loss, _spread(list(own.values()), effects)
        variance = _predictive_variance(errors) if trial.by_fold() else 0.0
        if not effects:
            return loss, variance
        return float(np.mean([own[cell] - effect for cell, effect in effects.items()])), variance

    def _effects_of(self, cells: tuple[Cell, ...], objective: Objective) -> Effects:
        at = objective.metric, cells
        if at not in self._effects:
            self._effects[at] = self._effects_on_complete(cells, objective)
        return self._effects[at]

    def _effects_on_complete(self, cells: tuple[Cell, ...], objective: Objective) -> Effects:
        peers = [(objective.loss(t), _cells(t, objective, cells)) for t in self._complete]
        known = [(loss, found) for loss, found in peers if loss is not None and len(found) == len(cells)]
        if not known:
            return {}, []
        rest = np.array([[found[cell] - _bounded(loss) for cell in cells] for loss, found in known])
        effects = rest.mean(axis=0)
        errors = (rest - effects).mean(axis=1)
        return dict(zip(cells, map(float, effects), strict=True)), [float(e) for e in errors]

    def _progress(self, trial: Trial, n_rungs: int) -> float:
        if trial.state is TrialState.COMPLETE and n_rungs == len(trial.observations):
            return 1.0
        longest = max((len(t.observations) for t in self._complete), default=2 * len(trial.observations))
        return min(n_rungs / longest, 0.99)


def _early_cells(trial: Trial) -> list[tuple[int, Cell]]:
    """Return number and cell of the 1st, 2nd, 4th, ... rung inside the first fold, but for the newest rung."""
    first = [o for o in trial.observations[:-1] if o.fold == trial.observations[0].fold and o.share < 1.0]
    return [(n, (o.fold, o.share)) for n, o in enumerate(first, 1) if n & (n - 1) == 0]


def _cells(trial: Trial, objective: Objective, wanted: Sequence[Cell] | None = None) -> dict[Cell, float]:
    """Return the signed value of each wanted cell; None: of each complete fold, or of the newest cells if none is."""
    chosen: Sequence[Observation] = trial.observations
    if wanted is None:
        chosen = tuple((trial.by_fold() or trial.latest_by_fold()).values())
    sign = 1.0 if objective.direction == "min" else -1.0
    values = [(o.fold, o.share, o.metrics[objective.metric]) for o in chosen if objective.metric in o.metrics]
    found = {(fold, share): sign * _bounded(value) for fold, share, value in values}
    return found if wanted is None else {cell: found[cell] for cell in wanted if cell in found}


def _predictive_variance(errors: Sequence[float]) -> float:
    """Return the variance of the next of these errors around their estimated mean; NaN where it is unknown."""
    k = len(errors)
    return float(np.square(errors).sum()) / (k - 1) * (1 + 1 / k) if k > 1 else np.nan


def _bounded(loss: float) -> float:
    return min(max(loss, -LARGEST_LOSS), LARGEST_LOSS)


def _spread(values: Sequence[float], effects: Mapping[Cell, float]) -> float:
    """Return the squared standard error of the mean of values whose known effects are taken off."""
    if len(values) < 2 or len(effects) != len(values):
        return 0.0
    return float(np.var(np.subtract(values, list(effects.values())), ddof=1)) / len(values)
