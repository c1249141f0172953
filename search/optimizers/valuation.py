"""What a trial is worth over the whole ladder, as far as its rungs tell.

Trials that were stopped or set aside have seen a part of the ladder. What a fold costs is taken off, by a layout of
trials and folds (`search.fold_effects`), so that a trial that saw only easy folds does not look good; how far folds
scatter gives the variance, NaN (unknown) while too few trials have several. A trial without a whole fold is compared
with complete trials on the same cell of the ladder (a cell: a fold and a share of its epochs), so that few epochs do
not look bad. How far the trial came goes along as its progress.

A learning curve is more than its end: of the first fold a trial has rows for its 1st, 2nd, 4th, ... rung too, as if it
had been stopped there. What few epochs get wrong differs from config to config and not by chance; a surrogate learns it
over configs and progress together, so such a row has no variance of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from search import fold_effects
from search.fold_effects import FoldEffects
from search.objective import Objective
from search.optimizers.genome import Array
from search.trial import Trial, TrialState

Cell = tuple[int, float]
FIRST_STRENGTH = 0.1
"""Mutation strength of a config that no mutation made, as a share of a gene's range."""
LARGEST_LOSS = 1e100
"""Losses beyond this count as this, so that their squares are finite."""
N_WINDOW = 128
"""Newest trials that others are compared to: complete ones, and ones with whole folds."""


class Valuation:
    """Values trials by what complete ones have taught.

    Args:
        objectives: What is minimised.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self._complete: deque[Trial] = deque(maxlen=N_WINDOW)
        self._folded: dict[int, Trial] = {}
        self._effects: dict[tuple[str, Cell], float] = {}
        self._layouts: dict[str, tuple[FoldEffects, float]] = {}

    def learn(self, trial: Trial) -> None:
        """Take in a trial that has left its worker with a value."""
        if trial.state is TrialState.COMPLETE:
            self._complete.append(trial)
            self._effects.clear()
        if trial.by_fold():
            self._folded.pop(trial.number, None)
            self._folded[trial.number] = trial
            if len(self._folded) > N_WINDOW:
                del self._folded[next(iter(self._folded))]
            self._layouts.clear()

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
        own = _cell(trial, objective, cell)
        return own - self._effect(cell, objective) if own is not None else None

    def _estimate(self, trial: Trial, objective: Objective) -> tuple[float, float]:
        """Return the loss over the whole ladder and its variance."""
        loss = objective.loss(trial)
        assert loss is not None
        loss = _bounded(loss)
        own = _by_fold(trial, objective)
        if not own:
            newest = trial.observations[-1]
            return loss - self._effect((newest.fold, newest.share), objective), 0.0
        layout, level = self._layout(objective)
        if trial.state is TrialState.COMPLETE and (len(own) < 2 or not layout.is_known):
            return loss, 0.0
        if len(layout.effects) <= max(own) or np.isnan(layout.effects[list(own)]).all():
            return loss, np.nan
        worth, variance = layout.worth(fold_effects.matrix([own], len(layout.effects)))
        return float(worth[0]) + level, float(variance[0])

    def _layout(self, objective: Objective) -> tuple[FoldEffects, float]:
        """Return what folds cost, and what they cost on average, weighted by scored timestamps."""
        if objective.metric not in self._layouts:
            rows = [_by_fold(t, objective) for t in self._folded.values()]
            rows = [row for row in rows if row]
            scored = {f: o.n_scored for t in self._folded.values() for f, o in t.by_fold().items()}
            layout = fold_effects.fit(fold_effects.matrix(rows, 1 + max(map(max, rows), default=-1)))
            seen = np.flatnonzero(~np.isnan(layout.effects))
            weights = np.array([float(scored[int(fold)]) for fold in seen])
            level = float(np.average(layout.effects[seen], weights=weights)) if weights.sum() > 0 else 0.0
            self._layouts[objective.metric] = layout, level
        return self._layouts[objective.metric]

    def _effect(self, cell: Cell, objective: Objective) -> float:
        """Return what a cell adds to the loss over the whole ladder, by complete trials; 0 where there is none."""
        at = objective.metric, cell
        if at not in self._effects:
            peers = [(objective.loss(t), _cell(t, objective, cell)) for t in self._complete]
            rest = [own - _bounded(loss) for loss, own in peers if loss is not None and own is not None]
            self._effects[at] = float(np.mean(rest)) if rest else 0.0
        return self._effects[at]

    def _progress(self, trial: Trial, n_rungs: int) -> float:
        if n_rungs == len(trial.observations) and (trial.state is TrialState.COMPLETE or trial.by_fold()):
            return 1.0
        longest = max((len(t.observations) for t in self._complete), default=2 * len(trial.observations))
        return min(n_rungs / longest, 0.99)


def _early_cells(trial: Trial) -> list[tuple[int, Cell]]:
    """Return number and cell of the 1st, 2nd, 4th, ... rung inside the first fold, but for the newest rung."""
    first = [o for o in trial.observations[:-1] if o.fold == trial.observations[0].fold and o.share < 1.0]
    return [(n, (o.fold, o.share)) for n, o in enumerate(first, 1) if n & (n - 1) == 0]


def _cell(trial: Trial, objective: Objective, cell: Cell) -> float | None:
    """Return the signed value of a cell; None where the trial has none."""
    values = [o.metrics.get(objective.metric) for o in trial.observations if (o.fold, o.share) == cell]
    return None if not values or values[0] is None else _signed(values[0], objective)


def _by_fold(trial: Trial, objective: Objective) -> dict[int, float]:
    """Return the signed value of each complete fold that has one."""
    values = {fold: o.metrics.get(objective.metric) for fold, o in trial.by_fold().items()}
    return {fold: _signed(value, objective) for fold, value in values.items() if value is not None}


def _signed(value: float, objective: Objective) -> float:
    return _bounded(value if objective.direction == "min" else -value)


def _bounded(loss: float) -> float:
    return min(max(loss, -LARGEST_LOSS), LARGEST_LOSS)
