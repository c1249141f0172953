"""When a whole search is over before its trials are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from search.errors import SpaceError
from search.objective import Objective
from search.replay import main
from search.settings import SpaceFile
from search.stopping.improvement import expected_improvement
from search.stopping.whole_search import N_WATCHED, WholeSearch
from search.study import Study
from search.trial import TrialState
from tests.search.toy_search import RUNGS, SPACE, run_trial, running


def complete(rule: WholeSearch, number: int, losses: Sequence[float]) -> None:
    trial = running(number, {}, losses)
    rule.tell(trial)
    rule.tell(replace(trial, state=TrialState.COMPLETE))


def test_gpu_hours_count_what_was_reported_once() -> None:
    rule = WholeSearch(Objective(), gpu_hours=1e-3, gpus_per_trial=2.0)  # 1.8 s of two GPUs; a report takes 0.5 s
    complete(rule, 0, [1.0, 1.0, 1.0])
    assert rule.reason() is None
    rule.tell(running(1, {}, [1.0]))
    assert rule.reason() == "budget.gpu_hours: 0.00111 of 0.001 GPU-hours are spent"


def test_progress_within_the_noise_is_no_progress() -> None:
    rule = WholeSearch(Objective(), patience=2)
    complete(rule, 0, [1.0, 2.0, 3.0, 4.0])
    complete(rule, 1, [0.5, 2.4, 2.5, 4.4])  # better by 0.05 with a standard error of 0.26
    assert rule.reason() is None
    rule.tell(replace(running(2, {}, [9.0]), state=TrialState.STOPPED))
    assert rule.reason() == (
        "budget.patience: 2 trials ended without one that is better than t0000 by more than the noise"
    )
    complete(rule, 3, [0.9, 1.9, 2.9, 3.8])  # better by 0.125 with a standard error of 0.025: taken back
    assert rule.reason() is None


def test_expected_improvement_is_the_mean_of_what_lies_below_zero() -> None:
    for gap, spread in ((1.0, 0.5), (-0.3, 2.0), (0.0, 1.0)):
        expected = quad(lambda x, g=gap, s=spread: max(-x, 0.0) * norm.pdf(x, g, s), -20, 0)[0]
        assert expected_improvement(-gap, spread) == pytest.approx(expected, rel=1e-6)


def test_a_search_without_anything_left_to_gain_ends_and_one_that_still_spreads_goes_on() -> None:
    """Trials are worse by 1 on average with noise 0.1: only how much they truly differ among themselves decides."""
    for spread, is_over in ((0.1, True), (1.0, False)):
        rule, rng = WholeSearch(Objective(), least_improvement=0.5), np.random.default_rng(0)
        complete(rule, 0, [0.0, 0.0, 0.0, 0.0])
        for number in range(1, N_WATCHED):
            assert rule.reason() is None
            quality = 1.0 + spread * float(rng.standard_normal())
            complete(rule, number, (max(quality, 0.2) + 0.1 * rng.standard_normal(4)).tolist())
        reason = rule.reason()
        assert (reason is not None) == is_over
        if reason is not None:
            assert reason.startswith("budget.least_improvement: 30 more trials like the last")


def test_refused_proposals_are_no_trials() -> None:
    rule = WholeSearch(Objective(), patience=1, give_up_after=1)
    complete(rule, 0, [1.0])
    rule.tell(replace(running(1, {}), state=TrialState.INFEASIBLE))
    assert rule.reason() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "above 0, found None, 0"),
        ({"least_improvement": -1.0}, "above 0, found None, None, -1.0"),
        ({"gpu_hours": 1.0}, "gpus_per_trial above 0"),
    ],
)
def test_limits_without_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WholeSearch(Objective(), **settings)


def arguments(**limits: Any) -> dict[str, Any]:
    return {
        "space": SPACE,
        "ladder": RUNGS,
        "n_trials": 20,
        "optimizer": "random",
        "stopping": "none",
        "limits": limits,
    }


@pytest.mark.requirement("SEARCH-9")
def test_a_search_whose_first_trials_all_fail_stops_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Study.create(path, **arguments(give_up_after=3)) as study:
        while (trial := study.next()) is not None:
            study.started(trial.trial_id)
            study.finish(trial.trial_id, TrialState.OUT_OF_MEMORY, "needs 80 GiB")
        assert len(study.trials) == 3
        assert study.is_done
        reason = "all of the first 3 trials failed; the last, t0002, out_of_memory: needs 80 GiB"
        assert study.stop_reason == f"budget.give_up_after: {reason}"
    with Study.resume(path, **arguments(give_up_after=3)) as study:
        assert study.next() is None
    with Study.resume(path, **arguments(give_up_after=None)) as study:
        assert study.next() is not None
    assert main([str(tmp_path)]) == 0


def test_a_running_trial_may_take_an_ending_back(tmp_path: Path) -> None:
    with Study.create(tmp_path / "journal.sqlite", **arguments(patience=1)) as study:
        first, second, third = study.next(), study.next(), study.next()
        assert first is not None
        assert second is not None
        assert third is not None
        run_trial(study, first, [5.0, 5.0, 5.0, 5.0])
        run_trial(study, second, [5.0, 5.0, 5.0, 5.0])
        assert study.next() is None
        assert not study.is_done  # the third still runs
        run_trial(study, third, [1.0, 1.0, 1.0, 1.0])
        assert study.stop_reason is None
        assert study.next() is not None


def test_wrong_limits_leave_no_study() -> None:
    with pytest.raises((SpaceError, ValueError), match="patience"):
        Study.in_memory(**arguments(patience=-1))


def test_the_file_says_where_gpu_hours_count_nothing() -> None:
    text = '{"family": "mlp", "parameters": {}, "data": {}, "folds": {}, "budget": {"trials": 3, "gpu_hours": 2}}'
    file = SpaceFile.model_validate_json(text)
    assert [problem.path for problem in file.problems()] == [("budget", "gpu_hours")]
    assert file.limits() == {
        "gpu_hours": 2.0,
        "patience": None,
        "least_improvement": None,
        "give_up_after": 10,
        "gpus_per_trial": 0.0,
    }
