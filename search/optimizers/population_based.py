"""Population-based training over folds: children begin with the weights of a good parent and vary how it is trained.

Source: Jaderberg et al. (2017), "Population Based Training of Neural Networks", arXiv 1711.09846, sections 3 and 4.1:
truncation selection, perturbation by 0.8 or 1.25, some genes drawn anew. Here a member is a trial over all folds, and
its child trains on from the parent's weights, fold by fold (decision 5); there is no barrier, so no worker waits.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.objective import Objective
from search.optimizers import Proposal
from search.parameters import Choice, Float, Kind
from search.space import Space
from search.trial import Config, Trial, TrialState

FACTOR = 1.25
"""A gene grows or shrinks by this."""
N_ATTEMPTS = 16
"""Draws of a child before a newcomer takes its place."""


class PopulationBased:
    """Random members first, then children of the best quarter of the newest.

    Args:
        space: What may vary.
        objective: By which parents are chosen.
        population: Members before there are children; twice as many of the newest ended ones may be parents.
        genes: Parameters that a child may change: those that neither shapes of weights nor inputs depend on.
        quantile: Share of the ended members that may be parents.
        resample: Chance of a gene to be drawn anew.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        *,
        population: int,
        genes: Sequence[str],
        quantile: float = 0.25,
        resample: float = 0.25,
    ) -> None:
        self.space = space
        self.objective = objective
        self.population = population
        self.genes = frozenset(genes)
        self.quantile = quantile
        self.resample = resample
        self._ended: deque[Trial] = deque(maxlen=2 * population)
        self._known: set[str] = set()

    def tell(self, trial: Trial) -> None:
        """Keep ended members with a value; trials of earlier searches have no weights here."""
        self._known.add(_key(trial.config))
        has_weights = trial.number >= 0 and bool(trial.by_fold())
        if trial.state.has_value and has_weights and self.objective.loss(trial) is not None:
            self._ended = deque((t for t in self._ended if t.number != trial.number), maxlen=self._ended.maxlen)
            self._ended.append(trial)

    def ask(self, number: int, seed: int) -> Proposal:
        rng = np.random.default_rng(seed)
        parents = self._parents()
        if number >= self.population and parents:
            parent = parents[int(rng.integers(len(parents)))]
            drawn = (self._explored(parent.config, rng) for _ in range(N_ATTEMPTS))
            child = self._first_new([config for config in drawn if config is not None])
            if child is not None:
                return Proposal(
                    config=child,
                    origin="child",
                    generation=parent.generation + 1,
                    parents=(parent.trial_id,),
                    inherit=parent.trial_id,
                )
        newcomer = self._first_new([self.space.sample(rng) for _ in range(N_ATTEMPTS)])
        assert newcomer is not None
        return Proposal(config=newcomer, origin="random", generation=1)

    def _first_new(self, configs: Sequence[Config]) -> Config | None:
        """Return the first config that was not proposed before, else the first; a parent's own goes on training."""
        return next((c for c in configs if _key(c) not in self._known), configs[0] if configs else None)

    def _parents(self) -> list[Trial]:
        """Return the best of the ended members; who saw every fold comes before who was stopped."""

        def place(trial: Trial) -> tuple[bool, int, float, int]:
            loss = self.objective.loss(trial)
            assert loss is not None
            return trial.state is not TrialState.COMPLETE, -trial.n_folds, loss, trial.number

        ranked = sorted(self._ended, key=place)
        return ranked[: max(1, int(self.quantile * len(ranked)))] if ranked else []

    def _explored(self, config: Config, rng: np.random.Generator) -> Config | None:
        """Return the parent's config with other genes; None where they would switch something else on or off."""
        kinds = self.space.parameters
        places = {}
        for name in self.space.free:
            fresh = float(rng.random())
            if name not in config:
                places[name] = fresh
            elif name in self.genes:
                places[name] = fresh if rng.random() < self.resample else _perturbed(kinds[name], config[name], rng)
            else:
                places[name] = kinds[name].to_unit(config[name])
        child = self.space.decode(np.array([places[name] for name in self.space.free]))
        kept = {name: value for name, value in config.items() if name not in self.genes}
        if kept.keys() != {name for name in child if name not in self.genes}:
            return None
        return {name: kept.get(name, value) for name, value in child.items()}


def _key(config: Config) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _perturbed(kind: Kind, value: Any, rng: np.random.Generator) -> float:
    """Return the place in the unit interval of a value that is a little larger or smaller; a choice stays."""
    up = bool(rng.random() < 0.5)
    if isinstance(kind, Choice):
        return kind.to_unit(value)
    if isinstance(kind, Float) and kind.size is None:
        return kind.to_unit(min(max(value * (FACTOR if up else 1 / FACTOR), kind.low), kind.high))
    assert kind.size is not None
    rank = kind.rank(value)
    step = max(1, round((FACTOR - 1) * rank))
    return kind.to_unit(kind.value_at(min(max(rank + (step if up else -step), 0), kind.size - 1)))


def population_based(
    space: Space,
    *,
    objectives: Sequence[Objective],
    population: int,
    seed: int,
    genes: Sequence[str] = (),
    quantile: float = 0.25,
    resample: float = 0.25,
) -> PopulationBased:
    """Make a population-based training.

    Args:
        space: What may vary.
        objectives: The first chooses parents.
        population: Members of a generation.
        seed: Not used.
        genes: Parameters that a child may change.
        quantile: Share of the ended members that may be parents, in (0, 1].
        resample: Chance of a gene to be drawn anew.

    Raises:
        ValueError: A share is out of its range.
    """
    if not 0 < quantile <= 1 or not 0 <= resample <= 1:
        raise ValueError(f"expected quantile in (0, 1] and resample in [0, 1], found {quantile} and {resample}")
    return PopulationBased(
        space, objectives[0], population=population, genes=genes, quantile=quantile, resample=resample
    )
