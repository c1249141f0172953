"""Targets of the grok family: forward log-returns at six horizons, each with its own mask (DATA-4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.data.dataset import NO_LABEL
from trainables.data.market import Int, Market
from trainables.grok.config import HORIZON_MINUTES

NS_PER_MINUTE = 60 * 10**9


def horizon_labels(
    market: Market, horizon_minutes: tuple[int, ...] = HORIZON_MINUTES, max_pause_minutes: int = 14
) -> tuple[NDArray[np.float32], tuple[str, ...], Int]:
    """Return y_h = ln(C_{t+h} / C_t) of every row and horizon.

    A horizon is masked, not filled, where it ends in another session or segment, after the data, on a minute without a
    bar, or where it crosses a pause longer than `max_pause_minutes`: a scheduled one within the session.

    Args:
        market: Bars of minutes or shorter.
        horizon_minutes: At least 1 each, increasing.
        max_pause_minutes: Longest time without a bar that is thin trading and no closure.

    Returns:
        targets: (n_rows, n_horizons) float32; NaN where masked.
        names: `return_5m`, ...
        label_end: (n_rows,) ns UTC: when the longest horizon that is not masked is known; `NO_LABEL` where all are.

    Raises:
        ValueError: Horizons are not positive and increasing.
    """
    horizons = np.asarray(horizon_minutes, dtype=np.int64)
    if len(horizons) == 0 or horizons[0] < 1 or (np.diff(horizons) <= 0).any():
        raise ValueError(f"horizon_minutes: expected increasing minutes from 1, found {horizon_minutes}")
    known = market.known_time
    pause = market.event_time[1:] - known[:-1] > max_pause_minutes * NS_PER_MINUTE
    cut = (np.diff(market.session) != 0) | (np.diff(market.segment) != 0) | pause
    run = np.concatenate([[0], np.cumsum(cut)])
    targets = np.full((len(market), len(horizons)), np.nan)
    label_end = np.full(len(market), NO_LABEL)
    for column, minutes in enumerate(horizons):
        target = known + minutes * NS_PER_MINUTE
        ahead = np.minimum(np.searchsorted(known, target), len(known) - 1)
        is_whole = (known[ahead] == target) & (run[ahead] == run)
        rows = np.flatnonzero(is_whole)
        targets[rows, column] = np.log(market.close[ahead[rows]] / market.close[rows])
        label_end[rows] = known[ahead[rows]]
    return targets.astype(np.float32), tuple(f"return_{minutes}m" for minutes in horizons), label_end
