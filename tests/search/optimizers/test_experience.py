from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from search.objective import Objective
from search.optimizers.experience import Experience
from search.optimizers.genome import Genome
from search.optimizers.surrogate import VIEWS
from search.optimizers.valuation import N_WINDOW
from search.trial import Observation, Trial, TrialState
from tests.search.toy_search import OBJECTIVES, SMOOTH, observed, running

FOLDS = (0.0, 5.0, -2.0, 1.0)
"""Effects of four folds; they sum to more than nothing, as they may."""


def fresh(objectives: Sequence[Objective] = OBJECTIVES) -> Experience:
    return Experience(Genome(SMOOTH), objectives, first_mark=4)


def ended(number: int, level: float, n_folds: int, noise: Sequence[float] = (0, 0, 0, 0)) -> Trial:
    """A trial whose loss on each fold is its level plus the effect of the fold plus noise."""
    losses = [level + effect + rest for effect, rest in zip(FOLDS[:n_folds], noise, strict=False)]
    trial = running(number, {"x": number / 100 - 1, "y": 0.0}, losses)
    return replace(trial, state=TrialState.COMPLETE if n_folds == 4 else TrialState.STOPPED)


def test_a_stopped_trial_is_valued_by_differences_on_its_folds() -> None:
    experience = fresh()
    for number in range(6):
        experience.tell(ended(number, float(number), 4))
    experience.tell(ended(6, 2.5, 2))
    results = experience.results()
    assert results.losses[6, 0] == pytest.approx(2.5 + np.mean(FOLDS))
    assert results.variances[6, 0] < 1e-3  # of worths that vary by three
    assert results.progress.tolist() == [1.0] * 7


@pytest.mark.parametrize("n_folds", [1, 2, 3])
def test_the_variance_of_a_stopped_trial_is_that_of_its_estimate(n_folds: int) -> None:
    """Of folds with independent noise of variance 1, k tell what a trial is worth with variance 1/k."""
    rng, found = np.random.default_rng(0), []
    for _ in range(5):
        experience = fresh()
        for number in range(N_WINDOW):
            experience.tell(ended(number, 0.0, 4, rng.standard_normal(4)))
        experience.tell(ended(N_WINDOW, 0.0, n_folds))
        found.append(experience.results().variances[-1, 0])
    assert np.mean(found) == pytest.approx(1 / n_folds, rel=0.15)


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_before_enough_folds_are_seen_the_error_of_a_stopped_trial_is_unknown_and_not_none(view: str) -> None:
    experience = fresh()
    for number in range(4):
        experience.tell(ended(number, float(number), 2))
    assert np.isnan(experience.results().variances[:, 0]).all()
    experience.tell(ended(4, 4.0, 4))
    results = experience.results()
    assert np.isnan(results.variances[:4, 0]).all()
    target = VIEWS[view](results.losses[:, 0], results.variances[:, 0])
    assert target.variances.tolist() == [1.0] * 4 + [0.0]
    experience.tell(ended(5, 5.0, 4))
    experience.tell(ended(6, 6.0, 2))
    assert np.isfinite(experience.results().variances[-1, 0])


def test_a_trial_that_is_taken_up_again_counts_once_and_what_was_known_before_stays_known() -> None:
    experience = fresh()
    for number in range(5):
        experience.tell(ended(number, float(number), 4))
    part = replace(ended(5, 9.0, 2), state=TrialState.PAUSED)
    experience.tell(part)
    before = experience.results()
    assert len(experience.running()) == 0
    experience.tell(replace(part, state=TrialState.RUNNING))
    assert experience.results().ids.count("t0005") == 1
    assert len(experience.running()) == 1
    experience.tell(ended(5, 9.0, 4))
    after = experience.results()
    assert (experience.n_valued, experience.n_ends) == (6, 7)
    assert after.ids.count("t0005") == 1
    assert after.losses[-1, 0] == pytest.approx(9.0 + np.mean(FOLDS))
    assert list(experience.results(6).ids) == list(before.ids)
    assert experience.results(6).losses == pytest.approx(before.losses)


@pytest.mark.filterwarnings("error")
def test_a_fold_that_no_other_trial_has_says_its_loss_with_an_unknown_error() -> None:
    experience = fresh()
    for number in range(6):
        experience.tell(ended(number, float(number), 2))
    last = running(6, {"x": 0.5, "y": 0.0}).observed(observed(3, 7.0))
    experience.tell(last)
    results = experience.results()
    assert results.losses[-1, 0] == 7.0
    assert np.isnan(results.variances[-1, 0])


def test_the_variance_of_a_complete_trial_leaves_out_what_all_folds_share() -> None:
    rng, experience = np.random.default_rng(0), fresh()
    for number in range(100):
        experience.tell(ended(number, 3.0, 4, rng.standard_normal(4)))
    assert experience.results().variances[10:, 0].mean() == pytest.approx(1 / 4, rel=0.25)


def test_trials_that_were_stopped_before_any_was_complete_are_valued_again() -> None:
    experience = fresh()
    for number in range(10):
        experience.tell(ended(number, 1.0, 1))
    for number in range(10, 26):
        experience.tell(ended(number, 1.0, 4))
    assert experience.results().losses[:, 0] == pytest.approx(1.0 + np.mean(FOLDS))


def test_epochs_of_a_fold_are_told_apart() -> None:
    """A trial stopped in the middle of a fold is compared to others at the same share of it."""

    def half(number: int, level: float, *, to_the_end: bool) -> Trial:
        report = {"fold": 0, "n_scored": 10, "seconds": 0.1}
        early = Observation(rung=0, share=0.5, metrics={"val_loss": level + 7}, **report)
        late = Observation(rung=1, share=1.0, metrics={"val_loss": level}, **report)
        trial = running(number, {"x": 0.01 * number, "y": 0.0}).observed(early)
        trial = trial.observed(late) if to_the_end else trial
        return replace(trial, state=TrialState.COMPLETE if to_the_end else TrialState.STOPPED)

    experience = fresh()
    for number in range(5):
        experience.tell(half(number, float(number), to_the_end=True))
    experience.tell(half(5, 2.0, to_the_end=False))
    assert experience.results().losses[-1, 0] == pytest.approx(2.0)
    assert experience.results().progress[-1] == 0.5


def test_a_learning_curve_has_rows_for_its_early_rungs_and_its_newest() -> None:
    """Rungs 1, 2 and 4 of the first fold of 8 rungs, and the end; each as if the trial had been stopped there."""
    drop = (5.0, 3.0, 2.0, 1.5, 1.0, 0.5, 0.2, 0.0)

    def curve(number: int, level: float, n_rungs: int) -> Trial:
        trial = running(number, {"x": 0.01 * number, "y": 0.0})
        for k in range(n_rungs):
            seen = {"val_loss": level + drop[k]}
            rung = Observation(rung=k, fold=0, share=(k + 1) / 8, metrics=seen, n_scored=1, seconds=0.1)
            trial = trial.observed(rung)
        return replace(trial, state=TrialState.COMPLETE if n_rungs == 8 else TrialState.STOPPED)

    experience = fresh()
    experience.tell(curve(0, 3.0, 8))
    experience.tell(curve(1, 7.0, 8))
    experience.tell(curve(2, 4.0, 3))
    results = experience.results()
    assert results.progress.tolist() == [1 / 8, 2 / 8, 4 / 8, 1.0] * 2 + [1 / 8, 2 / 8, 3 / 8]
    assert results.losses[:, 0] == pytest.approx([3.0] * 4 + [7.0] * 4 + [4.0] * 3)
    assert results.is_newest.tolist() == [False, False, False, True] * 2 + [False, False, True]
    assert not results.variances.any()
    assert len(experience.results(1)) == 4
    reporting = running(3, {"x": 0.5, "y": 0.0}).observed(curve(3, 1.0, 1).observations[0])
    assert experience.results(reporting=reporting).losses[-1, 0] == pytest.approx(1.0)
    assert len(experience.results()) == 11


def test_maximised_measures_are_turned() -> None:
    experience = fresh((Objective("val_loss"), Objective("ic", "max")))
    trial = running(0, {"x": 0.0, "y": 0.0}).observed(observed(0, 2.0, ic=0.3))
    experience.tell(replace(trial, state=TrialState.COMPLETE))
    assert experience.results().losses.tolist() == [[2.0, -0.3]]


@pytest.mark.requirement("SEARCH-9")
def test_only_ends_that_are_the_configs_own_doing_count_against_it() -> None:
    experience = fresh()
    for number, state in enumerate(TrialState):
        trial = running(number, {"x": 0.1 * number, "y": 0.0}, () if state is TrialState.INFEASIBLE else (1.0,))
        experience.tell(replace(trial, state=state))
    assert experience.n_valued == 3
    assert experience.n_untrainable == 3
    assert len(experience.running()) == 1


def test_running_trials_that_have_reported_stand_at_the_end_and_leave_it_when_they_end() -> None:
    experience = fresh()
    experience.tell(ended(0, 1.0, 4))
    experience.tell(running(1, {"x": 0.5, "y": 0.0}, (3.0,)))
    assert list(experience.results().ids) == ["t0000", "t0001"]
    assert list(experience.results(1).ids) == ["t0000"]
    experience.tell(replace(running(1, {"x": 0.5, "y": 0.0}, (3.0,)), state=TrialState.LOST))
    assert list(experience.results().ids) == ["t0000"]
