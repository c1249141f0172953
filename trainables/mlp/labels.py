"""Targets of the mlp family: whether the price is higher some bars ahead (DATA-26)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.data.dataset import NO_LABEL
from trainables.data.market import Int, Market

NAMES = ("up", "forward_return")


def direction_labels(market: Market, horizon_bars: int) -> tuple[NDArray[np.float32], tuple[str, ...], Int]:
    """Return the sign of the return `horizon_bars` ahead, the return, and when it is known.

    A tie has no label. A label of bars within a day stays in its session (DATA-10), one of daily bars in its segment.

    Args:
        market: Bars.
        horizon_bars: At least 1.

    Returns:
        targets: (n_rows, 2) float32: 1 up or 0 down, and the log-return; NaN in a row without a label.
        names: `up`, `forward_return`.
        label_end: (n_rows,) ns UTC; `NO_LABEL` without a label.

    Raises:
        ValueError: `horizon_bars` is below 1.
    """
    if horizon_bars < 1:
        raise ValueError(f"horizon_bars: expected at least 1, found {horizon_bars}")
    n_rows = len(market)
    targets = np.full((n_rows, len(NAMES)), np.nan, dtype=np.float32)
    label_end = np.full(n_rows, NO_LABEL)
    group = market.segment if market.bars_per_session == 1 else market.session
    is_close = (group[:-horizon_bars] == group[horizon_bars:]) & (
        market.segment[:-horizon_bars] == market.segment[horizon_bars:]
    )
    now, later = market.close[:-horizon_bars], market.close[horizon_bars:]
    rows = np.flatnonzero(is_close & (now != later))
    targets[rows, 0] = later[rows] > now[rows]
    targets[rows, 1] = np.log(later[rows] / now[rows])
    label_end[rows] = market.known_time[rows + horizon_bars]
    return targets, NAMES, label_end
