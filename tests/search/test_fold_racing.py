"""Fold racing: who is dropped by hand-made evidence, what alpha is spent on, and its calibration in whole searches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from cluster.simulated import simulate
from cluster.synthetic_tables import SyntheticTable, World
from search.objective import Objective
from search.stopping.fold_racing import FoldRacing
from search.study import Study
from search.trial import Decision, Observation, Trial, TrialState
from tests.search.toy_search import running

N_FOLDS = 8
in_order = partial(FoldRacing, best_first=False)
"""Without pausing: what the test alone decides."""


def raced(number: int, losses: list[float], *, metric: str = "val_loss", blocks: bool = False, **fields: Any) -> Trial:
    """A trial with these fold losses; blocks wobble by 0.01 around them."""
    wobble = 0.01 * np.random.default_rng(number).standard_normal((len(losses), 16))
    seen = tuple(
        Observation(
            rung=k,
            fold=k,
            share=1.0,
            metrics={metric: loss},
            n_scored=250,
            seconds=1.0,
            blocks=tuple(loss + wobble[k] - wobble[k].mean()) if blocks else (),
        )
        for k, loss in enumerate(losses)
    )
    return replace(running(number, {}), observations=seen, **fields)


def rule_with_a_field(seed: int = 0, spread: float = 0.1, n: int = 20, **settings: Any) -> FoldRacing:
    """A rule that has heard complete trials around a loss of 1, so that it knows how much folds differ."""
    rule, rng = in_order(Objective(), N_FOLDS, **{"margin": 0.0, **settings}), np.random.default_rng(seed)
    for number in range(n):
        losses = 1.0 + spread * rng.standard_normal(N_FOLDS)
        rule.tell(raced(number, losses.tolist(), state=TrialState.COMPLETE))
    return rule


def decide(rule: FoldRacing, losses: list[float], **fields: Any) -> Decision:
    return rule.decide(raced(99, losses, **fields))


def test_a_bad_trial_leaves_after_one_fold_and_an_equal_one_stays() -> None:
    rule = rule_with_a_field()
    assert decide(rule, [3.0]) is Decision.STOP
    assert decide(rule, [1.0]) is Decision.CONTINUE
    assert decide(rule, [1.1, 1.2, 1.0]) is Decision.CONTINUE
    assert decide(rule, [1.4, 1.3, 1.4, 1.5]) is Decision.STOP


def test_without_knowledge_of_the_spread_one_fold_drops_nobody() -> None:
    assert decide(rule_with_a_field(n=1), [50.0]) is Decision.CONTINUE
    assert decide(rule_with_a_field(n=3), [50.0]) is Decision.STOP


def test_a_few_trials_after_two_folds_tell_how_much_folds_scatter() -> None:
    """Six trials of two folds, nobody complete: the leader is one of six that could have been it."""
    rule, rng = in_order(Objective(), N_FOLDS, margin=0.0), np.random.default_rng(5)
    for number in range(6):
        losses = [1.0, 4.0] + 0.1 * rng.standard_normal(2)
        assert decide(rule, [9.0]) is Decision.CONTINUE
        rule.tell(raced(number, losses.tolist()))
    rule.tell(raced(6, [1.0, 4.1]))
    rule.tell(raced(7, [1.1, 4.0]))
    assert decide(rule, [9.0]) is Decision.STOP
    assert decide(rule, [1.1]) is Decision.CONTINUE


def test_the_spread_of_a_trial_is_what_the_world_gave_it() -> None:
    """Folds differ by 5 for everyone and by 0.3 for each trial alone; a difference to four leaders has 1.25 as much."""
    rule, rng = in_order(Objective(), N_FOLDS), np.random.default_rng(6)
    difficulty = 5 * rng.standard_normal(N_FOLDS)
    for number in range(200):
        n = int(rng.integers(2, N_FOLDS + 1))
        quality = rng.standard_normal()
        rule.tell(raced(number, (quality + difficulty + 0.3 * rng.standard_normal(N_FOLDS))[:n].tolist()))
    prior = rule._spreads.prior(4)
    assert prior is not None
    assert prior.variance == pytest.approx(1.25 * 0.09, rel=0.1)


def test_a_trial_is_held_against_the_mean_of_the_leaders() -> None:
    """One complete trial was lucky on the folds of the test; alone it would drop whom the mean of four keeps."""
    lucky = [0.4, 0.4, 0.4, 1.0, 1.0, 1.0, 1.0, 0.9]
    rest = [[1.0, 1.1, 0.9, 1.0, 1.1, 1.0, 0.9, 1.0], [1.1, 0.9, 1.0, 1.0, 0.9, 1.1, 1.0, 1.0]]
    decisions = {}
    for leaders in (1, 4):
        rule = in_order(Objective(), N_FOLDS, leaders=leaders, margin=0.0)
        for number, losses in enumerate([lucky, *rest * 4]):
            rule.tell(raced(number, losses, state=TrialState.COMPLETE))
        decisions[leaders] = decide(rule, [1.0, 0.9, 1.1])
    assert decisions == {1: Decision.STOP, 4: Decision.CONTINUE}


def test_folds_that_are_hard_for_all_drop_nobody() -> None:
    difficulty = np.array([0.0, 5.0, -3.0, 9.0, 0.0, 0.0, 0.0, 0.0])
    rule, rng = in_order(Objective(), N_FOLDS), np.random.default_rng(1)
    for number in range(20):
        rule.tell(raced(number, (difficulty + 0.1 * rng.standard_normal(N_FOLDS)).tolist()))
    assert decide(rule, [0.0, 5.0, -3.0, 9.0]) is Decision.CONTINUE
    assert decide(rule, [1.0, 6.0, -2.0, 10.0]) is Decision.STOP


def test_nobody_is_dropped_before_the_first_look_and_in_the_final_folds() -> None:
    rule = rule_with_a_field(min_folds=2, final_folds=3)
    assert rule.looks == (2, 3, 4, 5)
    decisions = [decide(rule, [9.0] * n) for n in range(1, N_FOLDS)]
    assert [d is Decision.STOP for d in decisions] == [False, True, True, True, True, False, False]
    assert in_order(Objective(), 1).looks == ()


def test_only_whole_folds_are_looked_at() -> None:
    trial = raced(99, [9.0])
    partial = replace(trial, observations=(replace(trial.observations[0], share=0.5),))
    assert rule_with_a_field().decide(partial) is Decision.CONTINUE


def test_blocks_that_disagree_with_each_other_keep_a_trial() -> None:
    """Folds say worse; inside the folds the loss wanders so much that it may be chance."""
    rule, rng = in_order(Objective(), N_FOLDS), np.random.default_rng(2)
    for number in range(20):
        rule.tell(raced(number, (1 + 0.1 * rng.standard_normal(N_FOLDS)).tolist(), blocks=True))
    calm = raced(99, [2.0], blocks=True)
    assert rule.decide(calm) is Decision.STOP
    walk = 20 * np.cos(np.pi * (np.arange(16) + 0.5) / 16)
    wild = replace(calm, observations=(replace(calm.observations[0], blocks=tuple(2.0 + walk)),))
    assert rule.decide(wild) is Decision.CONTINUE


def test_a_margin_drops_who_cannot_matter() -> None:
    losses = [1.0, 1.02, 1.01, 0.99, 1.0, 1.01, 1.0]
    assert decide(rule_with_a_field(), losses) is Decision.CONTINUE
    assert decide(rule_with_a_field(margin=6.0), losses) is Decision.STOP
    assert decide(rule_with_a_field(margin=6.0), [0.5] * 7) is Decision.CONTINUE  # better by more than the margin


def test_trials_that_failed_lead_nobody() -> None:
    rule = in_order(Objective(), N_FOLDS)
    for number in range(20):
        rule.tell(raced(number, (1 + 0.1 * np.random.default_rng(number).standard_normal(2)).tolist()))
    rule.tell(raced(40, [-5.0, -5.0]))
    assert decide(rule, [1.0, 1.1]) is Decision.STOP
    rule.tell(raced(40, [-5.0, -5.0], state=TrialState.DIVERGED))
    assert decide(rule, [1.0, 1.1]) is Decision.CONTINUE


def test_a_metric_to_maximise_is_turned() -> None:
    rule, rng = in_order(Objective("ic", "max"), N_FOLDS), np.random.default_rng(3)
    for number in range(20):
        rule.tell(raced(number, (0.05 + 0.001 * rng.standard_normal(N_FOLDS)).tolist(), metric="ic"))
    assert decide(rule, [0.01, 0.01], metric="ic") is Decision.STOP
    assert decide(rule, [0.09, 0.09], metric="ic") is Decision.CONTINUE


WORLDS = {
    "plain": World(),
    "noisy": World(noise=4.0, interaction=0.6),
    "wild": World(unrest=1.0, tail=2.5, memory=0.8),
    "without blocks": World(noise=3.0, n_blocks=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_the_best_trial_of_a_search_is_dropped_no_more_often_than_alpha(name: str) -> None:
    """40 searches a world of 40 random trials with four workers; alpha 0.2, where a fault would show."""
    dropped = folds = 0.0
    for seed in range(40):
        table = SyntheticTable(seed, WORLDS[name])
        study = Study.in_memory(
            space=table.space,
            ladder=table.ladder,
            n_trials=40,
            optimizer="random",
            stopping={"name": "fold_racing", "alpha": 0.2, "margin": 0.0},
            seed=seed,
        )
        folds += simulate(study, table, n_workers=4)[-1].folds
        best = min(study.trials.values(), key=lambda trial: table.true_loss(trial.config))
        dropped += best.state is TrialState.STOPPED
    assert binomtest(int(dropped), 40, 0.2, alternative="greater").pvalue > 0.01
    assert folds < 0.75 * 40 * 40 * 10  # it saves something, too
