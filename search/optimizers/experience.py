"""What an optimizer has heard, as arrays: rows of finished trials with a value, in the order of their ends.

Trials that were stopped have seen a part of the ladder. Their loss is estimated from differences to complete trials on
the same cells of it (a cell: a fold and a share of its epochs), so that a trial that saw only easy folds does not look
good and one that saw few epochs does not look bad. Over complete folds, how often such an estimate was wrong for
complete trials gives its variance. How far the trial came goes along as its progress.

A learning curve is more than its end: of the first fold a trial has rows for its 1st, 2nd, 4th, ... rung too, as if it
had been stopped there. What few epochs get wrong differs from config to config and not by chance; a surrogate learns it
over configs and progress together, so such a row has no variance of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.objective import Objective
from search.optimizers import UNTRAINABLE
from search.optimizers.genome import Array, Genome, key
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What trials with a value have shown; a trial has one row or more, its newest last.

    Attributes:
        genes: (n, d), expressed.
        losses: (n, n_objectives) estimates over the whole ladder, smaller is better.
        variances: (n, n_objectives) of the estimates; 0 where unknown.
        progress: (n,) share of the ladder seen, above 0; 1 is complete.
        strengths: (n,) mutation strength that made each.
        is_newest: (n,) whether a row is the newest of its trial.
        ids: (n,) trial ids.
    """

    genes: Array
    losses: Array
    variances: Array
    progress: Array
    strengths: Array
    is_newest: NDArray[np.bool_]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.losses)

    def taken(self, rows: NDArray[np.intp]) -> Results:
        """Return some rows."""
        return Results(
            genes=self.genes[rows],
            losses=self.losses[rows],
            variances=self.variances[rows],
            progress=self.progress[rows],
            strengths=self.strengths[rows],
            is_newest=self.is_newest[rows],
            ids=[self.ids[row] for row in rows],
        )


class Experience:
    """All that was told, and nothing else: a function of the events.

    Args:
        genome: Of the space.
        objectives: What is minimised.
        first_mark: See `last_mark`.
    """

    def __init__(self, genome: Genome, objectives: Sequence[Objective], *, first_mark: int) -> None:
        self.genome = genome
        self._first_mark = first_mark
        self.objectives = tuple(objectives)
        self._genes, self._untrainable = _Rows(genome.n_genes), _Rows(genome.n_genes)
        self._numbers = _Rows(2 * len(self.objectives) + 3)
        self._ids: list[str] = []
        self._ends: list[int] = [0]
        self._open: list[tuple[int, Trial]] = []
        self._complete: deque[Trial] = deque(maxlen=N_WINDOW)
        self._effects: dict[tuple[str, tuple[Cell, ...]], Effects] = {}
        self._running: dict[int, tuple[Array, Trial]] = {}
        self._known: set[bytes] = set()

    @property
    def n_finished(self) -> int:
        """Number of finished trials with a value."""
        return len(self._ends) - 1

    @property
    def n_untrainable(self) -> int:
        """Number of configs that could not be trained."""
        return self._untrainable.n

    def tell(self, trial: Trial) -> None:
        """Hear a trial at any change of it."""
        genes = self.expressed(trial)
        self._known.add(key(genes))
        if not trial.state.is_finished:
            self._running[trial.number] = genes, trial
            return
        self._running.pop(trial.number, None)
        if trial.state in UNTRAINABLE:
            self._untrainable.append(genes)
        elif trial.state.has_value and None not in self._losses(trial):
            self._take(genes, trial)

    def is_known(self, genes: Array) -> bool:
        """Say whether a config was proposed before."""
        return key(genes) in self._known

    def running(self) -> Array:
        """Return the (m, d) expressed genes of running trials."""
        return np.array([genes for genes, _ in self._running.values()]).reshape(-1, self.genome.n_genes)

    def untrainable(self, n_first: int | None = None) -> Array:
        """Return the (m, d) expressed genes of configs that could not be trained, oldest first."""
        return self._untrainable.view[:n_first]

    def results(self, n_first: int | None = None, *, reporting: Trial | None = None) -> Results:
        """Return the first finished trials; with None all of them, and running ones that have reported at the end.

        Args:
            n_first: Number of finished trials.
            reporting: A running trial with an observation that was not told yet.
        """
        end = self._ends[-1 if n_first is None else min(n_first, self.n_finished)]
        genes, numbers, ids = self._genes.view[:end], self._numbers.view[:end], self._ids[:end]
        if n_first is None:
            running = dict(self._running)
            if reporting is not None:
                running[reporting.number] = self.expressed(reporting), reporting
            live = [
                (g, t, self._rows(t)) for g, t in running.values() if t.observations and None not in self._losses(t)
            ]
            genes = np.vstack([genes, *(np.tile(g, (len(rows), 1)) for g, _, rows in live)])
            numbers = np.vstack([numbers, *(rows for _, _, rows in live)])
            ids = [*ids, *(t.trial_id for _, t, rows in live for _ in rows)]
        k = len(self.objectives)
        return Results(
            genes=genes,
            losses=numbers[:, :k],
            variances=numbers[:, k : 2 * k],
            progress=numbers[:, -3],
            strengths=numbers[:, -2],
            is_newest=numbers[:, -1] > 0,
            ids=ids,
        )

    def expressed(self, trial: Trial) -> Array:
        """Return the (d,) expressed genes of a trial."""
        genes = np.nan_to_num(self.genome.encode(trial.config), nan=0.5)
        return np.asarray(self.genome.express(genes[None])[0])

    def _take(self, genes: Array, trial: Trial) -> None:
        if trial.state is TrialState.COMPLETE:
            self._complete.append(trial)
            self._effects.clear()
        rows = self._rows(trial)
        if len(rows) > 1 or trial.state is not TrialState.COMPLETE:
            self._open.append((self._ends[-1], trial))
        for row in rows:
            self._genes.append(genes)
            self._numbers.append(row)
            self._ids.append(trial.trial_id)
        self._ends.append(self._ends[-1] + len(rows))
        if self.n_finished == last_mark(self.n_finished, self._first_mark):
            for start, known in self._open:
                revised = self._rows(known)
                self._numbers.view[start : start + len(revised)] = revised

    def _rows(self, trial: Trial) -> Array:
        """Return losses, variances, progress, strength and 1 for the newest, (m, 2 n_objectives + 3), oldest first."""
        strength = float(trial.note.get("strength", FIRST_STRENGTH))
        pairs = [self._estimate(trial, objective) for objective in self.objectives]
        newest = self._progress(trial, len(trial.observations)), strength, 1.0
        rows = [[*(mean for mean, _ in pairs), *(var for _, var in pairs), *newest]]
        for n, cell in _early_cells(trial):
            values = [self._level(trial, cell, objective) for objective in self.objectives]
            if None not in values:
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
        if not effects:
            return loss, 0.0
        mean = float(np.mean([own[cell] - effect for cell, effect in effects.items()]))
        return mean, _predictive_variance(errors) if trial.by_fold() else 0.0

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

    def _losses(self, trial: Trial) -> list[float | None]:
        return [objective.loss(trial) for objective in self.objectives]


def last_mark(n: int, first: int) -> int:
    """Return the last of the marks first, first + 2, ... (wider steps later on) at or below n.

    Whatever is expensive happens when the number of results passes a mark, and uses exactly the results up to it: so it
    does not matter whether it was asked for in between.
    """
    mark = min(first, n)
    while mark + (step := max(2, mark // 12, (mark - 100) // 4)) <= n:
        mark += step
    return mark


class _Rows:
    """A matrix that grows at the bottom."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self._room = np.empty((64, width))

    @property
    def view(self) -> Array:
        return self._room[: self.n]

    def append(self, row: Array) -> None:
        if self.n == len(self._room):
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        self._room[self.n] = row
        self.n += 1


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
    """Return the variance of the next of these errors around their estimated mean; 0 where there is only one."""
    k = len(errors)
    return float(np.square(errors).sum()) / (k - 1) * (1 + 1 / k) if k > 1 else 0.0


def _bounded(loss: float) -> float:
    return min(max(loss, -LARGEST_LOSS), LARGEST_LOSS)


def _spread(values: Sequence[float], effects: Mapping[Cell, float]) -> float:
    """Return the squared standard error of the mean of values whose known effects are taken off."""
    if len(values) < 2 or len(effects) != len(values):
        return 0.0
    return float(np.var(np.subtract(values, list(effects.values())), ddof=1)) / len(values)
