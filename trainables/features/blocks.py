"""Features of bars block by block, each going on from the one before: what batch and stream have in common (EXEC-3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numba
import numpy as np
from numpy.typing import NDArray

from trainables.data.market import Market
from trainables.features.bars import Bars
from trainables.features.memory import Memory
from trainables.features.rolling import Float
from trainables.features.row import FeatureRow
from trainables.features.sessions import MOMENTUM_SESSIONS
from trainables.features.settings import FeatureSettings

ARRAYS = tuple(f.name for f in fields(Market) if f.type in ("Int", "Float", "Bool"))
"""Fields of a market that have one value per bar."""
CACHE_LINE = 16
"""Numbers between one column and the next: with a power of two as distance, all would fall on the same few lines."""


@dataclass(slots=True)
class Progress:
    """How far features have been computed.

    Attributes:
        memory: What the calls of the features remember.
        recent: The last bars: those of the sessions that the next block may need, at least one.
    """

    memory: Memory = field(default_factory=Memory)
    recent: Market | None = None


def extend(
    progress: Progress,
    rows: Sequence[FeatureRow],
    settings: FeatureSettings,
    market: Market,
    series: Mapping[str, Float],
    out: NDArray[np.float32],
) -> None:
    """Compute the features of the bars that follow.

    Args:
        progress: Changed in place; a fresh one where these are the first bars.
        rows: The same for every block.
        settings: The same for every block.
        market: One bar or more.
        series: (n_bars,) each.
        out: (n_bars, n_features), overwritten.
    """
    before = _with_recent(progress, market, _sessions_needed(rows, settings, market.bars_per_session))
    recent = None if before is None else Bars(before, settings)  # here, because inside it would be remembered
    columns = np.empty((len(rows), len(market) + CACHE_LINE), dtype=np.float32)[:, : len(market)]
    with progress.memory.block(len(market)):
        bars = Bars(market, settings, series, recent)
        for column, row in zip(columns, rows, strict=True):
            column[:] = row.function(bars)
    _write_rows(columns, out)


@numba.njit(cache=True, nogil=True)
def _write_rows(columns: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write columns as rows, one whole row after another: each line of memory is written once."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = columns[j, i]


def _with_recent(progress: Progress, market: Market, n_sessions: int) -> Market | None:
    """Return the bars after those of the sessions before them, and keep what the next block may need."""
    if not n_sessions:
        progress.recent = sliced(market, len(market) - 1, len(market))
        return None
    recent = market if progress.recent is None else joined(progress.recent, market)
    begins = np.flatnonzero(np.append(True, (np.diff(recent.session) != 0) | (np.diff(recent.segment) != 0)))
    progress.recent = sliced(recent, int(begins[-min(n_sessions, len(begins))]), len(recent))
    return recent


def _sessions_needed(rows: Sequence[FeatureRow], settings: FeatureSettings, per_session: int) -> int:
    """Return of how many sessions, the current one included, all bars are needed."""
    families = {row.family for row in rows}
    if "scaling" in families:
        return max(*MOMENTUM_SESSIONS, settings.profile_daily_n if per_session == 1 else 1) + 1
    return 1 if "mes" in families else 0


def joined(earlier: Market, later: Market) -> Market:
    """Return the bars of both, with the series that both have; what is not an array is the later one's."""
    series = {
        name: np.concatenate([earlier.series[name], values])
        for name, values in later.series.items()
        if name in earlier.series
    }
    arrays = {name: np.concatenate([getattr(earlier, name), getattr(later, name)]) for name in ARRAYS}
    return replace(later, **arrays, series=series)


def viewed(market: Market, start: int, end: int) -> Market:
    """Return the bars [start, end) without a copy."""
    series = {name: values[start:end] for name, values in market.series.items()}
    return replace(market, **{name: getattr(market, name)[start:end] for name in ARRAYS}, series=series)


def sliced(market: Market, start: int, end: int) -> Market:
    """Return a copy of the bars [start, end), which keeps no other bar in memory."""
    series = {name: values[start:end].copy() for name, values in market.series.items()}
    return replace(market, **{name: getattr(market, name)[start:end].copy() for name in ARRAYS}, series=series)
