"""What the next fold promises, and how fold racing pauses and goes on by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.simulated import simulate
from cluster.synthetic_tables import SyntheticTable, World
from search.objective import Objective
from search.stopping.fold_racing import FoldRacing
from search.stopping.promise import Outlook, Promises, _outcome, _shrunk
from search.study import Study
from search.trial import Decision, TrialState
from tests.search.test_fold_racing import raced

N_FOLDS = 8


def outlook(levels: dict[int, tuple[float, int]], noise: float = 0.1, n_background: int = 20) -> Promises:
    """Promises of trials with a level and a number of folds each, beside many with two folds and levels around 1."""
    rng, made = np.random.default_rng(0), Outlook(N_FOLDS)
    for number in range(n_background):
        made.take_in(number, 1 + rng.standard_normal() + noise * rng.standard_normal(2))
    for number, (level, n) in levels.items():
        made.take_in(number, level + noise * rng.standard_normal(n))
    found = made.promises()
    assert found is not None
    return found


def test_the_outcome_of_a_trial_is_its_expected_improvement_and_the_folds_expected() -> None:
    rng = np.random.default_rng(0)
    gap, deviation, left = np.array([-0.4]), np.array([0.7]), np.array([5])
    better = gap[0] + deviation[0] * rng.standard_normal(400_000)
    gain, chance = np.maximum(better, 0).mean(), (better > 0).mean()
    expected, n_folds = _outcome(gap, deviation, left)
    assert expected[0] == pytest.approx(gain, rel=0.02)
    assert n_folds[0] == pytest.approx(1 + chance * 4, rel=0.02)


def test_worths_are_shrunk_by_how_much_of_their_spread_is_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(4000)
    seen = truth + 2 * rng.standard_normal(4000)
    mean, variance, (_, spread) = _shrunk(seen, np.full(4000, 4.0))
    assert np.mean((mean - truth) ** 2) < 0.35 * np.mean((seen - truth) ** 2)
    assert 0 < variance.min()
    assert spread > 0


def test_a_good_trial_promises_more_than_a_bad_one_and_a_complete_one_nothing() -> None:
    found = outlook({100: (0.0, N_FOLDS), 101: (-0.5, 2), 102: (1.5, 2)})
    assert found.of[100] == 0.0
    assert found.of[101] > 10 * found.of[102]
    assert found.of[101] > found.fresh > 0


def test_who_is_nearly_there_comes_first_of_equals() -> None:
    found = outlook({100: (0.0, N_FOLDS), 101: (-0.5, 2), 102: (-0.5, 6)})
    assert found.of[102] > found.of[101]


def test_a_gain_is_told_in_standard_errors_of_a_complete_trial() -> None:
    """A trial far below the best improves on it by the difference, known or not how large a unit is."""
    for noise in (0.1, 0.4):
        found = outlook({100: (0.0, N_FOLDS), 101: (-4.0, N_FOLDS - 1)}, noise=noise, n_background=200)
        assert found.gains[101] == pytest.approx(4.0 / (noise / np.sqrt(N_FOLDS)), rel=0.35)
        assert found.gains[100] == 0.0


def test_old_trials_are_forgotten_and_cost_nothing() -> None:
    made = Outlook(N_FOLDS)
    made.take_in(3, np.full(N_FOLDS, -5.0))  # the best complete one stays
    for number in range(4, 1000):
        made.take_in(number, np.random.default_rng(number).standard_normal(2))
    found = made.promises()
    assert found is not None
    assert sorted(found.of)[:2] == [3, 745]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [0.0, 1.0, 1e100, 1e-100])
@pytest.mark.parametrize("noise", [0.0, 1e-12, 1.0])
def test_equal_and_enormous_losses_are_no_trouble(level: float, noise: float) -> None:
    made, rng = Outlook(N_FOLDS), np.random.default_rng(0)
    for number in range(12):
        made.take_in(number, level * (1 + noise * rng.standard_normal(N_FOLDS if number % 3 == 0 else 2)))
        found = made.promises()
        assert found is None or (np.isfinite([*found.of.values(), found.fresh]).all())


def rule_with(paused: list[float], **settings: Any) -> FoldRacing:
    """A rule that knows twenty trials of two folds, a complete one of level 0, and paused ones of these levels."""
    rng = np.random.default_rng(0)
    rule = FoldRacing(Objective(), N_FOLDS, **settings)
    for number in range(20):
        rule.tell(raced(number, (1 + rng.standard_normal() + 0.1 * rng.standard_normal(2)).tolist()))
    rule.tell(raced(20, [0.0, 0.1, -0.1, 0.0, 0.1, -0.1, 0.0, 0.0], state=TrialState.COMPLETE))
    for k, level in enumerate(paused):
        rule.tell(raced(21 + k, [level, level + 0.05], state=TrialState.PAUSED))
    return rule


def test_the_most_promising_goes_on_and_the_rest_waits() -> None:
    assert rule_with([0.4, -0.6, 0.2]).resume(is_last=False) == "t0022"
    assert rule_with([2.0]).resume(is_last=False) is None
    assert rule_with([2.0]).resume(is_last=True) == "t0021"
    assert rule_with([]).resume(is_last=True) is None


def test_a_trial_that_is_surpassed_is_set_aside_and_not_dropped() -> None:
    rule = rule_with([-0.6])
    assert rule.decide(raced(50, [0.05, 0.1])) is Decision.PAUSE
    assert rule.decide(raced(50, [-1.5, -1.4])) is Decision.CONTINUE
    assert rule.decide(raced(50, [5.0, 5.0])) is Decision.STOP
    assert rule_with([-0.6], best_first=False).decide(raced(50, [0.05, 0.1])) is Decision.CONTINUE


def test_before_the_size_of_chance_is_known_everybody_gets_two_folds() -> None:
    rule = FoldRacing(Objective(), N_FOLDS)
    assert rule.decide(raced(0, [1.0])) is Decision.CONTINUE
    assert rule.decide(raced(0, [1.0, 1.0])) is Decision.PAUSE
    rule.tell(raced(0, [1.0, 1.0], state=TrialState.PAUSED))
    assert rule.resume(is_last=False) is None
    assert rule.resume(is_last=True) == "t0000"


def test_a_worker_that_repeats_the_rung_of_the_pause_goes_on() -> None:
    """A worker that takes a trial up reports its newest rung again, as after a death."""
    table = SyntheticTable(0, World())
    study = Study.in_memory(
        space=table.space, ladder=table.ladder, n_trials=1, optimizer="random", stopping="fold_racing", seed=1
    )
    trial = study.next()
    assert trial is not None
    reports = [table.report(trial.config, rung) for rung in table.ladder]
    attempt = study.started(trial.trial_id)
    decisions = [study.observe(trial.trial_id, report, attempt) for report in reports[:2]]
    assert decisions == [Decision.CONTINUE, Decision.PAUSE]
    assert study.observe(trial.trial_id, reports[1], attempt) is Decision.PAUSE
    assert study.next() == study.trials[trial.trial_id]
    again = study.started(trial.trial_id)
    assert study.observe(trial.trial_id, reports[1], attempt) is Decision.STOP
    assert study.observe(trial.trial_id, reports[1], again) is Decision.CONTINUE
    assert study.observe(trial.trial_id, reports[2], again) in (Decision.CONTINUE, Decision.PAUSE)


@pytest.mark.requirement("SEARCH-8")
def test_at_the_end_nobody_is_left_aside() -> None:
    """All trials are proposed, then every one goes on until it is complete or dropped by the test."""
    table = SyntheticTable(0, World())
    study = Study.in_memory(
        space=table.space, ladder=table.ladder, n_trials=30, optimizer="random", stopping="fold_racing", seed=1
    )
    steps = simulate(study, table, n_workers=4)
    counts = study.counts()
    assert counts[TrialState.COMPLETE] + counts[TrialState.STOPPED] == 30
    assert any(step.decision is Decision.PAUSE for step in steps)
    assert study.is_done


def test_what_cannot_gain_enough_stays_aside_at_the_end() -> None:
    assert rule_with([2.0, 1.5], least_gain=0.01).resume(is_last=True) is None
    assert rule_with([2.0, -0.1], least_gain=0.01).resume(is_last=True) == "t0022"
    nothing_complete = FoldRacing(Objective(), N_FOLDS, least_gain=100.0)
    for number in range(20):
        nothing_complete.tell(raced(number, [float(number), number + 0.1], state=TrialState.PAUSED))
    assert nothing_complete.resume(is_last=True) == "t0000"


def test_a_search_that_leaves_the_hopeless_aside_ends_earlier_with_as_good_a_trial() -> None:
    table = SyntheticTable(0, World())

    def ended(least_gain: float) -> tuple[float, Study]:
        rule = {"name": "fold_racing", "least_gain": least_gain}
        study = Study.in_memory(
            space=table.space, ladder=table.ladder, n_trials=30, optimizer="random", stopping=rule, seed=1
        )
        steps = simulate(study, table, n_workers=4)
        assert study.is_done
        assert study.counts()[TrialState.RUNNING] == 0
        return steps[-1].folds, study

    whole, early = ended(0.0), ended(0.01)
    assert early[0] < whole[0]
    assert early[1].counts()[TrialState.PAUSED] > 0
    best = [study.best() for _, study in (whole, early)]
    assert best[0] is not None
    assert best[1] is not None
    assert best[0].config == best[1].config
