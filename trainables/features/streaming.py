"""Features bar by bar, for live use: the same bits as in batch (EXEC-3).

The functions of the registry run on the new bars alone and go on from what their calls remember
(`trainables.features.memory`): windows keep their last rows, recursions their state. What is said of whole sessions
(volume profile, opening range, higher bars) is computed anew from the bars of the sessions that it needs. So memory is
bounded by the longest window and a few sessions, however long the stream runs. A stream can be pickled and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from trainables.data.market import Market
from trainables.features.bars import Bars
from trainables.features.memory import Memory
from trainables.features.registry import rows_of
from trainables.features.sessions import MOMENTUM_SESSIONS
from trainables.features.settings import FeatureSettings

Series = Mapping[str, NDArray[np.float64]]
ARRAYS = tuple(f.name for f in fields(Market) if f.type in ("Int", "Float"))
"""Fields of a market that have one value per bar."""


class Stream:
    """Features of bars that arrive one by one or in blocks.

    Args:
        schema: Name in `SCHEMAS`.
        settings: Numbers from the documents.
        series: Names of the series beside the market that every block will bring (see `registry.compute`).

    Attributes:
        names: Names of the features, in column order.
    """

    def __init__(self, schema: str, settings: FeatureSettings, series: frozenset[str] = frozenset()) -> None:
        self.schema = schema
        self.settings = settings
        self.series = series
        self.names = tuple(row.name for row in rows_of(schema, series))
        self._memory = Memory()
        self._recent: Market | None = None

    def push(self, bar: Market, series: Series | None = None) -> NDArray[np.float32]:
        """Return the features of the next bar, (n_features,) float32, NaN where not known.

        Args:
            bar: A market of one bar, later than all before; session and segment numbers go on from theirs.
            series: (1,) each, known at the bar's end.

        Raises:
            ValueError: As `extend`, or there is not one bar.
        """
        if len(bar) != 1:
            raise ValueError(f"stream: expected one bar, found {len(bar)}; use extend for blocks")
        return self.extend(bar, series)[0]

    def extend(self, bars: Market, series: Series | None = None) -> NDArray[np.float32]:
        """Return the features of a block of bars, (n_bars, n_features) float32: a warm start, or a catch-up.

        Raises:
            ValueError: The bars are not later than those before, or the series are not those that were announced.
        """
        given = dict(series or {})
        if set(given) != self.series:
            raise ValueError(f"stream: expected series {sorted(self.series)}, found {sorted(given)}; give all of them")
        out = np.empty((len(bars), len(self.names)), dtype=np.float32)
        if not len(bars):
            return out
        recent = self._with_recent(bars)
        with self._memory.block(len(bars)):
            block = Bars(bars, self.settings, given, recent=recent)
            for column, row in enumerate(rows_of(self.schema, self.series)):
                out[:, column] = row.function(block)
        return out

    def _with_recent(self, bars: Market) -> Bars | None:
        """Return the new bars after those of the sessions before them, and keep what the next block may need."""
        if self._recent is not None and bars.event_time[0] <= self._recent.event_time[-1]:
            raise ValueError(
                f"stream: expected a bar after {self._recent.event_time[-1]} ns, found {bars.event_time[0]}; "
                "send no bar twice"
            )
        n_sessions = self._sessions_needed(bars.bars_per_session)
        recent = bars if self._recent is None else joined(self._recent, bars)
        begins = np.flatnonzero(np.append(True, (np.diff(recent.session) != 0) | (np.diff(recent.segment) != 0)))
        kept_from = [*begins, len(recent) - 1][max(-n_sessions - 1, -len(begins) - 1)]
        self._recent = sliced(recent, int(kept_from), len(recent))
        return Bars(recent, self.settings) if n_sessions else None

    def _sessions_needed(self, per_session: int) -> int:
        """Return of how many sessions, the current one included, all bars are needed."""
        families = {row.family for row in rows_of(self.schema, self.series)}
        if "scaling" in families:
            days = self.settings.profile_daily_n if per_session == 1 else 1
            return max(*MOMENTUM_SESSIONS, days) + 1
        return 1 if "mes" in families else 0


def joined(earlier: Market, later: Market) -> Market:
    """Return the bars of both; what is not an array is the later one's."""
    return replace(later, **{name: np.concatenate([getattr(earlier, name), getattr(later, name)]) for name in ARRAYS})


def sliced(market: Market, start: int, end: int) -> Market:
    """Return the bars [start, end), copied."""
    return replace(market, **{name: getattr(market, name)[start:end].copy() for name in ARRAYS})
