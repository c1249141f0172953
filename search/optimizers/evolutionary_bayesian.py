"""Evolutionary-Bayesian search (SEARCH-1): evolution proposes hundreds of candidates, a Gaussian process picks one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc, rankdata

from search.objective import Objective
from search.optimizers import UNTRAINABLE, Proposal
from search.optimizers.gaussian_process import (
    GaussianProcess, Kernel, Prior, fit_kernel, initial_kernel, log_expected_improvement,
)
from search.optimizers.genome import Array, Genome, key
from search.optimizers.variation import Brood, adapted, crossover, joined, mutate, tournament
from search.space import Space
from search.trial import Trial, TrialState
import os
O = lambda k, d: type(d)(os.environ.get(k, d))


class EvolutionaryBayesian:
    def __init__(self, space, objectives, *, seed, n_startup=10, n_candidates=300, n_elites=8, n_points=200):
        self.space, self.objectives = space, tuple(objectives)
        self.genome = Genome(space)
        self.n_startup, self.n_candidates, self.n_elites, self.n_points = n_startup, n_candidates, n_elites, n_points
        self._seed = seed
        self._genes, self._loss, self._ids, self._strength = [], [], [], []
        self._index = {}
        self._pending = {}
        self._known = set()
        self._kernel_at = (0, None)
        d = max(len(set(self.genome.groups.tolist())), 1)
        self.prior = Prior(log_length=O("LL", -0.5), length_spread=O("LS", 1.0), log_noise=math.log(O("LN", 1e-4)))

    def tell(self, trial):
        g = self.genome.express(np.nan_to_num(self.genome.encode(trial.config), nan=0.5)[None])[0]
        self._known.add(key(g))
        if not trial.state.is_finished:
            self._pending[trial.number] = g
            return
        self._pending.pop(trial.number, None)
        loss = self.objectives[0].loss(trial)
        if trial.state is TrialState.COMPLETE and loss is not None:
            self._genes.append(g); self._loss.append(loss); self._ids.append(trial.trial_id)
            self._strength.append(float(trial.note.get("strength", 0.1)))

    def ask(self, number, seed):
        rng = np.random.default_rng(seed)
        if self.genome.n_genes == 0:
            return Proposal(config=self.genome.decode(np.zeros(0)), origin="random")
        if len(self._loss) < self.n_startup:
            return Proposal(config=self._first(number), origin="random")
        n = len(self._loss)
        x, y = np.array(self._genes), np.array(self._loss)
        rows = np.arange(n)
        if n > self.n_points:
            rows = self._rows(x, y)
            x, y = x[rows], y[rows]
        kernel = self._kernel()
        f = self.genome.features(x)
        w = warp(y)
        pend = np.array(list(self._pending.values())).reshape(-1, self.genome.n_genes)
        gp = GaussianProcess(f, w, np.zeros(len(w)), self.genome.groups, kernel)
        mean = gp.mean(f)
        best = mean.min()
        if len(pend):
            fp = self.genome.features(pend)
            f, w = np.vstack([f, fp]), np.concatenate([w, gp.mean(fp)])
            gp = GaussianProcess(f, w, np.zeros(len(w)), self.genome.groups, kernel)
        order = np.argsort(mean + 0*w[:len(mean)], kind="stable")[: self.n_elites]
        elites, strengths = x[order], np.array(self._strength)[rows][order]
        brood = self._brood(elites, strengths, rng)
        score = self._score(gp, brood, best)
        for r in range(O("ROUNDS", 4)):
            top = np.argsort(-score, kind="stable")[:10]
            parent = brood.taken(np.repeat(top, 12))
            st = np.exp(rng.uniform(math.log(0.3 ** (r + 2)), math.log(0.5 ** (r+1)), len(parent.genes)))
            new = self.genome.express(mutate(parent.genes, st, self.genome, rng, rate=O("RRATE", 0.25)))
            more = Brood(genes=new, parents=parent.parents, strengths=parent.strengths)
            s2 = self._score(gp, more, best)
            brood, score = joined(brood, more), np.concatenate([score, s2])
        for row in np.argsort(-score, kind="stable"):
            if key(brood.genes[row]) not in self._known:
                break
        parents = tuple(dict.fromkeys(self._ids[rows[order[p]]] for p in brood.parents[row] if p >= 0))
        return Proposal(config=self.genome.decode(brood.genes[row]), origin="surrogate", parents=parents, note={"strength": float(brood.strengths[row])})

    def _score(self, gp, brood, best):
        m, s = gp.predict(self.genome.features(brood.genes))
        return log_expected_improvement(m, s, best)

    def _brood(self, elites, strengths, rng):
        m, d = self.n_candidates, self.genome.n_genes
        k = m // 2
        a, b = (tournament(len(elites), k, 3, rng) for _ in "ab")
        s = adapted(np.exp((np.log(strengths[a]) + np.log(strengths[b])) / 2), rng, rate=0.5, least=0.005, most=0.5)
        kids = self.genome.express(mutate(crossover(elites[a], elites[b], rng), s, self.genome, rng, rate=0.25))
        children = Brood(genes=kids, parents=np.stack([a, b], 1), strengths=s)
        k = m // 4
        a = rng.integers(min(3, len(elites)), size=k)
        s = np.exp(rng.uniform(math.log(0.003), math.log(0.3), k))
        loc = self.genome.express(mutate(elites[a], s, self.genome, rng, rate=0.25))
        local = Brood(genes=loc, parents=np.stack([a, a], 1), strengths=s)
        k = m // 4
        fresh = Brood(genes=self.genome.express(rng.random((k, d))), parents=np.full((k, 2), -1), strengths=np.full(k, 0.1))
        return joined(children, local, fresh)

    def _kernel(self):
        n = len(self._loss)
        c = checkpoint(n)
        if self._kernel_at[0] != c:
            x, y = np.array(self._genes[:c]), np.array(self._loss[:c])
            if c > self.n_points:
                r = self._rows(x, y); x, y = x[r], y[r]
            start = initial_kernel(self.prior, int(self.genome.groups.max()) + 1)
            k = fit_kernel(self.genome.features(x), warp(y), np.zeros(len(y)), self.genome.groups, prior=self.prior, start=start, max_steps=O("STEPS", 30))
            self._kernel_at = (c, k)
        return self._kernel_at[1]

    def _rows(self, x, y):
        order = np.argsort(y, kind="stable")
        return np.sort(order[: self.n_points])

    def _first(self, number):
        s = qmc.Sobol(self.genome.n_genes, scramble=True, rng=self._seed)
        if number:
            s.fast_forward(number)
        return self.genome.decode(s.random(1)[0])


def checkpoint(n):
    """Largest of 10, 11, .. at or below n"""
    c = 8
    while True:
        nxt = c + max(O("REFIT", 4), c // 12)
        if nxt > n:
            return min(c, n)
        c = nxt


def warp(y):
    kind = O("WARP", "log")
    if kind == "rank":
        return ndtri((rankdata(y) - 0.375) / (len(y) + 0.25))
    if kind == "log":
        lo = y.min(); span = max(np.median(y) - lo, 1e-12)
        z = np.log((y - lo) / span + O("DELTA", 0.05))
    elif kind == "clip":
        med, lo = np.median(y), y.min()
        z = np.minimum(y, med + (med - lo))
    else:
        z = y
    return (z - z.mean()) / max(z.std(), 1e-12)


def evolutionary_bayesian(space, *, objectives, population, seed, **settings):
    return EvolutionaryBayesian(space, objectives, seed=seed, **settings)
