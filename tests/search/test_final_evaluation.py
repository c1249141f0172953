from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from search.errors import ProtocolError, SpaceError
from search.final_evaluation import FinalEvaluation, ledger_rows
from search.replay import replay
from search.study import Study
from search.trial import Decision, Observation, TrialState
from tests.search.test_study import ARGUMENTS, run_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def study(path: Path) -> Iterator[Study]:
    with Study.create(path, **ARGUMENTS) as study:
        run_all(study)
        yield study


def complete(study: Study) -> list[str]:
    return [t.trial_id for t in study.trials.values() if t.state is TrialState.COMPLETE]


def seen(loss: float) -> Observation:
    metrics = {"val_loss": loss, "ic": float("nan")}
    return Observation(rung=0, fold=0, share=1.0, metrics=metrics, n_scored=50, seconds=1.0)


def score_all(evaluation: FinalEvaluation) -> None:
    while (trial := evaluation.next()) is not None:
        attempt = evaluation.started(trial.trial_id)
        assert evaluation.observe(trial.trial_id, seen(0.5), attempt) is Decision.STOP


@pytest.mark.requirement("SEARCH-17")
def test_the_opening_is_on_disk_before_a_trial_is_handed_out(study: Study, path: Path) -> None:
    first = complete(study)[0]
    FinalEvaluation(study, [first], choice="leader", again=False)
    (opening,) = Study.read(path).openings
    assert (opening.number, opening.trial_ids, opening.choice, dict(opening.scores)) == (1, (first,), "leader", {})
    assert opening.n_trials == len(study.trials)
    assert "@" in opening.who


@pytest.mark.requirement("SEARCH-17")
def test_a_second_opening_needs_to_be_asked_for_and_is_counted(study: Study) -> None:
    first, second = complete(study)[:2]
    score_all(FinalEvaluation(study, [first], choice=first, again=False))
    with pytest.raises(SpaceError, match="--reopen looks again"):
        FinalEvaluation(study, [second], choice=second, again=False)
    score_all(FinalEvaluation(study, [second], choice=second, again=True))
    assert [row["number"] for row in ledger_rows(study.history.openings)] == [1, 2]


def test_what_is_not_finite_is_no_score(study: Study) -> None:
    first = complete(study)[0]
    evaluation = FinalEvaluation(study, [first], choice="leader", again=False)
    score_all(evaluation)
    assert evaluation.opening.is_complete
    assert ledger_rows(study.history.openings)[0]["scores"] == {first: {"val_loss": 0.5}}


def test_an_opening_cut_short_goes_on_as_the_same_one(study: Study, path: Path) -> None:
    chosen = complete(study)[:2]
    evaluation = FinalEvaluation(study, chosen, choice="confidence_set", again=False)
    trial = evaluation.next()
    assert trial is not None
    evaluation.observe(trial.trial_id, seen(0.5), evaluation.started(trial.trial_id))
    study.close()
    with Study.resume(path, **ARGUMENTS) as resumed:
        rest = FinalEvaluation(resumed, chosen, choice="confidence_set", again=False)
        assert list(rest.trials) == chosen[1:]
        score_all(rest)
        assert len(resumed.history.openings) == 1
        assert rest.is_done


def test_only_complete_trials_are_evaluated(study: Study) -> None:
    stopped = next(t for t in study.trials.values() if t.state is TrialState.STOPPED)
    with pytest.raises(SpaceError, match="expected a complete trial"):
        FinalEvaluation(study, [stopped.trial_id], choice=stopped.trial_id, again=False)
    assert study.history.openings == ()
    with pytest.raises(ProtocolError, match="expected an opening"):
        study.score_vault(complete(study)[0], {"val_loss": 1.0}, 1)


def test_a_trial_that_fails_is_named_and_leaves_the_opening_incomplete(study: Study) -> None:
    first = complete(study)[0]
    evaluation = FinalEvaluation(study, [first], choice="leader", again=False)
    trial = evaluation.next()
    assert trial is not None
    evaluation.started(first)
    evaluation.finish(first, TrialState.FAILED, "RuntimeError: no")
    assert evaluation.is_done
    assert not evaluation.opening.is_complete
    assert evaluation.failures() == [f"{first}: failed: RuntimeError: no"]


def test_an_older_attempt_is_not_heard(study: Study) -> None:
    first = complete(study)[0]
    evaluation = FinalEvaluation(study, [first], choice="leader", again=False)
    old, new = evaluation.started(first), evaluation.started(first)
    evaluation.observe(first, seen(9.0), old)
    evaluation.observe(first, seen(0.5), new)
    assert evaluation.opening.scores[first]["val_loss"] == 0.5


def test_a_journal_with_openings_replays(study: Study, path: Path) -> None:
    score_all(FinalEvaluation(study, complete(study)[:1], choice="leader", again=False))
    study.close()
    assert replay(path).difference is None
