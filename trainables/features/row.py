"""One feature as a row of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trainables.features.bars import Bars
from trainables.features.rolling import Float
from trainables.features.settings import FeatureSettings

Kind = Literal["number", "price", "distance", "category"]
"""price: a price level; distance: a difference of prices; category: two or three values; number: anything else."""

Scope = Literal["session", "segment", "market"]
"""session: not across the start of a session (daily bars: of a segment); segment: across sessions, not across a roll or
hole; market: statistics of past returns, each made inside a segment, from the whole history."""

Lookback = Callable[[FeatureSettings, int], int]
"""Bars needed, given the settings and the bars per session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRow:
    """What is known about a feature, and the function that computes it.

    Attributes:
        name: Column name.
        family: Family of schemas that it belongs to: condor, nq, mes or scaling. `family.name` is unique.
        group: Semantic group inside the family.
        lookback: Bars of one run, the current one included, before the first value.
        source: Document and place.
        requirement: Identifier in the specification.
        function: Bars -> (n_bars,) float64, NaN in warm-up.
        known: When the value of a bar is known.
        kind: How scaling may treat the column.
        scope: How far back the feature may look.
        series: Names of the series beside the market that it needs; without one of them it is off.
    """

    name: str
    family: str
    group: str
    lookback: Lookback
    source: str
    requirement: str
    function: Callable[[Bars], Float]
    known: str = "bar end"
    kind: Kind = "number"
    scope: Scope = "session"
    series: tuple[str, ...] = ()


def bars_needed(n: int) -> Lookback:
    """Return a look-back that no setting changes."""
    return lambda settings, per_session: n


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsOf:
    """Makes the rows of one document: what they share is said once.

    Attributes:
        family: Family of the rows.
        source: Document and place.
        requirement: Prefix of the identifiers, such as `FEAT-NQ`.
    """

    family: str
    source: str
    requirement: str

    def __call__(
        self,
        name: str,
        group: str,
        requirement: int,
        lookback: Lookback | int,
        function: Callable[[Bars], Float],
        kind: Kind = "number",
        known: str = "bar end",
        *,
        scope: Scope = "session",
    ) -> FeatureRow:
        """Return a row; `requirement` is the number after the prefix, `lookback` bars or what settings make of it."""
        return FeatureRow(
            name=name,
            family=self.family,
            group=group,
            lookback=bars_needed(lookback) if isinstance(lookback, int) else lookback,
            source=self.source,
            requirement=f"{self.requirement}-{requirement}",
            function=function,
            known=known,
            kind=kind,
            scope=scope,
        )
