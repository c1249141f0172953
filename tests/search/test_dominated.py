"""Stopping by dominance, and the Pareto set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study._multi_objective import _fast_non_domination_rank

from search.objective import Constraint, Objective
from search.pareto import pareto_rows, pareto_set
from search.stopping.asha import Asha
from search.stopping.dominated import Dominated, dominates
from search.trial import Decision, Trial, TrialState
from tests.search.toy_search import observed, running

BOTH = (Objective(), Objective("ic", "max"))
levels = st.integers(0, 3).map(float)
points = st.lists(st.tuples(levels, levels), min_size=1, max_size=12)


def trial_of(number: int, loss: float, ic: float, state: TrialState = TrialState.RUNNING) -> Trial:
    return replace(running(number, {}).observed(observed(0, loss, ic=ic)), state=state)


@given(points)
@settings(max_examples=60, deadline=None)
@pytest.mark.requirement("SEARCH-19")
def test_the_pareto_set_is_that_of_optuna_whatever_the_order(found: list[tuple[float, float]]) -> None:
    trials = [trial_of(k, loss, -cost, TrialState.COMPLETE) for k, (loss, cost) in enumerate(found)]
    ranks = _fast_non_domination_rank(np.array(found))
    expected = {t.trial_id for t, rank in zip(trials, ranks, strict=True) if rank == 0}
    assert {t.trial_id for t in pareto_set(trials, BOTH)} == expected
    assert pareto_set(trials[::-1], BOTH) == pareto_set(trials, BOTH)


def test_only_complete_trials_within_the_constraints_are_in_it() -> None:
    states = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE, TrialState.DIVERGED)
    trials = [trial_of(k, 5.0 - k, 0.0, state) for k, state in enumerate(states)]
    assert [t.trial_id for t in pareto_set(trials, BOTH)] == ["t0000"]
    told = pareto_rows(trials, BOTH, [Constraint("latency_ms", "max", 3.0)])
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["constraints"] == [{"metric": "latency_ms", "max": 3.0}]
    assert told["trials"][0]["values"] == {"val_loss": 5.0, "ic": 0.0}


@given(points, st.tuples(levels, levels))
@settings(max_examples=60, deadline=None)
def test_what_nothing_dominates_goes_on_and_what_many_dominate_stops(
    found: list[tuple[float, float]], own: tuple[float, float]
) -> None:
    rule = Dominated(BOTH, eta=2)
    for number, (loss, cost) in enumerate(found):
        rule.tell(trial_of(number, loss, -cost))
    n_better = sum(loss <= own[0] and cost <= own[1] and (loss, cost) != own for loss, cost in found)
    goes_on = rule.decide(trial_of(99, own[0], -own[1])) is Decision.CONTINUE
    assert goes_on == (n_better < max(1, (len(found) + 1) // 2))


@given(st.lists(levels, max_size=12), levels)
@settings(max_examples=40, deadline=None)
def test_one_objective_is_asha(losses: list[float], own: float) -> None:
    rules = Dominated((Objective(),), eta=3), Asha(Objective(), eta=3)
    for number, loss in enumerate(losses):
        for rule in rules:
            rule.tell(running(number, {}, [loss]))
    assert rules[0].decide(running(99, {}, [own])) == rules[1].decide(running(99, {}, [own]))


def test_a_trial_without_one_of_the_measures_goes_on() -> None:
    rule = Dominated(BOTH, eta=2)
    for number in range(6):
        rule.tell(trial_of(number, 0.0, 1.0))
    assert rule.decide(running(9, {}, [50.0])) is Decision.CONTINUE
    assert rule.decide(trial_of(9, 50.0, 0.0)) is Decision.STOP


def test_dominance_is_strict() -> None:
    assert dominates((1.0, 2.0), (1.0, 3.0))
    assert not dominates((1.0, 2.0), (1.0, 2.0))
    assert not dominates((1.0, 4.0), (1.5, 3.0))
