"""What every stopping rule must do, and the tables of each."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search import stopping
from search.errors import SpaceError
from search.objective import Objective
from search.stopping.asha import Asha
from search.stopping.hyperband import Hyperband, bracket_order, bracket_starts
from search.trial import Decision, Observation, Trial, TrialState
from tests.search.toy_search import OBJECTIVES, RUNGS, SMOOTH, observed, running

RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "asha": {"min_folds": 1, "eta": 2},
    "hyperband": {"min_folds": 1, "eta": 2},
    "dominated": {"min_folds": 1, "eta": 2},
    "fold_racing": {},
    "predicted": {},
}


def at(number: int, *losses: float) -> Trial:
    return running(number, {}, losses)


def goes_on(rule: stopping.StoppingRule, trial: Trial, others: Iterable[Trial] = ()) -> bool:
    """Tell the rule of the others, then ask about the trial."""
    for other in others:
        rule.tell(other)
    return rule.decide(trial) is Decision.CONTINUE


def in_order(rule: Asha, losses: list[float]) -> list[bool]:
    """Report one fold of one trial after the other; return who goes on."""
    found = []
    for number, loss in enumerate(losses):
        found.append(goes_on(rule, at(number, loss)))
        rule.tell(at(number, loss))
    return found


def made(name: str) -> stopping.StoppingRule:
    return stopping.make(name, space=SMOOTH, objectives=OBJECTIVES, ladder=RUNGS, **RULES[name])


@pytest.mark.parametrize("name", RULES)
def test_a_decision_is_pure_and_ignores_the_order_in_which_others_came(name: str) -> None:
    trial, others = at(9, 2.0, 2.0), [at(number, float(number), 1.0) for number in range(5)]
    before = copy.deepcopy((trial, others))
    rule = made(name)
    first = goes_on(rule, trial, others)
    assert goes_on(rule, at(10, 9.0)) == goes_on(made(name), at(10, 9.0), others)  # asking about 9 changed nothing
    assert goes_on(rule, trial) == first
    assert goes_on(made(name), trial, others[::-1]) == first
    assert (trial, others) == before


@pytest.mark.parametrize("name", RULES)
def test_a_trial_told_again_or_in_pieces_counts_once(name: str) -> None:
    others = [at(number, float(number), 1.0) for number in range(12)]
    pieces = [at(number, *losses) for number in range(12) for losses in ((), (float(number),), (float(number), 1.0))]
    for trial in (at(20, 0.5), at(21, 3.0), at(22, 5.0, 1.0), at(23, 11.0, 9.0)):
        assert goes_on(made(name), trial, others) == goes_on(made(name), trial, [*pieces, *others])


@pytest.mark.parametrize("name", RULES)
def test_the_first_trial_goes_on(name: str) -> None:
    assert goes_on(made(name), at(0, 5.0))


@pytest.mark.parametrize("name", RULES)
def test_trials_that_ended_badly_and_values_that_are_missing_do_no_harm(name: str) -> None:
    broken = [replace(at(number, 1.0), state=state) for number, state in enumerate(TrialState)]
    blind = replace(at(30), observations=(replace(observed(0, 1.0), metrics={}),))
    assert goes_on(made(name), blind, [*broken, blind, at(31)])
    assert goes_on(made(name), at(32, -5.0), [*broken, blind, at(31)])


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
    assert goes_on(rule, trial(3, 0.03), others)
    assert not goes_on(rule, trial(3, 0.015))


@pytest.mark.parametrize(
    ("min_folds", "eta", "milestones"), [(1, 3, [1, 3, 9, 27]), (2, 2, [2, 4, 8, 16]), (3, 4, [3, 12])]
)
def test_asha_decides_only_at_milestones(min_folds: int, eta: int, milestones: list[int]) -> None:
    rule = Asha(Objective(), min_folds=min_folds, eta=eta)
    assert [n for n in range(1, 31) if rule.is_milestone(n)] == milestones


def test_asha_waits_for_whole_folds() -> None:
    half = Observation(rung=0, fold=0, share=0.5, metrics={"val_loss": 9.0}, n_scored=100, seconds=1.0)
    trial = replace(at(5), observations=(half,))
    assert goes_on(Asha(Objective(), eta=2), trial, [at(0, 1.0), at(1, 1.0)])


def test_asha_compares_on_the_same_folds_only() -> None:
    """The third fold is hard. A trial with three folds is not compared with the single easy fold of another."""
    late = at(7, 1.0, 1.0, 9.0)
    for count, losses, expected in (
        (4, (0.5,), True),
        (2, (1.1, 1.1, 9.1), True),
        (2, (0.9, 0.9, 8.9, 0.1), False),
    ):
        others = [at(number, *losses) for number in range(count)]
        assert goes_on(Asha(Objective(), eta=3), late, others) == expected


def test_asha_weighs_folds_by_scored_timestamps() -> None:
    def trial(number: int, first: float, last: float) -> Trial:
        small, large = observed(0, first), replace(observed(1, last), n_scored=900)
        return replace(at(number), observations=(small, large))

    rule = Asha(Objective(), min_folds=2, eta=2)  # means 0.1 * first + 0.9 * last: 1.9 against 1.0 and 1.0
    assert not goes_on(rule, trial(2, 1.0, 2.0), [trial(0, 10.0, 0.0), trial(1, 10.0, 0.0)])
    assert goes_on(rule, trial(2, 9.0, 0.0))


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
        if n_done + 1 == len(fold_effects) or not goes_on(rule, trials[k]):
            alive.remove(k)
        rule.tell(trials[k])
    assert len(trials[0].observations) == len(fold_effects)


@pytest.mark.parametrize(
    ("name", "given_settings", "message"),
    [
        ("hyperband", {"min_folds": 5}, "min_folds of 1 to 4"),
        ("fold_racing", {"alpha": 1.0}, r"alpha in \(0, 1\)"),
        ("ahsa", {}, "did you mean asha"),
        ("asha", {"eta": 1}, "eta >= 2"),
        ("asha", {"grace": 1}, "grace"),
    ],
)
def test_wrong_rules_are_refused(name: str, given_settings: dict[str, float], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        stopping.make(name, space=SMOOTH, objectives=OBJECTIVES, ladder=RUNGS, **given_settings)


# Hyperband.


def test_brackets_have_the_proportions_of_the_paper() -> None:
    """Li et al. 2018, table 1, for R = 81 and eta = 3: trials that begin with 1, 3, 9, 27 and 81."""
    assert bracket_starts(81, 1, 3) == (1, 3, 9, 27, 81)
    order = bracket_order(5, 3)
    assert [order.count(bracket) for bracket in range(5)] == [81, 34, 15, 8, 5]
    assert {*order[:5]} >= {0, 1, 2}  # filled side by side


def test_trials_are_judged_within_their_bracket() -> None:
    rule = Hyperband(Objective(), 9, eta=3)
    early = [n for n in range(40) if rule.bracket_of(at(n)).min_folds == 1]
    late = [n for n in range(40) if rule.bracket_of(at(n)).min_folds == 3]
    for number in early[:5]:
        rule.tell(at(number, 1.0))
    assert not goes_on(rule, at(early[6], 2.0))
    assert goes_on(rule, at(late[0], 2.0))
    assert goes_on(rule, at(late[0], 2.0, 2.0))
    for number in late[1:4]:
        rule.tell(at(number, 1.0, 1.0, 1.0))
    assert not goes_on(rule, at(late[0], 2.0, 2.0, 2.0))
