"""Quasi-random search: one scrambled Sobol sequence over the unit cube of the space (Owen 1998, J. Complexity 14)."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import qmc

from search.objective import Objective
from search.optimizers import Proposal
from search.space import Space
from search.trial import Trial

MOST_DIMENSIONS = 21201
"""SciPy's table of Sobol directions ends here."""


class QuasiRandomSearch:
    """Trial n gets point n of the sequence: every stretch of the search covers the space evenly.

    The scramble comes from the seed of the search, not from that of a proposal: all points are of one sequence.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        self._seed = seed

    def ask(self, number: int, seed: int) -> Proposal:
        n_free = len(self.space.free)
        if n_free == 0:
            return Proposal(config=self.space.complete({}), origin="qmc")
        sequence = qmc.Sobol(n_free, scramble=True, rng=self._seed)
        if number:
            sequence.fast_forward(number)
        return Proposal(config=self.space.decode(sequence.random(1)[0]), origin="qmc")

    def tell(self, trial: Trial) -> None:
        """Learn nothing."""


def quasi_random(space: Space, *, objectives: Sequence[Objective], population: int, seed: int) -> QuasiRandomSearch:
    """Make a quasi-random search.

    Raises:
        ValueError: The space has more free parameters than the sequence has dimensions.
    """
    if len(space.free) > MOST_DIMENSIONS:
        raise ValueError(f"expected at most {MOST_DIMENSIONS} free parameters, found {len(space.free)}")
    return QuasiRandomSearch(space, seed)
