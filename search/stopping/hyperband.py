"""Hyperband on folds: brackets of successive halving that begin to stop at different depths (Li et al. 2018, JMLR 18).

Bracket s stops nobody before `min_folds` times eta^s folds, so that a search whose first folds mislead still has trials
that were judged late. As in the asynchronous form of Li et al. 2020, brackets are filled side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.objective import Objective
from search.space import Space
from search.stopping.asha import Asha
from search.trial import Decision, Rung, Trial


class Hyperband:
    """Brackets of `Asha`; the number of a trial says which is its own, in Hyperband's proportions.

    Args:
        objective: Metric and direction.
        n_folds: Folds of a complete trial.
        min_folds: First milestone of the earliest bracket, at least 1.
        eta: One in eta goes on at each milestone, at least 2.

    Raises:
        ValueError: A number is too small, or `min_folds` is above `n_folds`.
    """

    def __init__(self, objective: Objective, n_folds: int, *, min_folds: int = 1, eta: int = 3) -> None:
        starts = bracket_starts(n_folds, min_folds, eta)
        self.brackets = tuple(Asha(objective, min_folds=start, eta=eta) for start in starts)
        self._order = bracket_order(len(starts), eta)

    def tell(self, trial: Trial) -> None:
        self.bracket_of(trial).tell(trial)

    def decide(self, trial: Trial) -> Decision:
        return self.bracket_of(trial).decide(trial)

    def bracket_of(self, trial: Trial) -> Asha:
        """Return the rule of the trial's bracket."""
        return self.brackets[self._order[trial.number % len(self._order)]]


def bracket_starts(n_folds: int, min_folds: int, eta: int) -> tuple[int, ...]:
    """Return the first milestone of each bracket, earliest first; in the last bracket nobody is stopped.

    Raises:
        ValueError: A number is too small, or `min_folds` is above `n_folds`.
    """
    if not 1 <= min_folds <= n_folds or eta < 2:
        raise ValueError(
            f"expected min_folds of 1 to {n_folds} and eta >= 2, found min_folds={min_folds} and eta={eta}"
        )
    starts = [min_folds]
    while starts[-1] * eta <= n_folds:
        starts.append(starts[-1] * eta)
    return tuple(starts)


def bracket_order(n_brackets: int, eta: int) -> tuple[int, ...]:
    """Return the bracket of trial 0, 1, ...; it begins anew at its end.

    Proportions are those of algorithm 1 of Li et al. 2018: a bracket with k halvings left begins with
    ceil(n_brackets / (k + 1) * eta^k) trials. They are interleaved evenly: each next trial goes where most are due.
    """
    wanted = [math.ceil(n_brackets / (k + 1) * eta**k) for k in reversed(range(n_brackets))]
    total, given, order = sum(wanted), [0] * n_brackets, []
    for position in range(1, total + 1):
        due = max(range(n_brackets), key=lambda b: wanted[b] * position / total - given[b])
        given[due] += 1
        order.append(due)
    return tuple(order)


def hyperband(
    *, space: Space, objectives: Sequence[Objective], ladder: Sequence[Rung], min_folds: int = 1, eta: int = 3
) -> Hyperband:
    """Make the rule for the first objective."""
    return Hyperband(objectives[0], ladder[-1].fold + 1, min_folds=min_folds, eta=eta)
