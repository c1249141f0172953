"""Random search, and the grid of a finite space: the two that learn nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.objective import Objective
from search.optimizers import Proposal
from search.space import Space
from search.trial import Trial


class RandomSearch:
    """Draw every config from the space, uniform in its unit cube."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def ask(self, number: int, seed: int) -> Proposal:
        return Proposal(config=self.space.sample(np.random.default_rng(seed)), origin="random")

    def tell(self, trial: Trial) -> None:
        """Learn nothing."""


class GridSearch:
    """Visit every config of a finite space once, in an order shuffled by the seed of the search, then again.

    Shuffled, so that a search that ends early has seen all parts of the space.

    Raises:
        ValueError: A parameter is continuous.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._points = tuple(space.points())
        self._order = np.random.default_rng(seed).permutation(len(self._points))

    def ask(self, number: int, seed: int) -> Proposal:
        return Proposal(config=self._points[self._order[number % len(self._points)]], origin="grid")

    def tell(self, trial: Trial) -> None:
        """Learn nothing."""


def random_search(space: Space, *, objectives: Sequence[Objective], population: int, seed: int) -> RandomSearch:
    """Make a random search."""
    return RandomSearch(space)


def grid_search(space: Space, *, objectives: Sequence[Objective], population: int, seed: int) -> GridSearch:
    """Make a grid search."""
    return GridSearch(space, seed)
