"""What an optimizer has heard, as arrays: one row per finished trial with a value, in the order of their ends.

Trials that were stopped have seen a part of the ladder. Their loss is estimated from differences to complete trials on
the same cells of it (a cell: a fold and a share of its epochs), so that a trial that saw only easy folds does not look
good and one that saw few epochs does not look bad. How often such an estimate was wrong for complete trials gives its
variance; how far the trial came goes along as its progress.
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
Known = dict[tuple[str, tuple[Cell, ...]], tuple[dict[Cell, float], list[float]]]
"""Measure and cells -> effect of each, and how wrong these cells were about each complete trial."""
FIRST_STRENGTH = 0.1
"""Mutation strength of a config that no mutation made, as a share of a gene's range."""
LARGEST_LOSS = 1e100
"""Losses beyond this count as this, so that their squares are finite."""
N_WINDOW = 128
"""Newest complete trials that partial ones are compared to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Trials with a value.

    Attributes:
        genes: (n, d), expressed.
        losses: (n, n_objectives) estimates over the whole ladder, smaller is better.
        variances: (n, n_objectives) of the estimates; 0 where unknown.
        progress: (n,) share of the ladder seen, above 0; 1 is complete.
        strengths: (n,) mutation strength that made each.
        ids: (n,) trial ids.
    """

    genes: Array
    losses: Array
    variances: Array
    progress: Array
    strengths: Array
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
        self._excesses, self._untrainable_excesses = _Rows(1), _Rows(1)
        self._numbers = _Rows(2 * len(self.objectives) + 2)
        self._ids: list[str] = []
        self._partial: dict[int, Trial] = {}
        self._complete: deque[Trial] = deque(maxlen=N_WINDOW)
        self._running: dict[int, tuple[Array, Trial]] = {}
        self._known: set[bytes] = set()

    @property
    def n_finished(self) -> int:
        """Number of finished trials with a value."""
        return len(self._ids)

    @property
    def n_untrainable(self) -> int:
        """Number of configs that could not be trained."""
        return self._untrainable.n

    def tell(self, trial: Trial) -> None:
        """Hear a trial at any change of it."""
        genes = self._expressed(trial)
        self._known.add(key(genes))
        if not trial.state.is_finished:
            self._running[trial.number] = genes, trial
            return
        self._running.pop(trial.number, None)
        excess = np.array([np.nan if trial.excess is None else trial.excess])
        if trial.state in UNTRAINABLE:
            self._untrainable.append(genes)
            self._untrainable_excesses.append(excess)
        elif trial.state.has_value and None not in self._losses(trial):
            self._take(genes, trial)
            self._excesses.append(excess)

    def is_known(self, genes: Array) -> bool:
        """Say whether a config was proposed before."""
        return key(genes) in self._known

    def running(self) -> Array:
        """Return the (m, d) expressed genes of running trials."""
        return np.array([genes for genes, _ in self._running.values()]).reshape(-1, self.genome.n_genes)

    def untrainable(self, n_first: int | None = None) -> Array:
        """Return the (m, d) expressed genes of configs that could not be trained, oldest first."""
        return self._untrainable.view[:n_first]

    def excesses(self, n_results: int | None, n_untrainable: int | None) -> tuple[Array, Array]:
        """Return `Trial.excess` of the rows of `results` and `untrainable`, NaN where unknown, and of running ones."""
        known = self._excesses.view[:n_results, 0]
        n_live = len(self.results(n_results)) - len(known)
        return np.append(known, np.full(n_live, np.nan)), self._untrainable_excesses.view[:n_untrainable, 0]

    def results(self, n_first: int | None = None) -> Results:
        """Return the first finished trials; with None all of them, and running ones that have reported at the end."""
        genes, numbers, ids = self._genes.view[:n_first], self._numbers.view[:n_first], self._ids[:n_first]
        if n_first is None:
            live = [(g, t) for g, t in self._running.values() if t.observations and None not in self._losses(t)]
            genes = np.vstack([genes, *(g[None] for g, _ in live)])
            known: Known = {}
            numbers = np.vstack([numbers, *(self._row(t, known)[None] for _, t in live)])
            ids = [*ids, *(t.trial_id for _, t in live)]
        k = len(self.objectives)
        return Results(
            genes=genes,
            losses=numbers[:, :k],
            variances=numbers[:, k : 2 * k],
            progress=numbers[:, -2],
            strengths=numbers[:, -1],
            ids=ids,
        )

    def _take(self, genes: Array, trial: Trial) -> None:
        if trial.state is TrialState.COMPLETE:
            self._complete.append(trial)
        else:
            self._partial[len(self._ids)] = trial
        self._genes.append(genes)
        self._numbers.append(self._row(trial))
        self._ids.append(trial.trial_id)
        if self.n_finished == last_mark(self.n_finished, self._first_mark):
            known: Known = {}
            for row, stopped in self._partial.items():
                self._numbers.view[row] = self._row(stopped, known)

    def _row(self, trial: Trial, known: Known | None = None) -> Array:
        """Return losses, variances, progress and strength of a trial; `known` keeps effects for the next of them."""
        pairs = [self._estimate(trial, objective, {} if known is None else known) for objective in self.objectives]
        strength = float(trial.note.get("strength", FIRST_STRENGTH))
        return np.array([*(mean for mean, _ in pairs), *(var for _, var in pairs), self._progress(trial), strength])

    def _estimate(self, trial: Trial, objective: Objective, known: Known) -> tuple[float, float]:
        """Return the loss over the whole ladder and its variance."""
        loss = objective.loss(trial)
        assert loss is not None
        loss = _bounded(loss)
        own = _cells(trial, objective)
        if trial.state is TrialState.COMPLETE and len(own) < 2:
            return loss, 0.0
        at = objective.metric, tuple(own)
        if at not in known:
            known[at] = self._effects(own, objective)
        effects, errors = known[at]
        if trial.state is TrialState.COMPLETE:
            return loss, _spread(list(own.values()), effects)
        if not effects:
            return loss, 0.0
        mean = float(np.mean([own[cell] - effect for cell, effect in effects.items()]))
        return mean, _predictive_variance(errors)

    def _effects(self, own: Mapping[Cell, float], objective: Objective) -> tuple[dict[Cell, float], list[float]]:
        """Return the effect of each of these cells on complete trials, and how wrong these cells were about each."""
        peers = [(objective.loss(t), _cells(t, objective, own)) for t in self._complete]
        known = [(loss, cells) for loss, cells in peers if loss is not None and len(cells) == len(own)]
        if not known:
            return {}, []
        rest = np.array([[cells[cell] - _bounded(loss) for cell in own] for loss, cells in known])
        effects = rest.mean(axis=0)
        errors = (rest - effects).mean(axis=1)
        return dict(zip(own, map(float, effects), strict=True)), [float(e) for e in errors]

    def _progress(self, trial: Trial) -> float:
        if trial.state is TrialState.COMPLETE:
            return 1.0
        longest = max((len(t.observations) for t in self._complete), default=2 * len(trial.observations))
        return min(len(trial.observations) / longest, 0.99)

    def _losses(self, trial: Trial) -> list[float | None]:
        return [objective.loss(trial) for objective in self.objectives]

    def _expressed(self, trial: Trial) -> Array:
        genes = np.nan_to_num(self.genome.encode(trial.config), nan=0.5)
        return np.asarray(self.genome.express(genes[None])[0])


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


def _cells(trial: Trial, objective: Objective, wanted: Mapping[Cell, float] | None = None) -> dict[Cell, float]:
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
