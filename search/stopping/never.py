"""The rule that lets every trial run to the end of the ladder."""

from __future__ import annotations

from collections.abc import Sequence

from search.objective import Objective
from search.trial import Decision, Trial


class NeverStop:
    """Continue always."""

    def decide(self, trial: Trial, others: Sequence[Trial]) -> Decision:
        return Decision.CONTINUE


def never(*, objectives: Sequence[Objective]) -> NeverStop:
    """Make the rule; it looks at no objective."""
    return NeverStop()
