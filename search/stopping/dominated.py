"""Stopping by dominance: asynchronous successive halving for several objectives."""

from __future__ import annotations

from collections.abc import Sequence

from search.objective import Objective
from search.space import Space
from search.stopping.asha import Asha
from search.trial import Decision, Rung, Trial

Point = tuple[float, ...]


class Dominated:
    """At 1, eta, eta^2, ... times `min_folds` complete folds only trials go on that few others dominate.

    A trial's place is the number of trials with the same folds that dominate it there: no worse in any objective and
    better in one (Fonseca, Fleming 1993, "Genetic algorithms for multiobjective optimization", section 3). It goes on
    while fewer than 1/eta of all that came so far do: what nothing dominates always goes on. With a single objective
    this is ASHA.

    Args:
        objectives: What is compared, at least one.
        min_folds: Folds of the first milestone, at least 1.
        eta: About one in eta goes on, at least 2.

    Raises:
        ValueError: `min_folds` or `eta` is too small.
    """

    def __init__(self, objectives: Sequence[Objective], *, min_folds: int = 1, eta: int = 3) -> None:
        self.objectives = tuple(objectives)
        self._milestones = Asha(objectives[0], min_folds=min_folds, eta=eta)
        self.eta = eta
        self._points: dict[tuple[int, ...], list[Point]] = {}
        self._n_heard: dict[str, int] = {}

    def tell(self, trial: Trial) -> None:
        """Keep where the trial stands at every milestone that it has newly reached."""
        folds = tuple(trial.by_fold())
        for n in range(self._n_heard.get(trial.trial_id, 0) + 1, len(folds) + 1):
            point = self._point(folds[:n], trial) if self._milestones.is_milestone(n) else None
            if point is not None:
                self._points.setdefault(folds[:n], []).append(point)
        self._n_heard[trial.trial_id] = len(folds)

    def decide(self, trial: Trial) -> Decision:
        folds = tuple(trial.by_fold())
        if trial.observations[-1].share < 1.0 or not self._milestones.is_milestone(len(folds)):
            return Decision.CONTINUE
        own = self._point(folds, trial)
        if own is None:
            return Decision.CONTINUE
        rivals = self._points.get(folds, [])
        n_kept = max(1, (len(rivals) + 1) // self.eta)
        return Decision.CONTINUE if sum(dominates(rival, own) for rival in rivals) < n_kept else Decision.STOP

    def _point(self, folds: Sequence[int], trial: Trial) -> Point | None:
        losses = [objective.loss_on(folds, trial) for objective in self.objectives]
        known = tuple(loss for loss in losses if loss is not None)
        return known if len(known) == len(losses) else None


def dominates(one: Point, other: Point) -> bool:
    """Say whether losses are nowhere larger and somewhere smaller than others; smaller is better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def dominated(
    *, space: Space, objectives: Sequence[Objective], ladder: Sequence[Rung], min_folds: int = 1, eta: int = 3
) -> Dominated:
    """Make the rule for all objectives."""
    return Dominated(objectives, min_folds=min_folds, eta=eta)
