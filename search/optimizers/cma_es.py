"""CMA-ES with margin (Hamano et al. 2022, GECCO) over the ordered parameters that always exist.

The library is `cmaes`, which Optuna's sampler wraps too; used directly, because that sampler keeps its state as a
pickle in its trials, and knows only complete trials. CMA-ES goes by ranks alone, so here a stopped trial takes part for
what it is: behind every complete one, ordered by how far it came and how well it did.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
from cmaes import CMAwM

from search.objective import Objective
from search.optimizers import UNTRAINABLE, Proposal
from search.parameters import Choice
from search.space import Space
from search.trial import Trial, TrialState

Rank = tuple[int, int, float]


class CmaEs:
    """Adapt a normal distribution over the unit cube of numbers and ordered choices; draw everything else at random.

    Args:
        space: What may vary.
        objective: What is minimised.
        population: Trials of a generation; below 4 the library's own number for the dimension.
        sigma: First standard deviation, in units of a parameter's range.
    """

    def __init__(self, space: Space, objective: Objective, *, population: int, sigma: float = 1 / 6) -> None:
        self.space = space
        self.objective = objective
        kinds = space.parameters
        self._names = tuple(
            n for n in space.free if kinds[n].size != 1 and not kinds[n].conditions and not isinstance(kinds[n], Choice)
        )
        self._cma = self._begin(population, sigma) if self._names else None
        self._batch: dict[int, tuple[Rank, np.ndarray]] = {}

    def ask(self, number: int, seed: int) -> Proposal:
        rng = np.random.default_rng(seed)
        places = dict(zip(self.space.free, rng.random(len(self.space.free)), strict=True))
        note: dict[str, object] = {}
        if self._cma is not None:
            cma = copy.deepcopy(self._cma)
            cma.reseed_rng(int(rng.integers(2**32)))
            drawn, raw = cma.ask()
            places |= {n: self._to_unit(n, place) for n, place in zip(self._names, drawn, strict=True)}
            note = {"place": raw.tolist(), "generation": cma.generation}
        return Proposal(config=self.space.decode(np.array(list(places.values()))), origin="cma_es", note=note)

    def tell(self, trial: Trial) -> None:
        if self._cma is None or trial.note.get("generation") != self._cma.generation:
            return
        rank = self._rank(trial)
        if rank is None:
            return
        self._batch[trial.number] = rank, np.array(trial.note["place"])
        if len(self._batch) == self._cma.population_size:
            ordered = sorted(self._batch.values(), key=lambda entry: entry[0])
            self._cma.tell([(place, float(position)) for position, (_, place) in enumerate(ordered)])
            self._batch = {}

    def _begin(self, population: int, sigma: float) -> CMAwM:
        n = len(self._names)
        sizes: Mapping[str, int | None] = {name: self.space.parameters[name].size for name in self._names}
        return CMAwM(
            mean=np.full(n, 0.5),
            sigma=sigma,
            bounds=np.tile([0.0, 1.0], (n, 1)),
            steps=np.array([0.0 if size is None else 1 / (size - 1) for size in sizes.values()]),
            population_size=population if population >= 4 else None,
        )

    def _to_unit(self, name: str, place: float) -> float:
        """Turn a place on the grid 0, 1/(size-1), ..., 1 into the centre of its cell of the unit interval."""
        size = self.space.parameters[name].size
        return place if size is None else (round(place * (size - 1)) + 0.5) / size

    def _rank(self, trial: Trial) -> Rank | None:
        if trial.state in UNTRAINABLE:
            return 2, 0, 0.0
        loss = self.objective.loss(trial)
        if not trial.state.has_value:
            return None
        reached = len(trial.observations)
        return int(trial.state is not TrialState.COMPLETE), -reached, math.inf if loss is None else loss


def cma_es(space: Space, *, objectives: Sequence[Objective], population: int, seed: int, sigma: float = 1 / 6) -> CmaEs:
    """Make a CMA-ES.

    Raises:
        ValueError: There is more than one objective, or sigma is not above 0.
    """
    if len(objectives) != 1:
        raise ValueError(f"cma_es: expected one objective, found {len(objectives)}; use nsga2 or tpe")
    if not sigma > 0:
        raise ValueError(f"cma_es: expected sigma above 0, found {sigma}")
    return CmaEs(space, objectives[0], population=population, sigma=sigma)
