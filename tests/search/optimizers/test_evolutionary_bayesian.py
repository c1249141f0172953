from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from search import optimizers
from search.objective import Objective
from search.optimizers import Optimizer
from search.optimizers.evolutionary_bayesian import EvolutionaryBayesian
from search.optimizers.experience import last_mark
from search.space import Choice, Float, Int, Space
from search.trial import Trial, TrialState
from tests.search.toy_search import OBJECTIVES, SMOOTH, observed, running

Loss = Callable[[Mapping[str, Any]], float]


def make(space: Space, objectives: Sequence[Objective] = OBJECTIVES, **settings: Any) -> EvolutionaryBayesian:
    found = optimizers.make("evolutionary_bayesian", space, objectives=objectives, population=16, seed=3, **settings)
    assert isinstance(found, EvolutionaryBayesian)
    return found


def searched(optimizer: Optimizer, loss: Loss, n_trials: int, seed: int = 0) -> list[Trial]:
    trials = []
    for number in range(n_trials):
        asked = optimizer.ask(number, 1000 * seed + number)
        trial = replace(running(number, asked.config), origin=asked.origin, parents=asked.parents, note=asked.note)
        optimizer.tell(trial)
        trial = replace(trial.observed(observed(0, loss(trial.config))), state=TrialState.COMPLETE)
        optimizer.tell(trial)
        trials.append(trial)
    return trials


def best(trials: Sequence[Trial]) -> float:
    return min(t.observations[0].metrics["val_loss"] for t in trials)


def rastrigin(config: Mapping[str, Any]) -> float:
    at = np.array([config["x"] - 0.3, config["y"] + 0.7])
    return float(10 * len(at) + (at**2 - 10 * np.cos(2 * np.pi * at)).sum())


@pytest.mark.requirement("SEARCH-1")
def test_beats_random_search_on_a_function_of_many_basins() -> None:
    wins = 0
    for seed in range(10):
        ours = best(searched(make(SMOOTH), rastrigin, 60, seed))
        random = optimizers.make("random", SMOOTH, objectives=OBJECTIVES, population=16, seed=seed)
        wins += ours < best(searched(random, rastrigin, 60, seed))
    assert wins >= 8


def test_finds_the_right_branch_of_a_conditional_space_and_the_best_point_of_it() -> None:
    space = Space(
        {
            "kind": Choice(choices=("a", "b", "c")),
            "rate": Float(low=1e-5, high=1.0, log=True, when={"kind": ("b", "c")}),
            "depth": Int(low=1, high=9, when={"kind": "c"}),
        }
    )

    def loss(config: Mapping[str, Any]) -> float:
        branch = {"a": 3.0, "b": 2.0, "c": 0.0}[config["kind"]]
        near = (math.log10(config["rate"]) + 3) ** 2 if "rate" in config else 0.0
        return branch + near + (config.get("depth", 6) - 6) ** 2 / 4

    last = searched(make(space), loss, 40)[-1]
    assert last.config["kind"] == "c"
    assert best(searched(make(space), loss, 40)) < 0.01


def test_parents_are_trials_that_came_before_and_strengths_are_inherited() -> None:
    trials = searched(make(SMOOTH), rastrigin, 30)
    before: set[str] = set()
    for trial in trials:
        assert set(trial.parents) <= before
        before.add(trial.trial_id)
    bred = [t for t in trials if t.parents]
    assert len(bred) > 10
    assert all(0 < t.note["strength"] <= 0.5 for t in bred)


def test_proposes_plain_children_where_losses_say_nothing_about_configs() -> None:
    noise = np.random.default_rng(0)
    origins = [t.origin for t in searched(make(SMOOTH), lambda config: float(noise.standard_normal()), 60)]
    assert origins[-30:].count("child") > 10
    assert [t.origin for t in searched(make(SMOOTH), rastrigin, 40)].count("child") < 5


@pytest.mark.parametrize("state", [TrialState.OUT_OF_MEMORY, TrialState.INFEASIBLE, TrialState.DIVERGED])
@pytest.mark.requirement("SEARCH-9")
def test_goes_to_the_edge_of_what_can_be_trained_and_not_far_beyond(state: TrialState) -> None:
    """The loss falls towards the left, and left of zero nothing can be trained."""

    def beyond(ending: TrialState) -> int:
        optimizer = make(SMOOTH)
        for number, x in enumerate(np.linspace(-2, 2, 40)):
            trial = running(number, {"x": float(x), "y": math.sin(number)})
            trial = trial if x < 0 else trial.observed(observed(0, x))
            optimizer.tell(replace(trial, state=ending if x < 0 else TrialState.COMPLETE))
        return sum(optimizer.ask(40, seed).config["x"] < -0.3 for seed in range(20))

    assert beyond(state) <= 2
    assert beyond(TrialState.FAILED) >= 18


@pytest.mark.requirement("SEARCH-15")
def test_what_was_asked_in_between_leaves_no_trace() -> None:
    """Also where stopped trials are valued anew when others complete."""
    rng, silent, talking = np.random.default_rng(0), make(SMOOTH), make(SMOOTH)
    for number in range(60):
        config = {"x": float(rng.uniform(-2, 2)), "y": float(rng.uniform(-2, 2))}
        losses = rastrigin(config) + rng.standard_normal(4)
        is_complete = number % 3 == 0
        trial = running(number, config, list(losses)[: 4 if is_complete else 1])
        talking.ask(number, 77)
        for optimizer in (silent, talking):
            optimizer.tell(running(number, config))
            optimizer.tell(replace(trial, state=TrialState.COMPLETE if is_complete else TrialState.STOPPED))
    assert silent.ask(60, 5) == talking.ask(60, 5)


def test_stopped_trials_teach() -> None:
    """Only the first of four folds is ever seen, but for a few trials; it is enough to find the minimum."""
    optimizer = make(SMOOTH)
    rng = np.random.default_rng(0)
    for number in range(40):
        x, y = rng.uniform(-2, 2, 2)
        losses = [(x - 1) ** 2 + (y + 1) ** 2 + effect for effect in (0.0, 3.0, -1.0, 2.0)]
        complete = number % 8 == 0
        trial = running(number, {"x": x, "y": y}, losses if complete else losses[:1])
        optimizer.tell(replace(trial, state=TrialState.COMPLETE if complete else TrialState.STOPPED))
    asked = [optimizer.ask(40, seed).config for seed in range(10)]
    assert np.median([np.hypot(c["x"] - 1, c["y"] + 1) for c in asked]) < 0.2


@pytest.mark.requirement("SEARCH-19")
def test_two_objectives_are_both_pursued() -> None:
    """Losses (x-1)^2 and (x+1)^2 with y at 0: the front is -1 <= x <= 1; most late proposals are near it, all along."""
    optimizer = make(SMOOTH, (Objective("val_loss"), Objective("crps")))
    late = []
    for number in range(60):
        config = optimizer.ask(number, number).config
        x, rest = config["x"], config["y"] ** 2
        trial = running(number, config).observed(observed(0, (x - 1) ** 2 + rest, crps=(x + 1) ** 2 + rest))
        optimizer.tell(replace(trial, state=TrialState.COMPLETE))
        late += [config] if number >= 30 else []
    near = [c["x"] for c in late if abs(c["y"]) < 0.25 and abs(c["x"]) < 1.1]
    assert len(near) > 20
    assert min(near) < -0.5
    assert max(near) > 0.5


def test_a_loss_without_any_difference_and_one_with_huge_values_are_survived() -> None:
    for loss in (lambda c: 1.0, lambda c: 10.0 ** (40 * c["x"] / 2), lambda c: 0.0 if c["x"] > 0 else 1e300):
        for trial in searched(make(SMOOTH), loss, 25):
            assert SMOOTH.problems(trial.config) == ()


def test_more_results_than_the_surrogate_holds() -> None:
    trials = searched(make(SMOOTH, n_points=20), lambda c: (c["x"] - 1) ** 2 + (c["y"] + 1) ** 2, 60)
    assert best(trials) < 1e-3


@pytest.mark.parametrize("n", [0, 3, 4, 5, 100, 9999])
def test_marks_stand_still_between_fits(n: int) -> None:
    mark = last_mark(n, 4)
    assert mark <= n
    assert last_mark(mark, 4) == mark
    assert n - mark <= max(2, n // 4)
