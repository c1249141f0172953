"""What every stopping rule must do, and the tables of each."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import stopping
from search.errors import SpaceError
from search.objective import Objective
from search.stopping.asha import Asha
from search.trial import Decision, Observation, Trial
from tests.search.toy_search import OBJECTIVES, observed, running

RULES = {"none": {}, "asha": {"min_folds": 1, "eta": 2}}


def at(number: int, *losses: float) -> Trial:
    return running(number, {}, losses)


def in_order(rule: Asha, losses: list[float]) -> list[bool]:
    """Report one fold of one trial after the other; return who goes on."""
    trials = [at(number, loss) for number, loss in enumerate(losses)]
    return [rule.decide(trial, trials[:number]) is Decision.CONTINUE for number, trial in enumerate(trials)]


@pytest.mark.parametrize("name", RULES)
def test_a_decision_is_pure_and_ignores_the_order_of_the_others(name: str) -> None:
    rule = stopping.make(name, objectives=OBJECTIVES, **RULES[name])
    trial, others = at(9, 2.0, 2.0), [at(number, float(number), 1.0) for number in range(5)]
    before = copy.deepcopy((trial, others))
    first = rule.decide(trial, others)
    rule.decide(others[0], [trial])
    assert rule.decide(trial, others[::-1]) is first
    assert (trial, others) == before


@pytest.mark.parametrize("name", RULES)
def test_the_first_trial_goes_on(name: str) -> None:
    assert stopping.make(name, objectives=OBJECTIVES, **RULES[name]).decide(at(0, 5.0), []) is Decision.CONTINUE


@pytest.mark.requirement("SEARCH-8")
def test_asha_against_a_table_by_hand() -> None:
    # n seen, kept = max(1, n // 3), better ones:  1,1,0  2,1,0  3,1,2  4,1,1  5,1,0  6,2,1  7,2,2  8,2,2  9,3,2
    losses = [5.0, 4.0, 6.0, 4.5, 3.0, 3.5, 3.9, 3.9, 3.8]
    assert in_order(Asha(Objective(), eta=3), losses) == [True, True, False, False, True, True, False, False, True]


def test_asha_on_a_metric_to_maximise() -> None:
    def trial(number: int, ic: float) -> Trial:
        return replace(at(number), observations=(observed(0, 0.0, ic=ic),))

    rule = Asha(Objective("ic", "max"), eta=2)
    others = [trial(0, 0.01), trial(1, 0.02), trial(2, 0.05)]  # with the fourth, two are kept
    assert rule.decide(trial(3, 0.03), others) is Decision.CONTINUE
    assert rule.decide(trial(3, 0.015), others) is Decision.STOP


@pytest.mark.parametrize(
    ("min_folds", "eta", "milestones"), [(1, 3, [1, 3, 9, 27]), (2, 2, [2, 4, 8, 16]), (3, 4, [3, 12])]
)
def test_asha_decides_only_at_milestones(min_folds: int, eta: int, milestones: list[int]) -> None:
    rule = Asha(Objective(), min_folds=min_folds, eta=eta)
    assert [n for n in range(1, 31) if rule.is_milestone(n)] == milestones


def test_asha_waits_for_whole_folds() -> None:
    half = Observation(rung=0, fold=0, share=0.5, metrics={"val_loss": 9.0}, n_scored=100, seconds=1.0)
    trial = replace(at(5), observations=(half,))
    assert Asha(Objective(), eta=2).decide(trial, [at(0, 1.0), at(1, 1.0)]) is Decision.CONTINUE


def test_asha_compares_on_the_same_folds_only() -> None:
    """The third fold is hard. A trial with three folds is not compared with the single easy fold of another."""
    rule = Asha(Objective(), eta=3)
    late = at(7, 1.0, 1.0, 9.0)
    assert rule.decide(late, [at(number, 0.5) for number in range(4)]) is Decision.CONTINUE
    assert rule.decide(late, [at(number, 1.1, 1.1, 9.1) for number in range(2)]) is Decision.CONTINUE
    assert rule.decide(late, [at(number, 0.9, 0.9, 8.9, 0.1) for number in range(2)]) is Decision.STOP


def test_asha_weighs_folds_by_scored_timestamps() -> None:
    def trial(number: int, first: float, last: float) -> Trial:
        small, large = observed(0, first), replace(observed(1, last), n_scored=900)
        return replace(at(number), observations=(small, large))

    rule = Asha(Objective(), min_folds=2, eta=2)  # means 0.1 * first + 0.9 * last: 1.9 against 1.0 and 1.0
    assert rule.decide(trial(2, 1.0, 2.0), [trial(0, 10.0, 0.0), trial(1, 10.0, 0.0)]) is Decision.STOP
    assert rule.decide(trial(2, 9.0, 0.0), [trial(0, 10.0, 0.0), trial(1, 10.0, 0.0)]) is Decision.CONTINUE


@given(
    quality=st.lists(st.floats(0, 10), min_size=2, max_size=12, unique=True),
    fold_effects=st.lists(st.floats(-5, 5), min_size=9, max_size=9),
    seed=st.integers(0, 2**16),
    eta=st.integers(2, 4),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.requirement("SEARCH-8")
def test_asha_never_stops_the_best_where_there_is_no_noise(
    quality: list[float], fold_effects: list[float], seed: int, eta: int
) -> None:
    """Loss = quality of the trial + difficulty of the fold, in any order of arrival."""
    rng, rule = np.random.default_rng(seed), Asha(Objective(), eta=eta)
    quality = [round(q, 3) + 1e-3 * k for k, q in enumerate(sorted(quality))]
    trials = [at(number) for number in range(len(quality))]
    alive = set(range(len(quality)))
    while alive:
        k = int(rng.choice(sorted(alive)))
        n_done = len(trials[k].observations)
        loss = quality[k] + fold_effects[n_done]
        seen = Observation(
            rung=n_done, fold=n_done, share=1.0, metrics={"val_loss": loss}, n_scored=10 + n_done, seconds=0.1
        )
        trials[k] = trials[k].observed(seen)
        others = [t for t in trials if t.number != k]
        if n_done + 1 == len(fold_effects) or rule.decide(trials[k], others) is Decision.STOP:
            alive.remove(k)
    assert len(trials[0].observations) == len(fold_effects)


@pytest.mark.parametrize(
    ("name", "given_settings", "message"),
    [("ahsa", {}, "did you mean asha"), ("asha", {"eta": 1}, "eta >= 2"), ("asha", {"grace": 1}, "grace")],
)
def test_wrong_rules_are_refused(name: str, given_settings: dict[str, int], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        stopping.make(name, objectives=OBJECTIVES, **given_settings)
