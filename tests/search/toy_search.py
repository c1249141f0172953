"""A search that needs no training: a mixed, conditional space and a loss in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.objective import Objective
from search.space import Choice, Fixed, Float, Int, Ordered, Space
from search.study import Study
from search.trial import Decision, Observation, Trial, TrialState, ladder

SPACE = Space(
    {
        "lr": Float(low=1e-5, high=1e-1, log=True),
        "dropout": Float(low=0.0, high=0.9, step=0.1),
        "depth": Int(low=1, high=9, step=2),
        "width": Int(low=4, high=1024, log=True),
        "lookback": Ordered(choices=(60, 120, 240, 390)),
        "kind": Choice(choices=("ssm", "attention", None, True, 1)),
        "heads": Int(low=1, high=8, when={"kind": "attention"}),
        "state": Ordered(choices=(16, 32, 64), when={"kind": ("ssm", "attention")}),
        "gate": Float(low=0.0, high=1.0, when={"state": 64}),
        "constant": Float(low=0.5, high=0.5),
        "horizons": Fixed(value=(1, 5)),
    }
)
ONE_POINT = Space({"lr": Float(low=0.1, high=0.1), "kind": Choice(choices=("ssm",)), "depth": 3})
SMOOTH = Space({"x": Float(low=-2.0, high=2.0), "y": Float(low=-2.0, high=2.0)})
RUNGS = ladder(4)
OBJECTIVES = (Objective(),)


def loss_of(config: Mapping[str, Any]) -> float:
    """Smallest at lr 1e-3, dropout 0.3, width 64; attention is a little better."""
    loss = (math.log10(config["lr"]) + 3) ** 2 + (config["dropout"] - 0.3) ** 2
    return loss + (math.log2(config["width"]) - 6) ** 2 / 10 - 0.2 * (config["kind"] == "attention")


def observed(rung: int, loss: float, **metrics: float) -> Observation:
    """Report of one whole fold with 100 scored timestamps."""
    point = RUNGS[rung]
    measures = {"val_loss": loss, **metrics}
    return Observation(rung=rung, fold=point.fold, share=point.share, metrics=measures, n_scored=100, seconds=0.5)


def running(number: int, config: Mapping[str, Any], losses: Sequence[float] = (), **fields: Any) -> Trial:
    """A trial that has reported these losses, one a fold."""
    return Trial(
        number=number,
        trial_id=f"t{number:04d}",
        config=dict(config),
        origin="test",
        generation=1,
        parents=(),
        seed=number,
        observations=tuple(observed(k, loss) for k, loss in enumerate(losses)),
        **fields,
    )


def run_trial(study: Study, trial: Trial, losses: Sequence[float]) -> TrialState:
    """Report losses, one a rung, until the study says stop; return the state of the trial then."""
    attempt = study.started(trial.trial_id)
    for rung in range(len(trial.observations), len(losses)):
        if study.observe(trial.trial_id, observed(rung, losses[rung]), attempt) is not Decision.CONTINUE:
            break
    return study.trials[trial.trial_id].state
