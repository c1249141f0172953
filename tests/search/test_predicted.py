"""The rule that stops by predicted ends, on learning curves whose form is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.simulated import simulate
from search.objective import Objective
from search.space import Float, Space
from search.stopping.predicted import Predicted
from search.study import Study
from search.trial import Config, Decision, Observation, Rung, Trial, TrialState, ladder
from tests.search.toy_search import running

SPACE = Space({"x": Float(low=0.0, high=1.0), "rate": Float(low=0.0, high=1.0)})
RUNGS = ladder(1, 8)


class Curves:
    """Ends at (x - 0.3)^2; until then the higher the rate, the better a config looks at the beginning."""

    space = SPACE
    ladder = RUNGS

    def report(self, config: Config, rung: Rung) -> Observation:
        loss = self.true_loss(config) + (1 - rung.share) * (1.5 - config["rate"])
        metrics = {"val_loss": loss}
        return Observation(rung=rung.index, fold=0, share=rung.share, metrics=metrics, n_scored=1, seconds=1.0)

    def true_loss(self, config: Config) -> float:
        return float((config["x"] - 0.3) ** 2)


def seen(number: int, config: Config, n_rungs: int) -> Trial:
    trial = running(number, config)
    for rung in RUNGS[:n_rungs]:
        trial = trial.observed(Curves().report(config, rung))
    return replace(trial, state=TrialState.COMPLETE) if n_rungs == len(RUNGS) else trial


def experienced(**settings: Any) -> Predicted:
    """A rule that heard of twelve complete trials over the whole space; the best ends at about 0.01."""
    rule, rng = Predicted(SPACE, Objective(), **settings), np.random.default_rng(0)
    for number in range(12):
        rule.tell(seen(number, {"x": 0.4 + 0.05 * number, "rate": float(rng.random())}, len(RUNGS)))
    return rule


def test_a_slow_starter_that_will_end_best_goes_on_and_a_fast_one_that_will_not_is_stopped() -> None:
    rule = experienced()
    slow, fast = seen(20, {"x": 0.32, "rate": 0.05}, 1), seen(21, {"x": 0.75, "rate": 0.95}, 1)
    assert slow.observations[0].metrics["val_loss"] > fast.observations[0].metrics["val_loss"] + 0.5
    assert rule.decide(slow) is Decision.CONTINUE
    assert rule.decide(fast) is Decision.STOP


def test_the_bar_is_the_best_end_that_was_reached_not_one_that_was_promised() -> None:
    rule, middling = experienced(), seen(20, {"x": 0.36, "rate": 0.5}, 3)
    assert rule.decide(middling) is Decision.CONTINUE
    rule.tell(replace(seen(21, {"x": 0.3, "rate": 0.5}, 7), state=TrialState.STOPPED))
    assert rule.decide(middling) is Decision.CONTINUE
    rule.tell(seen(22, {"x": 0.3, "rate": 0.4}, 8))
    assert rule.decide(middling) is Decision.STOP


def test_nobody_is_stopped_before_a_trial_is_complete() -> None:
    rule = Predicted(SPACE, Objective())
    for number in range(10):
        rule.tell(seen(number, {"x": 0.3, "rate": 1.0}, 2))
    assert rule.decide(seen(11, {"x": 1.0, "rate": 0.0}, 2)) is Decision.CONTINUE


def test_the_larger_the_chance_that_is_asked_for_the_more_are_stopped() -> None:
    trials = [seen(20 + k, {"x": 0.35 + 0.002 * k, "rate": 0.5}, 1) for k in range(60)]
    stopped = [sum(experienced(chance=c).decide(t) is Decision.STOP for t in trials) for c in (0.01, 0.2, 0.6)]
    assert stopped == sorted(stopped)
    assert stopped[0] < stopped[-1]


@pytest.mark.parametrize("settings", [{"chance": 0.0}, {"chance": 1.0}, {"n_points": 3}])
def test_wrong_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="chance between 0 and 1 and n_points of 20 or more"):
        Predicted(SPACE, Objective(), **settings)


def test_a_search_comes_nearer_to_the_best_end_than_one_that_trains_all_to_the_end() -> None:
    """Both get the epochs of six whole trials; what looks good early is told by rate, what ends well by x."""

    def regret(rule: str, seed: int) -> float:
        arguments = {"optimizer": "evolutionary_bayesian", "stopping": rule, "n_trials": 1000, "seed": seed}
        study = Study.in_memory(space=SPACE, ladder=RUNGS, **arguments)
        simulate(study, Curves(), n_workers=1, most_folds=6.0)
        best = study.best()
        assert best is not None
        return Curves().true_loss(best.config)

    medians = [np.median([regret(rule, seed) for seed in range(5)]) for rule in ("predicted", "none")]
    assert medians[0] < medians[1] / 3
