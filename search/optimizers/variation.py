"""How evolution makes new configs out of old ones: tournament, crossover, mutation. Rows of genes in, rows out.

Everything draws from the generator that it is given, for all rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.optimizers.genome import Array, Genome

Indices = NDArray[np.intp]

NEAR = 0.005
"""Strength, as a share of the range, below which a step stops at the bound; by benchmarks/RESULTS.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brood:
    """Candidates before they are looked at.

    Attributes:
        genes: (m, d), expressed.
        parents: (m, 2) rows of the parents among the elites, -1 where there is none.
        strengths: (m,) mutation strength that made each, as a share of a gene's range.
    """

    genes: Array
    parents: Indices
    strengths: Array

    def taken(self, rows: Indices) -> Brood:
        return Brood(genes=self.genes[rows], parents=self.parents[rows], strengths=self.strengths[rows])


def joined(*broods: Brood) -> Brood:
    """Return all candidates in one brood."""
    return Brood(
        genes=np.concatenate([b.genes for b in broods]),
        parents=np.concatenate([b.parents for b in broods]),
        strengths=np.concatenate([b.strengths for b in broods]),
    )


def tournament(n_ranked: int, n_wanted: int, size: int, rng: np.random.Generator) -> Indices:
    """Return winners of tournaments among rows sorted best first: of `size` drawn rows the lowest wins (SEARCH-5)."""
    return np.asarray(rng.integers(n_ranked, size=(n_wanted, size)).min(axis=1))


def crossover(first: Array, second: Array, rng: np.random.Generator) -> Array:
    """Return children that take each gene from either parent; what one lacks comes from the other (SEARCH-5).

    Args:
        first: (m, d) expressed genes.
        second: (m, d) expressed genes.
        rng: Source of randomness.

    Returns:
        (m, d); NaN where neither parent has the gene.
    """
    child = np.where(rng.random(first.shape) < 0.5, first, second)
    child = np.where(np.isnan(child), first, child)
    return np.where(np.isnan(child), second, child)


def mutate(genes: Array, strengths: Array, genome: Genome, rng: np.random.Generator, *, rate: float) -> Array:
    """Return mutated rows: at least one gene of each changes; genes that are NaN are drawn anew.

    An ordered gene moves by a normal step of the row's strength, and by at least one of its steps if it has any; what
    would leave the range is reflected where strength is `NEAR` or more, and stops at the bound where it is less: often
    a bound itself is best (benchmarks/RESULTS.md). A choice is drawn anew (SEARCH-5).

    Args:
        genes: (m, d) genes.
        strengths: (m,) standard deviation of a step as a share of the range.
        genome: Of the space.
        rng: Source of randomness.
        rate: Chance of a gene to change.
    """
    m, d = genes.shape
    changes = rng.random((m, d)) < rate
    changes[np.arange(m), rng.integers(d, size=m)] = True
    normal, uniform = rng.standard_normal((m, d)), rng.random((m, d))
    step = normal * strengths[:, None]
    step = np.where(np.abs(step) < genome.steps, np.sign(normal) * genome.steps, step)
    moved = genes + step
    is_far = strengths[:, None] >= NEAR
    moved = np.clip(np.where(is_far, 1 - np.abs(1 - np.abs(moved)), moved), 0.0, 1.0)
    mutated = np.where(changes, np.where(genome.is_choice, uniform, moved), genes)
    return np.where(np.isnan(genes), uniform, mutated)


def adapted(strengths: Array, rng: np.random.Generator, *, rate: float, least: float, most: float) -> Array:
    """Return strengths multiplied by log-normal noise: what breeds well carries its strength on.

    Source: Beyer, Schwefel (2002), "Evolution strategies", section 4.2 (log-normal self-adaptation).
    """
    return np.clip(strengths * np.exp(rate * rng.standard_normal(len(strengths))), least, most)
