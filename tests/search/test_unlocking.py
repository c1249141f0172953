"""Features first, size later: the gate on synthetic results, in a study, on replay, and in a space file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from search.replay import replay
from search.settings import SearchSection, space_file_model
from search.space import Choice, Float, Space
from search.study import Study
from search.trial import Observation, Trial, TrialState, ladder
from search.unlocking import Unlocking
from trainables.data.config import DataConfig, FoldsConfig

SPACE = Space({"hidden": Choice(choices=("small", "large", "huge")), "lr": Float(low=1e-4, high=1e-2, log=True)})
GATE = {
    "parameter": "hidden",
    "locked": ["large", "huge"],
    "instead": "small",
    "metric": "directional_accuracy",
    "above": 0.52,
    "baseline": "majority_rate",
    "margin": 0.01,
}
RUNGS = ladder(2)


def observation(rung: int, accuracy: float, majority: float) -> Observation:
    measures = {"val_loss": 0.7, "directional_accuracy": accuracy, "majority_rate": majority}
    return Observation(rung=rung, fold=rung, share=1.0, metrics=measures, n_scored=100, seconds=1.0)


def trial(*folds: tuple[float, float], state: TrialState = TrialState.COMPLETE) -> Trial:
    made = Trial(number=0, trial_id="t0000", config={}, origin="test", generation=0, parents=(), seed=0, state=state)
    return replace(made, observations=tuple(observation(i, a, m) for i, (a, m) in enumerate(folds)))


@pytest.mark.requirement("SEARCH-13")
@pytest.mark.requirement("FEAT-SC-10")
@pytest.mark.parametrize(
    ("folds", "opens"),
    [
        (((0.53, 0.51), (0.53, 0.51)), True),
        (((0.56, 0.50), (0.50, 0.50)), True),  # the mean over folds decides
        (((0.52, 0.50), (0.52, 0.50)), False),  # not above 52 %
        (((0.55, 0.545), (0.55, 0.545)), False),  # not a point above the majority
        (((0.49, 0.48), (0.49, 0.48)), False),
    ],
)
def test_it_opens_above_both_bars_only(folds, opens):
    gate = Unlocking(**GATE)
    gate.tell(trial(*folds))
    assert (gate.opened_by == "t0000") is opens
    assert gate.admitted({"hidden": "huge", "lr": 0.1}) == {"hidden": "huge" if opens else "small", "lr": 0.1}
    assert gate.admitted({"hidden": "small", "lr": 0.1}) == {"hidden": "small", "lr": 0.1}


def test_only_complete_trials_count_and_standard_errors_may_be_asked_for():
    gate = Unlocking(**GATE)
    gate.tell(trial((0.9, 0.5), state=TrialState.STOPPED))
    gate.tell(trial(state=TrialState.COMPLETE))
    assert gate.opened_by is None
    cautious = Unlocking(**GATE, standard_errors=2.0)
    cautious.tell(trial((0.60, 0.50), (0.50, 0.50)))
    assert cautious.opened_by is None
    cautious.tell(trial((0.56, 0.50), (0.56, 0.50)))
    assert cautious.opened_by == "t0000"


@pytest.mark.requirement("SEARCH-13")
@pytest.mark.parametrize("optimizer", ["random", "tpe", "evolutionary_bayesian"])
def test_a_study_proposes_larger_models_only_after_one_has_earned_them_and_replays(tmp_path, optimizer):
    accuracies = [0.50] * 6 + [0.60] + [0.50] * 13
    path = tmp_path / "journal.sqlite"
    arguments = {
        "space": SPACE,
        "ladder": RUNGS,
        "n_trials": len(accuracies),
        "optimizer": optimizer,
        "stopping": "none",
        "seed": 4,
        "unlock": GATE,
    }
    study = Study.create(path, **arguments)
    for number, accuracy in enumerate(accuracies):
        if number == 10:  # what was earned is remembered by the journal alone
            study.close()
            study = Study.resume(path, **arguments)
        proposed = study.next()
        attempt = study.started(proposed.trial_id)
        for rung in range(2):
            study.observe(proposed.trial_id, observation(rung, accuracy, 0.5), attempt)
    sizes = [t.config["hidden"] for t in study.trials.values()]
    study.close()
    assert set(sizes[:7]) == {"small"}
    assert set(sizes[7:]) & {"large", "huge"}
    found = replay(path)
    assert found.difference is None
    assert found.n_proposals == len(accuracies)


@pytest.mark.parametrize(
    ("changes", "enqueue", "words"),
    [
        ({}, (), ""),
        ({"parameter": "lr"}, (), "expected a choice or ordered parameter, found lr"),
        ({"parameter": "width"}, (), "expected a choice or ordered parameter, found width"),
        ({"parameter": "kind", "locked": ["b"], "instead": "a"}, (), "without conditions that no other has"),
        ({"locked": ["vast"]}, (), "expected values of hidden, found vast"),
        ({"instead": "huge"}, (), "expected a value that is not locked, found huge"),
        ({}, ({"hidden": "huge"},), "expected a value that is not locked by search.unlock, found huge"),
    ],
)
def test_what_a_space_file_may_lock(changes, enqueue, words):
    kinds = {
        "hidden": {"type": "choice", "choices": ["small", "large", "huge"]},
        "lr": {"type": "float", "low": 1e-4, "high": 1e-2},
        "kind": {"type": "choice", "choices": ["a", "b"]},
        "depth": {"type": "int", "low": 1, "high": 3, "when": {"kind": "b"}},
    }
    model = space_file_model(DataConfig, FoldsConfig, ("mlp",))
    search = {"unlock": {**{k: GATE[k] for k in ("parameter", "locked", "instead")}, **changes}, "enqueue": enqueue}
    content = {"family": "mlp", "parameters": kinds, "search": search, "budget": {"trials": 2}}
    texts = [problem.text for problem in model.model_validate_json(json.dumps(content)).problems()]
    assert len(texts) == (1 if words else 0)
    assert all(words in text.replace("'", "") for text in texts)


@pytest.mark.requirement("SEARCH-13")
def test_it_is_off_unless_asked_for():
    assert SearchSection().unlock is None
    study = Study.in_memory(space=SPACE, ladder=RUNGS, n_trials=12, optimizer="random", stopping="none", seed=4)
    assert {study.next().config["hidden"] for _ in range(12)} & {"large", "huge"}
