"""Features bar by bar, for live use: the same bits as in batch (EXEC-3).

The functions of the registry run on the new bars alone and go on from what their calls remember
(`trainables.features.memory`): windows keep their last rows, recursions their state. What is said of whole sessions
(volume profile, opening range, higher bars) is computed anew from the bars of the sessions that it needs. So memory is
bounded by the longest window and a few sessions, however long the stream runs. A stream can be pickled and goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from trainables.data.market import Market
from trainables.features.blocks import Progress, extend
from trainables.features.registry import rows_of
from trainables.features.rolling import Float
from trainables.features.settings import FeatureSettings


class Stream:
    """Features of bars that arrive one by one or in blocks.

    Args:
        schema: Name in `SCHEMAS`.
        settings: Numbers from the documents.
        series: Names of the series beside the market that every block will bring (see `registry.compute`).

    Attributes:
        names: Names of the features, in column order.
    """

    def __init__(self, schema: str, settings: FeatureSettings, series: Collection[str] = ()) -> None:
        self.schema = schema
        self.settings = settings
        self.series = frozenset(series)
        self.names = tuple(row.name for row in rows_of(schema, self.series))
        self._progress = Progress()

    def push(self, bar: Market, series: Mapping[str, Float] | None = None) -> NDArray[np.float32]:
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

    def extend(self, bars: Market, series: Mapping[str, Float] | None = None) -> NDArray[np.float32]:
        """Return the features of a block of bars, (n_bars, n_features) float32: a warm start, or a catch-up.

        Raises:
            ValueError: The bars are not later than those before, or the series are not those that were announced.
        """
        given, recent = dict(series or {}), self._progress.recent
        if set(given) != self.series:
            raise ValueError(f"stream: expected series {sorted(self.series)}, found {sorted(given)}; give all of them")
        out = np.empty((len(bars), len(self.names)), dtype=np.float32)
        if not len(bars):
            return out
        if recent is not None and bars.event_time[0] <= recent.event_time[-1]:
            raise ValueError(
                f"stream: expected a bar after {recent.event_time[-1]}, found {bars.event_time[0]}; send no bar twice"
            )
        extend(self._progress, rows_of(self.schema, self.series), self.settings, bars, given, out)
        return out
