"""Optimizers: they propose configs and learn from results, and run nothing.

One file per idea. A new one is a file here, a line in `TABLE`, and passes `tests/contracts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from search.objective import Objective
from search.table import build
from search.trial import Config, Trial, TrialState

if TYPE_CHECKING:
    from search.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A config that an optimizer wants to see tried.

    Attributes:
        config: Complete and free of dead parameters.
        origin: Which part of the optimizer proposed it.
        generation: None lets the study count populations.
        parents: Trial ids; empty where it has none.
        note: JSON values that the optimizer wants back in `Trial.note`, live and on replay alike.
        inherit: Id of the trial whose weights its folds shall begin with; empty for initial ones.
    """

    config: Config
    origin: str
    generation: int | None = None
    parents: tuple[str, ...] = ()
    note: Mapping[str, Any] = field(default_factory=dict)
    inherit: str = ""


class Optimizer(Protocol):
    """The contract: the journal prefix determines every proposal, so replay tells events and never samples."""

    def ask(self, number: int, seed: int) -> Proposal:
        """Propose a config: a pure function of what was told before and of the two arguments.

        It may cache, but changes no state: asked twice it answers the same. Proposals of trials that run at the same
        time differ wherever the space has room.

        Args:
            number: Number that the trial will have.
            seed: The only source of randomness.
        """

    def tell(self, trial: Trial) -> None:
        """Hear a trial at every change of it: proposed (running, no observations), observed, finished."""


UNTRAINABLE = (TrialState.INFEASIBLE, TrialState.OUT_OF_MEMORY, TrialState.DIVERGED)
"""Ends that are the config's own doing; failed and lost trials say nothing about theirs."""

TABLE: Mapping[str, str] = {
    "random": "search.optimizers.random_search:random_search",
    "grid": "search.optimizers.random_search:grid_search",
    "evolutionary_bayesian": "search.optimizers.evolutionary_bayesian:evolutionary_bayesian",
    "tpe": "search.optimizers.optuna_samplers:tpe",
    "gp": "search.optimizers.optuna_samplers:gaussian_process",
    "cma_es": "search.optimizers.cma_es:cma_es",
    "nsga2": "search.optimizers.optuna_samplers:nsga2",
    "nsga3": "search.optimizers.optuna_samplers:nsga3",
    "population_based": "search.optimizers.population_based:population_based",
    "qmc": "search.optimizers.quasi_random:quasi_random",
}
"""Name in a space file -> the function that makes it."""


def make(
    name: str, space: Space, *, objectives: Sequence[Objective], population: int, seed: int, **settings: Any
) -> Optimizer:
    """Make the optimizer of this name.

    Args:
        name: Key of `TABLE`, or `module:function` of an optimizer that lives elsewhere.
        space: What may vary.
        objectives: At least one; those with a single objective refuse more.
        population: Trials per generation.
        seed: Seed of the search, for what must stay the same over all proposals (a scrambled sequence).
        settings: Passed on to the optimizer.

    Raises:
        SpaceError: No optimizer has this name, or a setting is unknown or wrong.
    """
    found = build(
        TABLE, "search.optimizer", name, space, objectives=objectives, population=population, seed=seed, **settings
    )
    return cast(Optimizer, found)
