"""Our evolutionary-Bayesian search as a sampler of plain Optuna: `optuna.create_study(sampler=EvolutionarySampler())`.

Optuna's spaces are found out while they are used, so the search is over the parameters that all trials share, as in
Optuna's own Gaussian process; what only some trials have is drawn at random. A space file, which knows its conditions,
is served better by the optimizer itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search.objective import Objective
from search.optimizers.evolutionary_bayesian import EvolutionaryBayesian, Settings
from search.parameters import LARGEST_INT, Kind
from search.space import Choice, Float, Int, Space
from search.trial import Observation, Trial, TrialState

LARGEST_LOSS = 1e100
"""Stands for infinity, which Optuna allows as a value."""
STATES = {
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.STOPPED,
    OptunaState.FAIL: TrialState.FAILED,
    OptunaState.RUNNING: TrialState.RUNNING,
}


class EvolutionarySampler(BaseSampler):
    """Breed candidates from the best trials and let a Gaussian process choose.

    Args:
        seed: Of everything random; None draws one.
        settings: Of the search; None takes the defaults.
    """

    def __init__(self, seed: int | None = None, settings: Settings | None = None) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed)
        self._settings = settings or Settings()
        self._shared = IntersectionSearchSpace(include_pruned=True)

    def reseed_rng(self) -> None:
        self._rng = np.random.default_rng()
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: d for name, d in self._shared.calculate(study).items() if not d.single() and is_searched(d)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        objectives = [
            Objective(f"v{k}", "max" if direction is StudyDirection.MAXIMIZE else "min")
            for k, direction in enumerate(study.directions)
        ]
        space = Space({name: kind_of(d) for name, d in search_space.items()})
        search = EvolutionaryBayesian(space, objectives, seed=0, settings=self._settings)
        for told in study.get_trials(deepcopy=False):
            heard = heard_of(told, search_space, len(objectives))
            if heard is not None:
                search.tell(heard)
        config = search.ask(trial.number, int(self._rng.integers(2**63))).config
        return {name: _external(d, config[name]) for name, d in search_space.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def is_searched(distribution: BaseDistribution) -> bool:
    """Say whether our spaces have a kind for a distribution: whole numbers beyond 2^40 are drawn at random."""
    ends = (distribution.low, distribution.high) if isinstance(distribution, IntDistribution) else (0, 0)
    return max(abs(end) for end in ends) <= LARGEST_INT


def kind_of(distribution: BaseDistribution) -> Kind:
    """Return our kind of a distribution; a float with steps is the number of its step, a category its position."""
    if isinstance(distribution, CategoricalDistribution):
        return Choice(choices=tuple(range(len(distribution.choices))))
    if isinstance(distribution, IntDistribution):
        low, high, log = distribution.low, distribution.high, distribution.log
        return Int(low=low, high=high, log=True) if log else Int(low=low, high=high, step=distribution.step)
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is not None:
        return Int(low=0, high=round((distribution.high - distribution.low) / distribution.step))
    return Float(low=distribution.low, high=distribution.high, log=distribution.log)


def heard_of(told: FrozenTrial, search_space: Mapping[str, BaseDistribution], n_objectives: int) -> Trial | None:
    """Return an Optuna trial as ours; None where it waits, or has other parameters or values out of range."""
    if told.state not in STATES or any(n not in told.params for n in search_space):
        return None
    if not all(d._contains(d.to_internal_repr(told.params[n])) for n, d in search_space.items()):
        return None
    state = TrialState.INFEASIBLE if _is_violated(told) else STATES[told.state]
    values = _values(told, n_objectives)
    observations = (_observation(values),) if values and state.has_value else ()
    return Trial(
        number=told.number,
        trial_id=f"t{told.number:04d}",
        config={name: _internal(d, told.params[name]) for name, d in search_space.items()},
        origin="optuna",
        generation=0,
        parents=(),
        seed=0,
        state=state,
        observations=observations,
    )


def _values(told: FrozenTrial, n_objectives: int) -> list[float]:
    if told.state is OptunaState.COMPLETE:
        return list(told.values)
    if told.state is OptunaState.PRUNED and n_objectives == 1 and told.intermediate_values:
        return [told.intermediate_values[max(told.intermediate_values)]]
    return []


def _observation(values: list[float]) -> Observation:
    bounded = {f"v{k}": float(np.clip(v, -LARGEST_LOSS, LARGEST_LOSS)) for k, v in enumerate(values)}
    return Observation(rung=0, fold=0, share=1.0, metrics=bounded, n_scored=1, seconds=0.0)


def _is_violated(told: FrozenTrial) -> bool:
    return told.state.is_finished() and any(value > 0 for value in (told.constraints or {}).values())


def _internal(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return int(distribution.to_internal_repr(value))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return round((value - distribution.low) / distribution.step)
    return value


def _external(distribution: BaseDistribution, found: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[found]
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return float(min(distribution.low + found * distribution.step, distribution.high))
    return found
