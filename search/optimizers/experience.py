"""What an optimizer has heard, as arrays: rows of trials with a value, in the order in which they left their workers.

A trial that was set aside and taken up again leaves several times; its older rows are then superseded, and still there
for whoever asks what was known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.objective import Objective
from search.optimizers import UNTRAINABLE
from search.optimizers.genome import Array, Genome, key
from search.optimizers.valuation import Valuation
from search.trial import Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What trials with a value have shown; a trial has one row or more, its newest last.

    Attributes:
        genes: (n, d), expressed.
        losses: (n, n_objectives) estimates over the whole ladder, smaller is better.
        variances: (n, n_objectives) of the estimates; NaN where it is unknown.
        progress: (n,) share of the ladder seen, above 0; 1 is complete.
        strengths: (n,) mutation strength that made each.
        is_newest: (n,) whether a row is the newest of its trial.
        excesses: (n,) `Trial.excess`, NaN where unknown.
        ids: (n,) trial ids.
    """

    genes: Array
    losses: Array
    variances: Array
    progress: Array
    strengths: Array
    is_newest: NDArray[np.bool_]
    excesses: Array
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
            excesses=self.excesses[rows],
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
        self._untrainable_excesses = _Rows(1)
        self._valuation = Valuation(self.objectives)
        self._numbers = _Rows(2 * len(self.objectives) + 3)
        self._excesses, self._until = _Rows(1), _Rows(1)
        self._ids: list[str] = []
        self._ends: list[int] = [0]
        self._rows_of: dict[int, slice] = {}
        self._first_ends: list[int] = [0]
        self._open: dict[int, Trial] = {}
        self._running: dict[int, tuple[Array, Trial]] = {}
        self._known: set[bytes] = set()

    @property
    def n_valued(self) -> int:
        """Number of trials that have left a worker with a value."""
        return len(self._rows_of)

    @property
    def n_ends(self) -> int:
        """How often a trial has left a worker with a value."""
        return len(self._ends) - 1

    @property
    def mark(self) -> int:
        """Number of ends when the number of trials with a value last passed one of the marks."""
        return self._first_ends[last_mark(self.n_valued, self._first_mark)]

    @property
    def n_untrainable(self) -> int:
        """Number of configs that could not be trained."""
        return self._untrainable.n

    def tell(self, trial: Trial) -> None:
        """Hear a trial at any change of it."""
        genes = self.expressed(trial)
        self._known.add(key(genes))
        if trial.state is TrialState.RUNNING:
            self._running[trial.number] = genes, trial
            return
        self._running.pop(trial.number, None)
        excess = np.array([np.nan if trial.excess is None else trial.excess])
        if trial.state in UNTRAINABLE:
            self._untrainable.append(genes)
            self._untrainable_excesses.append(excess)
        elif trial.state.has_value and self._has_values(trial):
            self._take(genes, trial, excess)

    def is_known(self, genes: Array) -> bool:
        """Say whether a config was proposed before."""
        return key(genes) in self._known

    def running(self) -> Array:
        """Return the (m, d) expressed genes of running trials."""
        return np.array([genes for genes, _ in self._running.values()]).reshape(-1, self.genome.n_genes)

    def untrainable(self, n_first: int | None = None) -> Array:
        """Return the (m, d) expressed genes of configs that could not be trained, oldest first."""
        return self._untrainable.view[:n_first]

    def untrainable_excesses(self, n_first: int | None = None) -> Array:
        """Return the (m,) `Trial.excess` of the same configs, NaN where unknown."""
        return self._untrainable_excesses.view[:n_first, 0]

    def results(self, n_first: int | None = None, *, reporting: Trial | None = None) -> Results:
        """Return what was known after some ends; with None after all, and running trials that have reported.

        Args:
            n_first: Number of ends.
            reporting: A running trial with an observation that was not told yet.
        """
        n_ends = self.n_ends if n_first is None else min(n_first, self.n_ends)
        end = self._ends[n_ends]
        is_valid = self._until.view[:end, 0] > n_ends
        genes, numbers, ids = self._genes.view[:end], self._numbers.view[:end], self._ids[:end]
        excesses = self._excesses.view[:end, 0]
        if n_first is None:
            running = dict(self._running)
            if reporting is not None:
                running[reporting.number] = self.expressed(reporting), reporting
            seen = [(g, t) for g, t in running.values() if t.observations and self._has_values(t)]
            live = [(g, t, self._valuation.rows(t)) for g, t in seen]
            genes = np.vstack([genes, *(np.tile(g, (len(rows), 1)) for g, _, rows in live)])
            numbers = np.vstack([numbers, *(rows for _, _, rows in live)])
            ids = [*ids, *(t.trial_id for _, t, rows in live for _ in rows)]
            excesses = np.append(excesses, np.full(len(numbers) - end, np.nan))
            is_valid = np.append(is_valid, np.ones(len(numbers) - end, bool))
            for trial in (t for _, t in seen if t.number in self._rows_of):
                is_valid[self._rows_of[trial.number]] = False
        k = len(self.objectives)
        known = Results(
            genes=genes,
            losses=numbers[:, :k],
            variances=numbers[:, k : 2 * k],
            progress=numbers[:, -3],
            strengths=numbers[:, -2],
            is_newest=numbers[:, -1] > 0,
            excesses=excesses,
            ids=ids,
        )
        return known if is_valid.all() else known.taken(np.flatnonzero(is_valid))

    def expressed(self, trial: Trial) -> Array:
        """Return the (d,) expressed genes of a trial."""
        genes = np.nan_to_num(self.genome.encode(trial.config), nan=0.5)
        return np.asarray(self.genome.express(genes[None])[0])

    def _take(self, genes: Array, trial: Trial, excess: Array) -> None:
        self._valuation.learn(trial)
        rows = self._valuation.rows(trial)
        self._open.pop(trial.number, None)
        if len(rows) > 1 or trial.state is not TrialState.COMPLETE:
            self._open[trial.number] = trial
        for row in rows:
            self._genes.append(genes)
            self._numbers.append(row)
            self._excesses.append(excess)
            self._until.append(np.array([np.inf]))
            self._ids.append(trial.trial_id)
        start = self._ends[-1]
        self._ends.append(start + len(rows))
        if trial.number in self._rows_of:
            self._until.view[self._rows_of[trial.number]] = self.n_ends
        is_new = trial.number not in self._rows_of
        self._rows_of[trial.number] = slice(start, start + len(rows))
        if is_new:
            self._first_ends.append(self.n_ends)
        if is_new and self.n_valued == last_mark(self.n_valued, self._first_mark):
            for number, known in self._open.items():
                revised = self._valuation.rows(known)
                self._numbers.view[self._rows_of[number]] = revised

    def _has_values(self, trial: Trial) -> bool:
        return all(objective.loss(trial) is not None for objective in self.objectives)


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
