"""The rule that lets every trial run to the end of the ladder."""

from __future__ import annotations

from collections.abc import Sequence

from search.objective import Objective
from search.space import Space
from search.trial import Decision, Rung, Trial


class NeverStop:
    """Continue always."""

    def tell(self, trial: Trial) -> None:
        """Learn nothing."""

    def decide(self, trial: Trial) -> Decision:
        return Decision.CONTINUE


def never(*, space: Space, objectives: Sequence[Objective], ladder: Sequence[Rung]) -> NeverStop:
    """Make the rule; it looks at neither."""
    return NeverStop()
