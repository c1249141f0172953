"""Bars on a regular grid: seconds without a trade become bars that say so (DATA-10)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainables.data.bars import Bars
from trainables.data.placed_bars import PlacedBars


def regular_grid(placed: PlacedBars) -> PlacedBars:
    """Return bars at every step between the first and the last of each session, `is_filled` saying which were put in.

    A filled bar has the close before it as open, high, low and close, and volume 0. Gaps between sessions and segments
    stay: what is longer than `data.max_gap_bars` is a hole and not thin trading.

    Args:
        placed: Bars, all as long as the first. A session of one bar has nothing between.

    Returns:
        The bars, with `grid` in their marks.
    """
    step = int(placed.known_time[0] - placed.event_time[0])
    gap = np.diff(placed.event_time) // step
    is_inside = (np.diff(placed.session) == 0) & (np.diff(placed.segment) == 0)
    repeats = np.append(np.where(is_inside, np.maximum(gap, 1), 1), 1)
    source = np.repeat(np.arange(len(repeats)), repeats)
    offset = np.arange(len(source)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    is_filled = offset > 0
    close = placed.bars.close[source]

    def filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(is_filled, close, values[source])

    event_time = placed.event_time[source] + offset * step
    bars = Bars(
        timestamp=placed.bars.timestamp[source] + offset * step,
        open=filled(placed.bars.open),
        high=filled(placed.bars.high),
        low=filled(placed.bars.low),
        close=close,
        volume=np.where(is_filled, 0.0, placed.bars.volume[source]),
    )
    return replace(
        placed,
        bars=bars,
        event_time=event_time,
        known_time=placed.known_time[source] + offset * step,
        session=placed.session[source],
        segment=placed.segment[source],
        is_filled=is_filled,
        marks={**placed.marks, "grid": f"regular: {int(is_filled.sum())} of {len(source)} bars filled in, volume 0"},
    )
