"""Stop a trial whose predicted end is unlikely to be the best: a surrogate over configs reads learning curves.

A Gaussian process over configs and progress together (`search.optimizers.surrogate`) holds rungs of all trials, those
that were stopped included. It says what this trial will be worth at the end of the ladder. The trial goes on while its
chance of beating the best complete one is large enough: so a config that starts badly but lies where slow starters end
well goes on, and few epochs suffice where the region is known. What other partial trials promise does not count: were
it the bar, a stopped trial that promised much would keep all others from being trained to the end.

The idea of deciding by predicted ends is that of Swersky, Snoek, Adams (2014), "Freeze-thaw Bayesian optimization",
arXiv:1406.3896; here a trial that stops is not taken up again, for near it a new one costs a rung.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from search.objective import Objective
from search.optimizers.experience import Experience
from search.optimizers.gaussian_process import Prior
from search.optimizers.genome import Genome
from search.optimizers.surrogate import Surrogate
from search.space import Space
from search.trial import Decision, Rung, Trial, TrialState

N_FIRST = 4
"""Finished trials before the first fit of a kernel; before, the prior's own is used."""


class Predicted:
    """Go on while the chance of ending better than the best complete trial is at least `chance`.

    Nobody is stopped before a first trial is complete: until then no rung says anything about the end.

    Args:
        space: What configs are points of.
        objective: Metric and direction.
        chance: Between 0 and 1; the smaller, the fewer are stopped.
        n_points: Most rungs that the process holds.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(self, space: Space, objective: Objective, *, chance: float = 0.2, n_points: int = 200) -> None:
        if not 0 < chance < 1 or n_points < 20:
            raise ValueError(
                f"expected a chance between 0 and 1 and n_points of 20 or more, found {chance} and {n_points}"
            )
        self.objective = objective
        self.chance = chance
        self._experience = Experience(Genome(space), [objective], first_mark=N_FIRST)
        self._surrogate = Surrogate(self._experience, n_points=n_points, prior=Prior())
        self._is_any_complete = False

    def tell(self, trial: Trial) -> None:
        self._experience.tell(trial)
        self._is_any_complete |= trial.state is TrialState.COMPLETE

    def decide(self, trial: Trial) -> Decision:
        if not self._is_any_complete or self.objective.loss(trial) is None:
            return Decision.CONTINUE
        seen = self._surrogate.forecast(trial, view="plain", weights=np.ones(1))
        if not len(seen.complete):
            return Decision.CONTINUE
        chance = ndtr((seen.complete.min() - seen.mean) / seen.deviation)
        return Decision.CONTINUE if chance >= self.chance else Decision.STOP


def predicted(
    *, space: Space, objectives: Sequence[Objective], ladder: Sequence[Rung], chance: float = 0.2, n_points: int = 200
) -> Predicted:
    """Make the rule for the first objective."""
    return Predicted(space, objectives[0], chance=chance, n_points=n_points)
