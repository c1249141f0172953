"""Constraints: what breaks one is infeasible, and says so by how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.charter import charter_from
from search.errors import SpaceError
from search.objective import Constraint
from search.replay import replay
from search.settings import space_file_model
from search.space_file import load
from search.study import Study
from search.trial import Decision, TrialState
from search.validity import infeasible_reason
from tests.search.toy_search import RUNGS, SPACE, observed
from trainables.data.config import DataConfig, FoldsConfig
from trainables.mlp.config import MlpConfig

FAST = Constraint("latency_ms", "max", 10.0)
GOOD = Constraint("ic", "min", 0.02)


def study_at(path: Path, *constraints: Constraint, **changes: Any) -> Study:
    arguments: dict[str, Any] = {"space": SPACE, "ladder": RUNGS, "optimizer": "random", "stopping": "none"}
    return Study.create(path, n_trials=6, constraints=constraints, **{**arguments, **changes})


def reported(study: Study, *, latency: float, ics: list[float]) -> tuple[str, Decision]:
    trial = study.next()
    assert trial is not None
    attempt = study.started(trial.trial_id)
    decision = Decision.CONTINUE
    for rung, ic in enumerate(ics):
        decision = study.observe(trial.trial_id, observed(rung, 0.5, ic=ic, latency_ms=latency), attempt)
        if decision is Decision.STOP:
            break
    return trial.trial_id, decision


def test_what_a_model_is_ends_it_after_the_first_fold(tmp_path: Path) -> None:
    with study_at(tmp_path / "journal.sqlite", FAST, GOOD) as study:
        slow, decision = reported(study, latency=12.0, ics=[0.5] * 4)
        fast, _ = reported(study, latency=8.0, ics=[0.5] * 4)
        trials = study.trials
    assert decision is Decision.STOP
    assert trials[slow].state is TrialState.INFEASIBLE
    assert trials[slow].reason == "latency_ms: expected at most 10, found 12"
    assert len(trials[slow].observations) == 1
    assert trials[slow].excesses == pytest.approx({"latency_ms": 0.2, "ic": -24.0})
    assert trials[fast].state is TrialState.COMPLETE
    assert trials[fast].excesses == pytest.approx({"latency_ms": -0.2, "ic": -24.0})
    assert study.best() == trials[fast]
    assert replay(tmp_path / "journal.sqlite").difference is None
    assert Study.read(tmp_path / "journal.sqlite").trials == trials


def test_what_it_scores_is_judged_over_all_folds(tmp_path: Path) -> None:
    with study_at(tmp_path / "journal.sqlite", GOOD) as study:
        bad, _ = reported(study, latency=1.0, ics=[-0.5, 0.1, 0.1, 0.1])
        good, _ = reported(study, latency=1.0, ics=[-0.5, 0.3, 0.2, 0.1])
        trials = study.trials
    assert trials[bad].state is TrialState.INFEASIBLE
    assert len(trials[bad].observations) == 4
    assert trials[bad].reason == "ic: expected at least 0.02, found -0.05"
    assert trials[good].state is TrialState.COMPLETE


def test_a_constraint_that_nothing_was_reported_of_fails_the_trial(tmp_path: Path) -> None:
    with study_at(tmp_path / "journal.sqlite", Constraint("crps", "max", 1.0)) as study:
        trial_id, _ = reported(study, latency=1.0, ics=[0.1] * 4)
        assert study.trials[trial_id].state is TrialState.FAILED
        assert study.trials[trial_id].reason == "the trial reported no value of crps"


def test_the_header_keeps_constraints_and_a_resume_wants_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    study_at(path, FAST).close()
    assert charter_from(Study.read(path).header["study"]).constraints == (FAST,)
    with pytest.raises(Exception, match="expected the run's own constraints"):
        Study.resume(path, space=SPACE, ladder=RUNGS, optimizer="random", stopping="none", n_trials=6)


def test_size_is_known_before_training() -> None:
    bounds = (Constraint("n_parameters", "max", 2000), Constraint("memory_bytes", "max", 1e12), FAST)
    assert infeasible_reason({"hidden": "32-16"}, MlpConfig, constraints=bounds) is None
    found = infeasible_reason({"hidden": "64-32-16"}, MlpConfig, constraints=bounds)
    assert found == "n_parameters: expected at most 2000, found 3573"


def test_what_is_too_large_never_starts(tmp_path: Path) -> None:
    def infeasible(config: Any) -> str | None:
        return "n_parameters: too many" if config["width"] > 64 else None

    with study_at(tmp_path / "journal.sqlite", infeasible=infeasible) as study:
        started = [study.next() for _ in range(6)]
        assert all(trial is not None and trial.config["width"] <= 64 for trial in started)
        refused = [t for t in study.trials.values() if t.state is TrialState.INFEASIBLE]
    assert refused
    assert all(t.attempts == 0 for t in refused)


SPACE_FILE = """
family: mlp
parameters: {lr: {type: float, low: 1e-4, high: 1e-2, log: true}}
budget: {trials: 3}
objectives:
  - {metric: val_loss, direction: minimize}
  - {metric: latency_ms, direction: minimize}
constraints:
"""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("  - {metric: n_parameters}", "expected either max or min for n_parameters"),
        ("  - {metric: n_parameters, max: 5e6, min: 1}", "expected either max or min for n_parameters"),
        ("  - {metric: ic, min: 0}\n  - {metric: ic, max: 1}", "expected each metric once, found ic again"),
        ("  - {metric: parameters, max: 5e6}", "n_parameters"),
        ("  - {metric: ic, min: .nan}", "expected a finite number, found .nan"),
    ],
)
def test_a_wrong_constraint_is_told_with_its_place(tmp_path: Path, lines: str, message: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE_FILE + lines + "\n")
    with pytest.raises(SpaceError, match=message):
        load(file, model=space_file_model(DataConfig, FoldsConfig, ("mlp",)))


def test_several_objectives_and_constraints_in_a_space_file(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE_FILE + "  - {metric: n_parameters, max: 5e6}\n  - {metric: ic, min: 0}\n")
    spec, _ = load(file, model=space_file_model(DataConfig, FoldsConfig, ("mlp",)))
    assert [(c.metric, c.bound, c.limit) for c in spec.constraints] == [
        ("n_parameters", "max", 5e6),
        ("ic", "min", 0.0),
    ]
    with pytest.raises(SpaceError, match="expected one objective for cma_es, found 2"):
        load(file, model=type(spec), overrides=["search.optimizer=cma_es"])
