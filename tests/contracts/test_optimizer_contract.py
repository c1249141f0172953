"""What every optimizer must do. A new one is a line in `OPTIMIZERS`."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from search import optimizers, stopping
from search.errors import SpaceError
from search.objective import Objective
from search.optimizers import Optimizer, Proposal
from search.settings import SearchSection
from search.space import Choice, Float, Int, Space
from search.trial import Trial, TrialState
from tests.search.toy_search import OBJECTIVES, ONE_POINT, SMOOTH, SPACE, loss_of, observed, running

OPTIMIZERS = {
    "random": {},
    "evolutionary_bayesian": {"n_startup": 2},
    "qmc": {},
    "tpe": {"n_startup": 5},
    "gp": {"n_startup": 5},
    "cma_es": {},
    "nsga2": {},
    "nsga3": {},
    "population_based": {"genes": ["lr", "dropout", "depth", "width", "a", "b", "x", "y"]},
}
N_TO_LEARN = {"evolutionary_bayesian": 20, "tpe": 60, "gp": 18, "cma_es": 80, "nsga2": 160}
ENDINGS = (
    TrialState.COMPLETE,
    TrialState.STOPPED,
    TrialState.FAILED,
    TrialState.DIVERGED,
    TrialState.OUT_OF_MEMORY,
    TrialState.INFEASIBLE,
    TrialState.LOST,
)
ROOT = Path(__file__).parents[2]


def make(
    name: str, space: Space = SPACE, objectives: Sequence[Objective] = OBJECTIVES, population: int = 4
) -> Optimizer:
    return optimizers.make(name, space, objectives=objectives, population=population, seed=7, **OPTIMIZERS[name])


def as_trial(number: int, proposal: Proposal) -> Trial:
    return replace(running(number, proposal.config), note=proposal.note, origin=proposal.origin)


def events_of(
    name: str, n_trials: int, *, space: Space = SPACE, endings: Sequence[TrialState] = ENDINGS
) -> list[Trial]:
    """Let an optimizer propose, three trials at a time, end them out of order in every way; return what it heard."""
    optimizer, heard, pending = make(name, space), [], []

    def tell(trial: Trial) -> None:
        optimizer.tell(trial)
        heard.append(trial)

    for number in range(n_trials):
        trial = as_trial(number, optimizer.ask(number, 1000 + number))
        tell(trial)
        pending.append(trial)
        if len(pending) == 3:
            trial = pending.pop(number % 3)
            ending = endings[number % len(endings)]
            if ending is not TrialState.INFEASIBLE:
                trial = trial.observed(observed(0, loss_of(trial.config) if space is SPACE else 1.0))
                tell(trial)
            tell(replace(trial, state=ending))
    return heard


def told(name: str, heard: Sequence[Trial], space: Space = SPACE) -> Optimizer:
    optimizer = make(name, space)
    for trial in heard:
        optimizer.tell(trial)
    return optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.requirement("SEARCH-4")
@pytest.mark.requirement("SEARCH-10")
def test_proposes_points_of_the_space_whatever_it_hears(name: str) -> None:
    for trial in events_of(name, 14 if name == "gp" else 40):
        assert SPACE.problems(trial.config) == ()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_space_of_one_point(name: str) -> None:
    for trial in events_of(name, 8, space=ONE_POINT):
        assert trial.config == {"lr": 0.1, "kind": "ssm", "depth": 3}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_small_finite_space_can_be_exhausted(name: str) -> None:
    space = Space({"a": Choice(choices=("p", "q")), "b": Int(low=1, high=2)})
    heard = events_of(name, 10, space=space)
    assert {tuple(t.config.values()) for t in heard} == {("p", 1), ("p", 2), ("q", 1), ("q", 2)}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.requirement("SEARCH-4")
def test_ask_is_pure(name: str) -> None:
    optimizer = told(name, events_of(name, 12))
    first = optimizer.ask(12, 5)
    optimizer.ask(12, 6)
    optimizer.ask(13, 5)
    assert optimizer.ask(12, 5) == first


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "qmc"])
def test_another_seed_gives_another_proposal(name: str) -> None:
    optimizer = told(name, events_of(name, 12))
    assert optimizer.ask(12, 5).config != optimizer.ask(12, 6).config


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.requirement("SEARCH-15")
def test_the_same_events_give_the_same_next_proposal(name: str) -> None:
    heard = events_of(name, 12)
    through_json = [replace(t, note=json.loads(json.dumps(t.note, allow_nan=False))) for t in heard]
    assert told(name, through_json).ask(12, 99) == told(name, heard).ask(12, 99)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_proposals_of_running_trials_differ(name: str) -> None:
    optimizer = told(name, events_of(name, 12))
    configs = []
    for number in range(12, 18):
        trial = as_trial(number, optimizer.ask(number, number))
        optimizer.tell(trial)
        configs.append(json.dumps(trial.config, sort_keys=True))
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_it_hears_is_never_changed(name: str) -> None:
    heard = events_of(name, 12)
    before = copy.deepcopy(heard)
    told(name, heard).ask(12, 1)
    assert heard == before


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("ending", [e for e in ENDINGS if e is not TrialState.COMPLETE])
def test_goes_on_where_no_trial_ever_completes(name: str, ending: TrialState) -> None:
    for trial in events_of(name, 12, endings=(ending,)):
        assert SPACE.problems(trial.config) == ()


@pytest.mark.parametrize("name", N_TO_LEARN)
def test_learns_where_the_minimum_lies(name: str) -> None:
    """The median of the last ten proposals on a bowl is nearer than nine of ten random points are."""
    optimizer = make(name, SMOOTH, population=8)
    distances = []
    for number in range(N_TO_LEARN[name]):
        trial = as_trial(number, optimizer.ask(number, number))
        optimizer.tell(trial)
        squared = (trial.config["x"] - 1) ** 2 + (trial.config["y"] + 1) ** 2
        for rung in range(4):
            trial = trial.observed(observed(rung, squared))
        optimizer.tell(replace(trial, state=TrialState.COMPLETE))
        distances.append(math.sqrt(squared))
    random = np.random.default_rng(0).uniform(-2, 2, (10_000, 2)) - [1, -1]
    assert np.median(distances[-10:]) < np.quantile(np.linalg.norm(random, axis=1), 0.1)


def test_a_maximised_metric_is_turned_once() -> None:
    down, up = (told_with_metric(sign, direction) for sign, direction in ((1.0, "min"), (-1.0, "max")))
    assert down.ask(20, 3) == up.ask(20, 3)


def told_with_metric(sign: float, direction: str) -> Optimizer:
    optimizer = make("tpe", SMOOTH, (Objective("score", direction),))
    for number in range(20):
        x = -2 + number / 5
        trial = running(number, {"x": x, "y": 0.0}).observed(observed(0, 1.0, score=sign * x * x))
        optimizer.tell(replace(trial, state=TrialState.COMPLETE))
    return optimizer


@pytest.mark.parametrize("state", [TrialState.OUT_OF_MEMORY, TrialState.INFEASIBLE, TrialState.DIVERGED])
@pytest.mark.requirement("SEARCH-9")
def test_tpe_keeps_away_from_what_cannot_be_trained(state: TrialState) -> None:
    as_constraint, as_failure = proposals_left_of_zero(state), proposals_left_of_zero(TrialState.FAILED)
    assert as_constraint < as_failure / 2
    assert as_constraint <= 6


@pytest.mark.parametrize("name", ["evolutionary_bayesian", "tpe", "nsga2", "nsga3"])
def test_a_constraint_that_is_measured_keeps_proposals_away(name: str) -> None:
    """The loss falls to the left, where a bound is broken the more the further: few proposals go far there."""
    objectives = (Objective("val_loss"), Objective("ic", "max"))[: 1 + (name == "nsga3")]
    optimizer = make(name, SMOOTH, objectives, population=8)
    n_trials, places = 24 if name == "evolutionary_bayesian" else 60, []
    for number in range(n_trials):
        trial = as_trial(number, optimizer.ask(number, number))
        optimizer.tell(trial)
        optimizer.tell(bounded(trial))
        places.append(trial.config["x"])
    assert np.mean(np.array(places[8:]) < -0.25) < 0.35


def test_the_gaussian_process_takes_broken_bounds_for_a_constraint() -> None:
    """Told as failures, the points left of zero would leave it to look there; as a constraint they do not."""
    optimizer = make("gp", SMOOTH)
    for number, x in enumerate(np.linspace(-2, 2, 16)):
        optimizer.tell(bounded(running(number, {"x": float(x), "y": math.sin(number)})))
    assert optimizer.ask(16, 1).config["x"] > -0.3


def bounded(trial: Trial) -> Trial:
    """End a trial of the smooth space: its loss falls to the left of zero, where it breaks a bound."""
    x, y = trial.config["x"], trial.config["y"]
    heard = replace(trial.observed(observed(0, x + y * y, ic=-x)), excesses={"latency_ms": -x, "n_parameters": -1.0})
    return replace(heard, state=TrialState.INFEASIBLE if x < 0 else TrialState.COMPLETE)


def proposals_left_of_zero(state: TrialState) -> int:
    """Of 60, where every trial left of zero ended in this state and the loss of the others says nothing about x."""
    optimizer = make("tpe", SMOOTH)
    for number, x in enumerate(np.linspace(-2, 2, 60)):
        trial = running(number, {"x": float(x), "y": math.sin(number)})
        if x < 0:
            trial = replace(trial, state=state)
        else:
            trial = replace(trial.observed(observed(0, math.sin(5 * number))), state=TrialState.COMPLETE)
        optimizer.tell(trial)
    return sum(optimizer.ask(60, seed).config["x"] < 0 for seed in range(60))


@pytest.mark.parametrize("name", ["evolutionary_bayesian", "tpe", "gp", "nsga2", "nsga3"])
@pytest.mark.requirement("SEARCH-19")
def test_two_objectives(name: str) -> None:
    objectives = (Objective("val_loss"), Objective("ic", "max"))
    optimizer = make(name, SMOOTH, objectives)
    for number in range(12):
        trial = as_trial(number, optimizer.ask(number, number))
        optimizer.tell(trial)
        x = trial.config["x"]
        trial = trial.observed(observed(0, (x - 1) ** 2, ic=-((x + 1) ** 2)))
        optimizer.tell(replace(trial, state=ENDINGS[number % 2]))
    assert SMOOTH.problems(optimizer.ask(12, 0).config) == ()


def test_a_grid_visits_every_point_once() -> None:
    space = Space({"a": Choice(choices=("p", "q")), "b": Int(low=1, high=3, when={"a": "q"})})
    grid = optimizers.make("grid", space, objectives=OBJECTIVES, population=1, seed=1)
    asked = [tuple(grid.ask(number, 0).config.values()) for number in range(4)]
    assert sorted(asked) == [("p",), ("q", 1), ("q", 2), ("q", 3)]


@pytest.mark.parametrize(
    ("name", "space", "settings", "message"),
    [
        ("tpee", SMOOTH, {}, "did you mean tpe?"),
        ("grid", SMOOTH, {}, "expected discrete parameters, found continuous x, y"),
        ("tpe", SMOOTH, {"n_start": 3}, "n_start"),
        ("cma_es", SMOOTH, {"sigma": 0.0}, "sigma above 0"),
        ("evolutionary_bayesian", SMOOTH, {"n_elites": 0}, "n_elites: expected at least 1, found 0"),
    ],
)
def test_wrong_names_and_settings_are_refused(
    name: str, space: Space, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(SpaceError, match=message.replace("?", r"\?")):
        optimizers.make(name, space, objectives=OBJECTIVES, population=4, seed=0, **settings)


def test_two_hundred_parameters() -> None:
    space = Space({f"p{k}": Float(low=0.0, high=1.0) for k in range(200)})
    for name in ("random", "qmc", "tpe", "cma_es", "evolutionary_bayesian"):
        optimizer = make(name, space)
        for number in range(8):
            optimizer.tell(replace(as_trial(number, optimizer.ask(number, number)), state=TrialState.FAILED))
        assert space.problems(optimizer.ask(8, 0).config) == ()


def next_proposals() -> dict[str, object]:
    """What each optimizer proposes after the same events."""
    proposals = {name: told(name, events_of(name, 14)).ask(14, 3) for name in OPTIMIZERS}
    return {name: [p.config, p.note] for name, p in proposals.items()}


@pytest.mark.requirement("REPRO-1")
@pytest.mark.requirement("SEARCH-4")
def test_another_process_with_another_hash_seed_proposes_the_same() -> None:
    code = (
        "import json, tests.contracts.test_optimizer_contract as c; "
        "print(json.dumps(c.next_proposals(), sort_keys=True))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(next_proposals()))


def test_the_names_of_a_space_file_are_those_of_the_tables() -> None:
    section = SearchSection.model_fields
    assert set(get_args(section["optimizer"].annotation)) == set(optimizers.TABLE) == {*OPTIMIZERS, "grid"}
    rules = get_args(section["stopping"].annotation)
    assert {get_args(rule.model_fields["rule"].annotation)[0] for rule in rules} == set(stopping.TABLE)
