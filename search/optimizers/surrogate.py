"""What evolution asks before it spends a trial: how good a config will be, and whether it can be trained at all.

Both answers come from Gaussian processes over at most a few hundred results. Their kernels are fitted when the number
of results passes fixed marks, from exactly the results up to the mark: so a search that was resumed and heard the same
has the same kernels, whether or not it asked in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from search.optimizers.experience import Experience, Results, last_mark
from search.optimizers.gaussian_process import (
    GaussianProcess,
    Inputs,
    Kernel,
    Prior,
    fit_kernel,
    log_expected_improvement,
    squared_distances,
)
from search.optimizers.genome import Array, Genome
from search.optimizers.one_thread import one_thread
from search.optimizers.scalarisation import scalarised
from search.trial import Trial

FIT_STEPS = 30
"""Most steps of L-BFGS; the fit starts at the mode of the prior."""
LARGEST_ERROR = 1e3
"""Standard errors of a result beyond this, in units of the spread of all, count as this: it says nothing anyway."""
UNKNOWN_ERROR = 1.0
"""Standard error, in the same units, of a result whose error is unknown: as much as results differ."""
LEAST_TO_JUDGE = 20
"""With fewer results left-out predictions say too little to turn the surrogate off."""


class Target(NamedTuple):
    """What a process is fitted to: mean 0, variance 1, smaller is better; and the variances of these values."""

    values: Array
    variances: Array


def plain(losses: Array, variances: Array) -> Target:
    """Return losses without their far tail: beyond three quartile ranges above the middle half they count as there.

    Source of the fence: Tukey (1977), "Exploratory data analysis", chapter 2 (outer fence).
    """
    low, high = np.quantile(losses, [0.25, 0.75])
    fenced = np.minimum(losses, high + 3 * (high - low)) if high > low else losses
    return _standard(fenced, np.ones_like(losses), variances)


def log_gap(losses: Array, variances: Array) -> Target:
    """Return the softened logarithm of the distance to the best, in units of the median's: the near end counts more."""
    gap = losses - losses.min()
    unit = float(np.median(gap)) or 1.0
    known = variances[np.isfinite(variances)]
    soft = SOFTENING * unit + NOISE_SOFTENING * math.sqrt(float(np.median(known)) if len(known) else 0.0)
    return _standard(np.log((gap + soft) / unit), 1 / (gap + soft), variances)


SOFTENING = 0.4
"""Smallest distance to the best that `log_gap` tells from none, in units of the median's; by benchmarks/RESULTS.md."""
NOISE_SOFTENING = 2.0
"""How much of the usual standard error is added to it: what noise alone could have made is not told from none."""
VIEWS: Mapping[str, Callable[[Array, Array], Target]] = {"plain": plain, "log": log_gap}
"""Ways to see losses. Which is best differs from problem to problem, so proposals take turns at random."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A surrogate that is ready to judge candidates.

    Args:
        genome: Of the space.
        losses: Process of the losses, running trials at their predicted values.
        failures: Process of 1 (could not be trained) or 0, less their mean, and that mean; None where all could be.
        results: The newest row of each of n trials that it holds.
        means: (n,) loss that it expects of each, were it complete.
        best: Loss to be improved upon: the least mean of a complete trial. What a stopped trial only promised was not
            reached, and a config near it may still be worth a try.
        explains: Whether it predicted left-out results better than their mean does.
    """

    genome: Genome
    losses: GaussianProcess
    failures: tuple[GaussianProcess, float] | None
    results: Results
    means: Array
    best: float
    explains: bool

    @property
    def n_held(self) -> int:
        """Number of results that the process of losses holds, at least 1."""
        return len(self.losses.y)

    def score(self, genes: Array) -> Array:
        """Return the log of the expected improvement times the chance that the config can be trained, (m,)."""
        mean, deviation = self.losses.predict(inputs(self.genome, genes))
        return log_expected_improvement(mean, deviation, self.best) + self.log_trainable(genes)

    def log_trainable(self, genes: Array) -> Array:
        """Return the log of the chance that each config can be trained, (m,)."""
        if self.failures is None:
            return np.zeros(len(genes))
        process, base = self.failures
        mean, deviation = process.predict(inputs(self.genome, genes))
        return np.asarray(log_ndtr((0.5 - base - mean) / np.maximum(deviation, 0.05)))


class Forecast(NamedTuple):
    """What a trial will be worth once it is complete, in units of the spread of all; smaller is better.

    Attributes:
        mean: Of the prediction.
        deviation: Its standard deviation.
        complete: (m,) what the process makes of the ends of complete trials.
    """

    mean: float
    deviation: float
    complete: Array


class Surrogate:
    """Makes screens and forecasts; of what it was asked before it remembers fitted kernels only.

    Args:
        experience: What was told.
        n_points: Most results that a process holds.
        prior: What is believed of kernels.
    """

    def __init__(self, experience: Experience, *, n_points: int, prior: Prior) -> None:
        self.experience, self.genome = experience, experience.genome
        self._n_points, self._prior = n_points, prior
        self._kinds = _kinds(self.genome)
        self._kernels: dict[str, tuple[tuple[int, int], tuple[Kernel, bool]]] = {}

    def screen(self, view: str, weights: Array) -> Screen:
        """Return a surrogate of all that was told.

        Args:
            view: Key of `VIEWS`.
            weights: (n_objectives,) of the losses.
        """
        mark = self.experience.mark
        kernel, explains = self._remembered(view, (mark, 0), self._loss_kernel)
        x, results, target = self._seen(self.experience.results(), view, weights)
        process = self._process(x, target, kernel)
        newest = results.taken(np.flatnonzero(results.is_newest))
        means = process.mean(inputs(self.genome, newest.genes))
        running = self.experience.running()[-self._n_points :]
        if len(running):
            pending = inputs(self.genome, running)
            values = np.concatenate([target.values, process.mean(pending)])
            variances = np.concatenate([target.variances, np.zeros(len(running))])
            process = self._process(np.vstack([x, pending]), Target(values, variances), kernel)
        is_end = newest.progress == 1.0
        best = float(means[is_end].min() if is_end.any() else means.min())
        return Screen(self.genome, process, self._failures(mark), newest, means, best, explains)

    @one_thread
    def forecast(self, trial: Trial, *, view: str, weights: Array) -> Forecast:
        """Return what a running trial will be worth, by its newest observation, which was not told, and all others.

        Args:
            trial: With an observation that has a value of every objective.
            view: Key of `VIEWS`.
            weights: (n_objectives,) of the losses.
        """
        kernel, _ = self._remembered(view, (self.experience.mark, 0), self._loss_kernel)
        x, results, target = self._seen(self.experience.results(reporting=trial), view, weights)
        process = self._process(x, target, kernel)
        complete = process.mean(inputs(self.genome, results.genes[results.progress == 1.0]))
        mean, deviation = process.predict(inputs(self.genome, self.experience.expressed(trial)[None]))
        return Forecast(mean=float(mean[0]), deviation=float(deviation[0]), complete=complete)

    def _seen(self, results: Results, view: str, weights: Array) -> tuple[Array, Results, Target]:
        """Return inputs of a process, the results that it holds, and their losses as it sees them."""
        losses, variances = scalarised(results.losses, results.variances, weights)
        rows = telling_rows(self.genome, results, losses, self._n_points)
        held = results.taken(rows)
        return inputs(self.genome, held.genes, held.progress), held, VIEWS[view](losses[rows], variances[rows])

    def _remembered(
        self, name: str, marks: tuple[int, int], fit: Callable[[str, tuple[int, int]], tuple[Kernel, bool]]
    ) -> tuple[Kernel, bool]:
        if name not in self._kernels or self._kernels[name][0] != marks:
            self._kernels[name] = marks, fit(name, marks)
        return self._kernels[name][1]

    def _loss_kernel(self, view: str, marks: tuple[int, int]) -> tuple[Kernel, bool]:
        n_objectives = len(self.experience.objectives)
        equal = np.full(n_objectives, 1 / n_objectives)
        x, results, target = self._seen(self.experience.results(marks[0]), view, equal)
        kernel = self._fitted(x, target)
        if len(set(results.ids)) < LEAST_TO_JUDGE:
            return kernel, True
        left_out = self._process(x, target, kernel).left_out(np.unique(results.ids, return_inverse=True)[1])
        return kernel, float(np.square(left_out - target.values).mean()) < 1.0

    def _failures(self, mark: int) -> tuple[GaussianProcess, float] | None:
        n_bad = self.experience.n_untrainable
        if n_bad == 0:
            return None
        marks = mark, last_mark(n_bad, 1)
        kernel, _ = self._remembered("failures", marks, lambda _, at: (self._fitted(*self._labelled(*at)[:2]), True))
        x, target, base = self._labelled(None, None)
        return self._process(x, target, kernel), base

    def _labelled(self, n_results: int | None, n_bad: int | None) -> tuple[Array, Target, float]:
        """Return inputs and labels of configs that could and could not be trained, newest ones, and the mean label.

        Where a trial says by how much it keeps to or breaks its constraints its label lies between, 1/2 at the limit:
        then the process knows where the limit is, and that what lies beyond it breaks it too.
        """
        results = self.experience.results(n_results)
        good = results.genes[results.is_newest][-self._n_points // 2 :]
        bad = self.experience.untrainable(n_bad)[-self._n_points // 2 :]
        known_bad = self.experience.untrainable_excesses(n_bad)
        known_good = results.excesses[results.is_newest]
        excesses = np.concatenate([known_good[-self._n_points // 2 :], known_bad[-self._n_points // 2 :]])
        labels = np.concatenate([np.zeros(len(good)), np.ones(len(bad))])
        labels = np.where(np.isnan(excesses), labels, 0.5 + np.clip(excesses / _usual(excesses), -1, 1) / 2)
        base = float(labels.mean())
        x = inputs(self.genome, np.vstack([good, bad]))
        return x, Target(labels - base, np.full(len(labels), 1e-3)), base

    def _process(self, x: Array, target: Target, kernel: Kernel) -> GaussianProcess:
        return GaussianProcess(x, target.values, target.variances, self._kinds.groups, kernel)

    def _fitted(self, x: Array, target: Target) -> Kernel:
        return fit_kernel(x, *target, self._kinds, prior=self._prior, max_steps=FIT_STEPS)


def inputs(genome: Genome, genes: Array, progress: Array | None = None) -> Array:
    """Return (m, q + 1) inputs of a process: features of a config, and the share of the ladder seen (None: all).

    The share goes in as its logarithm: most of a learning curve happens at its beginning.
    """
    share = np.ones(len(genes)) if progress is None else progress
    return np.column_stack([genome.features(genes), 1 + np.log(share) / 4])


def _kinds(genome: Genome) -> Inputs:
    """Return what `inputs` are: an ordered gene is warped, where more than two values can tell how."""
    can_tell = np.array([kind.size is None or kind.size > 2 for kind in genome.kinds], bool) & ~genome.is_choice
    return Inputs(np.append(genome.groups, genome.n_genes).astype(np.intp), np.append(can_tell[genome.groups], False))


def telling_rows(genome: Genome, results: Results, losses: Array, n_most: int) -> NDArray[np.intp]:
    """Return the rows that tell most, in order: the best half, a quarter near the best one, a quarter newest."""
    n = len(losses)
    if n <= n_most:
        return np.arange(n)
    order = np.argsort(losses, kind="stable")
    chosen = np.zeros(n, bool)
    chosen[order[: n_most // 2]] = True
    features = genome.features(results.genes)
    near = squared_distances(features, features[order[:1]])[:, 0]
    for ranking in (np.argsort(near, kind="stable"), np.arange(n)[::-1]):
        chosen[ranking[~chosen[ranking]][: n_most // 4]] = True
    return np.flatnonzero(chosen)


def _usual(excesses: Array) -> float:
    """Return the unit of excesses: the median of their sizes; 1 where none is known."""
    known = np.abs(excesses[np.isfinite(excesses)])
    return float(np.median(known)) or 1.0 if len(known) else 1.0


def _standard(values: Array, slopes: Array, variances: Array) -> Target:
    """Return values at mean 0 and variance 1; `slopes` is what the view did to small differences.

    A variance of NaN is unknown; it must not read as none.
    """
    unit = float(values.std()) or 1.0
    errors = np.minimum(np.sqrt(variances) * slopes / unit, LARGEST_ERROR)
    return Target((values - values.mean()) / unit, np.where(np.isnan(errors), UNKNOWN_ERROR, errors) ** 2)
