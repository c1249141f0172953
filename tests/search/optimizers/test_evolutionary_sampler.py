"""Optuna's own tests of samplers, on ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from search.optimizers.evolutionary_bayesian import Settings
from search.optimizers.evolutionary_sampler import EvolutionarySampler

QUICK = Settings(n_startup=2, n_candidates=40, rounds=1)


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return partial(EvolutionarySampler, seed=1, settings=QUICK)


class TestRelative(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return partial(EvolutionarySampler, seed=1, settings=QUICK)


class TestMultiObjective(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return partial(EvolutionarySampler, seed=1, settings=QUICK)


def test_finds_the_minimum_in_plain_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=EvolutionarySampler(seed=0), direction="maximize")
    study.optimize(lambda t: -((t.suggest_float("x", -2, 2) - 1) ** 2) - abs(t.suggest_int("n", 1, 9) - 4), n_trials=30)
    assert study.best_value > -1e-3
