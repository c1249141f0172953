"""Bars with sessions and segments: what every source of a market comes to (see `placement`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainables.data.bars import Bars
from trainables.data.volatility import Volatility


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedBars:
    """Clean bars in time order, all arrays (n_bars,).

    Attributes:
        bars: Prices and volume as the file has them.
        event_time, known_time: Start and end of each bar, ns UTC.
        session, segment: As in `Market`.
        marks: What was left out.
        digests: Hashes of the files that were read.
        is_filled: Which bars a regular grid put in; None: none.
        volatility: Implied volatility that comes with the bars; None: none does.
        n_rolls: How many segments begin with a new contract.
    """

    bars: Bars
    event_time: NDArray[np.int64]
    known_time: NDArray[np.int64]
    session: NDArray[np.int64]
    segment: NDArray[np.int64]
    marks: dict[str, str]
    digests: tuple[str, ...]
    is_filled: NDArray[np.bool_] | None = None
    volatility: Volatility | None = None
    n_rolls: int = 0

    def before(self, end: int) -> PlacedBars:
        """Return the rows known before an instant."""
        return self.rows(np.arange(int(np.searchsorted(self.known_time, end))))

    def rows(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> PlacedBars:
        """Return the given rows, by position or by mask; sessions are numbered from 0 again."""
        return replace(
            self,
            bars=self.bars.take(chosen),
            event_time=self.event_time[chosen],
            known_time=self.known_time[chosen],
            session=np.unique(self.session[chosen], return_inverse=True)[1],
            segment=self.segment[chosen],
            is_filled=None if self.is_filled is None else self.is_filled[chosen],
        )
