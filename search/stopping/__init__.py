"""Stopping rules: they look at observations and say continue, pause or stop, and run nothing.

A new one is a file here and a line in `TABLE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from search.objective import Objective
from search.space import Space
from search.table import build
from search.trial import Decision, Rung, Trial


class StoppingRule(Protocol):
    """The contract, that of optimizers: the journal prefix determines every decision, and `decide` changes nothing.

    A rule hears of every trial and keeps what it needs to compare, so that a decision costs the same after ten
    thousand trials as after ten.
    """

    def tell(self, trial: Trial) -> None:
        """Hear a trial at every change of it: proposed (running, no observations), observed, finished."""

    def decide(self, trial: Trial) -> Decision:
        """Say whether the trial goes on after its newest observation: a pure function of what was told before.

        Args:
            trial: Running, with a newest observation that was not told yet and is not that of the last rung.
        """


@runtime_checkable
class PausingRule(StoppingRule, Protocol):
    """A rule that sets trials aside and takes them up again."""

    def resume(self, *, is_last: bool) -> str | None:
        """Return the paused trial that goes on now: a pure function of what was told before; None: a new one instead.

        Args:
            is_last: Whether there will be no new one: then None ends the search with what is paused left as it is.
        """


TABLE: Mapping[str, str] = {
    "none": "search.stopping.never:never",
    "asha": "search.stopping.asha:asha",
    "hyperband": "search.stopping.hyperband:hyperband",
    "predicted": "search.stopping.predicted:predicted",
    "dominated": "search.stopping.dominated:dominated",
    "fold_racing": "search.stopping.fold_racing:fold_racing",
}
"""Name in a space file -> the function that makes it."""


def make(
    name: str, *, space: Space, objectives: Sequence[Objective], ladder: Sequence[Rung], **settings: Any
) -> StoppingRule:
    """Make the stopping rule of this name.

    Args:
        name: Key of `TABLE`, or `module:function` of a rule that lives elsewhere.
        space: What configs are points of.
        objectives: At least one; a rule with one metric looks at the first.
        ladder: Rungs of a complete trial, in order.
        settings: Passed on to the rule.

    Raises:
        SpaceError: No rule has this name, or a setting is unknown or wrong.
    """
    found = build(TABLE, "search.stopping", name, space=space, objectives=objectives, ladder=ladder, **settings)
    return cast(StoppingRule, found)
