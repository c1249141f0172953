"""Stopping rules: they look at observations and say continue or stop, and run nothing.

A new one is a file here and a line in `TABLE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from search.objective import Objective
from search.table import build
from search.trial import Decision, Trial


class StoppingRule(Protocol):
    """The contract: a decision is a pure function of the trials shown."""

    def decide(self, trial: Trial, others: Sequence[Trial]) -> Decision:
        """Say whether the trial goes on after its newest observation.

        Args:
            trial: Running; its newest observation is the last one and is not that of the last rung.
            others: Every other trial of the study, in order of number, as they are now.
        """


TABLE: Mapping[str, str] = {
    "none": "search.stopping.never:never",
    "asha": "search.stopping.asha:asha",
}
"""Name in a space file -> the function that makes it."""


def make(name: str, *, objectives: Sequence[Objective], **settings: Any) -> StoppingRule:
    """Make the stopping rule of this name.

    Args:
        name: Key of `TABLE`, or `module:function` of a rule that lives elsewhere.
        objectives: At least one; a rule with one metric looks at the first.
        settings: Passed on to the rule.

    Raises:
        SpaceError: No rule has this name, or a setting is unknown or wrong.
    """
    return cast(StoppingRule, build(TABLE, "search.stopping", name, objectives=objectives, **settings))
