"""Optuna's samplers behind our contract: TPE, Gaussian process, NSGA-II and NSGA-III; and Optuna's storages, to read.

A fresh sampler answers every `ask`, seeded with its argument, from a study that holds exactly what was told; whatever
it writes goes to a draft that is dropped. What a sampler needs back (the generation of NSGA-II) travels in the note of
the trial. So live and replayed studies are the same, and `ask` changes nothing.

Trials are told as what they are:

========================= =============================================================================
complete                  COMPLETE with its values
running                   RUNNING with its values by rung: a pending point
stopped by a rule         PRUNED with its values by rung, never COMPLETE
failed, lost              FAIL: says nothing about the config
infeasible, out of        a violated constraint, by as much as a constraint of the search is broken, else by 1. TPE
memory, diverged          reads it off PRUNED trials without a value; the other samplers read constraints off COMPLETE
                          trials only: infeasible ones with a value are told so, those without as FAIL
========================= =============================================================================
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from search.objective import Objective
from search.optimizers import UNTRAINABLE, Proposal
from search.parameters import Choice, Float, Int, Kind, Value
from search.seeding import seed_for
from search.space import Space
from search.trial import Config, Trial, TrialState

N_ATTEMPTS = 8
"""A config that was proposed before is asked for anew this often, then drawn at random as often, then accepted."""
_EPOCH = datetime(2000, 1, 1)
"""Optuna wants times, and without a zone; these only keep an order."""


class Method(NamedTuple):
    """One of Optuna's samplers.

    Attributes:
        origin: Name of what it proposes.
        make: Seed -> fresh sampler.
        kept: Beginning of the attributes that it wants back.
        reads_constraints: Whether it learns from the constraint of a trial that has no value.
    """

    origin: str
    make: Callable[[int], BaseSampler]
    kept: str = "-"
    reads_constraints: bool = False


class OptunaOptimizer:
    """Any of Optuna's samplers over our space: parents are sampled first, children only where they are active.

    Args:
        space: What may vary.
        objectives: At least one.
        method: Which sampler.
    """

    def __init__(self, space: Space, objectives: Sequence[Objective], method: Method) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self._method = method
        self._distributions = {
            n: distribution(space.parameters[n]) for n in space.free if space.parameters[n].size != 1
        }
        self._table = _Table(len(self.objectives))
        self._n_told = 0
        self._known: set[str] = set()
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def ask(self, number: int, seed: int) -> Proposal:
        for attempt in range(N_ATTEMPTS):
            config, note = self._sample(number, seed_for(seed, "sampler", attempt))
            if _key(config) not in self._known:
                return Proposal(config=config, origin=self._method.origin, note=note)
        rng = np.random.default_rng(seed)
        for drawn in (self.space.sample(rng) for _ in range(N_ATTEMPTS)):
            if _key(drawn) not in self._known:
                return Proposal(config=drawn, origin="random", note=note)
        return Proposal(config=config, origin=self._method.origin, note=note)

    def tell(self, trial: Trial) -> None:
        self._n_told += 1
        self._known.add(_key(trial.config))
        active = {n: d for n, d in self._distributions.items() if n in trial.config}
        values, state = self._values(trial), self._state(trial)
        frozen = FrozenTrial(
            number=trial.number,
            trial_id=trial.number,
            state=state,
            value=None,
            values=values if state is OptunaState.COMPLETE else None,
            datetime_start=_EPOCH,
            datetime_complete=_EPOCH + timedelta(seconds=self._n_told) if trial.state.is_finished else None,
            params={n: to_optuna(self.space.parameters[n], trial.config[n]) for n in active},
            distributions=active,
            user_attrs={},
            system_attrs=dict(trial.note.get("trial", {})),
            intermediate_values=self._by_rung(trial),
        )
        if trial.excess is not None:
            frozen.set_constraint("limits", trial.excess)
        elif trial.state in UNTRAINABLE:
            frozen.set_constraint("limits", 1.0)
        self._table.told[trial.number] = frozen
        self._table.attributes |= trial.note.get("study", {})

    def _sample(self, number: int, seed: int) -> tuple[Config, dict[str, Any]]:
        with warnings.catch_warnings(), self._table.draft(number):
            warnings.simplefilter("ignore")
            study = optuna.create_study(
                storage=self._table,
                sampler=self._method.make(seed % 2**32),
                pruner=optuna.pruners.NopPruner(),
                directions=["minimize"] * len(self.objectives),
            )
            asked = study.ask()
            config: dict[str, Any] = {}
            for name, kind in self.space.parameters.items():
                if self.space.is_active(name, config):
                    config[name] = self._suggest(asked, name, kind)
            return config, self._table.note(self._method.kept)

    def _suggest(self, asked: optuna.Trial, name: str, kind: Kind) -> Any:
        wanted = self._distributions.get(name)
        if wanted is None:
            only = kind.value_at(0)
            return list(only) if isinstance(only, tuple) else only
        if isinstance(wanted, FloatDistribution):
            return asked.suggest_float(name, wanted.low, wanted.high, log=wanted.log)
        if isinstance(wanted, IntDistribution):
            return from_optuna(kind, asked.suggest_int(name, wanted.low, wanted.high, log=wanted.log))
        assert isinstance(wanted, CategoricalDistribution)
        return from_optuna(kind, asked.suggest_categorical(name, wanted.choices))

    def _state(self, trial: Trial) -> OptunaState:
        if trial.state is TrialState.RUNNING:
            known = self._table.told.get(trial.number)
            is_resumed = known is not None and known.state is OptunaState.PRUNED
            return OptunaState.PRUNED if is_resumed else OptunaState.RUNNING
        if trial.state is TrialState.COMPLETE and self._values(trial) is not None:
            return OptunaState.COMPLETE
        if trial.state in (TrialState.STOPPED, TrialState.PAUSED):
            return OptunaState.PRUNED
        if trial.state in UNTRAINABLE and self._method.reads_constraints:
            return OptunaState.PRUNED
        if trial.state is TrialState.INFEASIBLE and trial.excesses and self._values(trial) is not None:
            return OptunaState.COMPLETE
        return OptunaState.FAIL

    def _values(self, trial: Trial) -> list[float] | None:
        losses = [objective.loss(trial) for objective in self.objectives]
        return None if None in losses else [loss for loss in losses if loss is not None]

    def _by_rung(self, trial: Trial) -> dict[int, float]:
        """Return the estimate as it was after each rung; Optuna ranks partial trials for a single objective only."""
        if trial.state in UNTRAINABLE or len(self.objectives) > 1:
            return {}
        seen = (replace(trial, observations=trial.observations[: k + 1]) for k in range(len(trial.observations)))
        found = {t.observations[-1].rung: self.objectives[0].loss(t) for t in seen}
        return {rung: loss for rung, loss in found.items() if loss is not None}


class _Table(BaseStorage):
    """A storage of one study: the trials that were told, and a draft that takes all writes and is dropped."""

    def __init__(self, n_objectives: int) -> None:
        self.told: dict[int, FrozenTrial] = {}
        self.attributes: dict[str, Any] = {}
        self._directions = [StudyDirection.MINIMIZE] * n_objectives
        self._draft: FrozenTrial | None = None
        self._written: dict[str, Any] = {}

    @contextmanager
    def draft(self, number: int) -> Iterator[None]:
        """Open a draft of the trial with this number."""
        self._draft = FrozenTrial(number, OptunaState.RUNNING, None, _EPOCH, None, {}, {}, {}, {}, {}, number)
        try:
            yield
        finally:
            self._draft, self._written = None, {}

    def note(self, kept: str) -> dict[str, Any]:
        """Return what was written to the draft under names that begin with `kept`."""
        assert self._draft is not None
        written = {"trial": self._draft.system_attrs, "study": self._written}
        chosen = {of: {k: v for k, v in found.items() if k.startswith(kept)} for of, found in written.items()}
        return {of: found for of, found in chosen.items() if found}

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return 0

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:
        return "search"

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return {**self.attributes, **self._written}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._written[key] = value

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._own().number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._own().params[param_name] = distribution.to_external_repr(param_value_internal)
        self._own().distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._own().system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._own() if self._draft is not None and trial_id == self._draft.number else self.told[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        found = [t for t in self.told.values() if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _own(self) -> FrozenTrial:
        assert self._draft is not None
        return self._draft

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("a sampler proposes here and changes nothing")

    delete_study = set_study_user_attr = get_all_studies = _refuse
    set_trial_state_values = set_trial_intermediate_value = set_trial_user_attr = _refuse


def distribution(kind: Kind) -> BaseDistribution:
    """Return Optuna's word for a kind: ranks for what is ordered, positions for choices, values for a continuum."""
    if isinstance(kind, Float) and kind.size is None:
        return FloatDistribution(kind.low, kind.high, log=kind.log)
    if isinstance(kind, Int) and kind.log:
        return IntDistribution(kind.low, kind.high, log=True)
    assert kind.size is not None
    if isinstance(kind, Choice):
        return CategoricalDistribution(tuple(range(kind.size)))
    return IntDistribution(0, kind.size - 1)


def to_optuna(kind: Kind, value: Any) -> Any:
    """Return an allowed value as its distribution has it."""
    is_itself = kind.size is None or (isinstance(kind, Int) and kind.log)
    return value if is_itself else kind.rank(value)


def from_optuna(kind: Kind, found: Any) -> Value:
    """Return the allowed value that a distribution's value stands for; inverse of `to_optuna`."""
    return found if isinstance(kind, Int) and kind.log else kind.value_at(found)


def tpe(
    space: Space,
    *,
    objectives: Sequence[Objective],
    population: int,
    seed: int,
    n_startup: int = 10,
    n_candidates: int = 24,
) -> OptunaOptimizer:
    """Make a tree-structured Parzen estimator: multivariate, running trials count as bad ones (Watanabe 2023).

    In a space with conditions parameters that occur together are sampled together (`group`).

    Args:
        space: What may vary.
        objectives: One or more.
        population: Not used.
        seed: Not used.
        n_startup: Random trials at first.
        n_candidates: Draws from the good density; the one with the best ratio is proposed.
    """
    is_conditional = any(kind.conditions for kind in space.parameters.values())

    def make(seed: int) -> BaseSampler:
        return TPESampler(
            seed=seed,
            n_startup_trials=n_startup,
            n_ei_candidates=n_candidates,
            multivariate=True,
            group=is_conditional,
            constant_liar=True,
        )

    return OptunaOptimizer(space, objectives, Method("tpe", make, reads_constraints=True))


def gaussian_process(
    space: Space, *, objectives: Sequence[Objective], population: int, seed: int, n_startup: int = 10
) -> OptunaOptimizer:
    """Make a Gaussian process with expected improvement over the parameters that all trials share.

    Args:
        space: What may vary.
        objectives: One or more.
        population: Not used.
        seed: Not used.
        n_startup: Random trials at first.
    """

    def make(seed: int) -> BaseSampler:
        return GPSampler(seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)

    return OptunaOptimizer(space, objectives, Method("gp", make))


def nsga2(space: Space, *, objectives: Sequence[Objective], population: int, seed: int) -> OptunaOptimizer:
    """Make an NSGA-II (Deb et al. 2002) over the parameters that all trials share.

    Args:
        space: What may vary.
        objectives: One or more.
        population: Complete trials of a generation, at least 2.
        seed: Not used.
    """
    return _genetic("nsga2", NSGAIISampler, space, objectives, population)


def nsga3(space: Space, *, objectives: Sequence[Objective], population: int, seed: int) -> OptunaOptimizer:
    """Make an NSGA-III (Deb, Jain 2014), for three objectives and more; all else as in `nsga2`."""
    return _genetic("nsga3", NSGAIIISampler, space, objectives, population)


def _genetic(
    origin: str,
    sampler: type[NSGAIISampler | NSGAIIISampler],
    space: Space,
    objectives: Sequence[Objective],
    population: int,
) -> OptunaOptimizer:
    """Make a genetic sampler; what it wants back is the generation of a trial and who its parents may be."""

    def make(seed: int) -> BaseSampler:
        return sampler(seed=seed, population_size=population)

    return OptunaOptimizer(space, objectives, Method(origin, make, kept=f"{sampler.__name__}:"))


class StoredTrial(NamedTuple):
    """A trial of a plain Optuna study: its parameters as they were, and its first value; None where it has none."""

    parameters: dict[str, Any]
    value: float | None
    is_complete: bool


def stored_trials(url: str, name: str) -> tuple[list[StoredTrial], bool]:
    """Return the finished trials of a study in one of Optuna's storages, and whether a larger first value is better.

    Args:
        url: Of the storage, such as `sqlite:///study.db`.
        name: Of the study.

    Raises:
        ValueError: The storage cannot be read, or has no such study; one line.
    """
    try:
        study = optuna.load_study(study_name=name, storage=url)
        found = study.get_trials(deepcopy=False)
    except Exception as error:  # whatever a storage's driver raises
        known = " ".join(str(error).split())[:160]
        raise ValueError(f"expected a study {name} in {url.split('@')[-1]}, found none: {known}") from error
    trials = [
        StoredTrial(
            parameters=dict(trial.params),
            value=trial.values[0] if trial.values else None,
            is_complete=trial.state is OptunaState.COMPLETE,
        )
        for trial in found
        if trial.state.is_finished()
    ]
    return trials, study.directions[0] is StudyDirection.MAXIMIZE


def _key(config: Config) -> str:
    return json.dumps(dict(config), sort_keys=True)
