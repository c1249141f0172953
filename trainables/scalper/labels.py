"""Targets of the scalper family: class and size of the move ahead, its volatility, and whether to leave (DATA-25)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from trainables.config import StrictModel
from trainables.data.dataset import NO_LABEL
from trainables.data.market import Int, Market
from trainables.data.zones import NS_PER_SECOND

NAMES = ("direction", "forward_return", "volatility", "exit_long", "exit_short", "move_ticks", "volatility_ticks")
TICK_DECIMALS = 6
"""Moves in ticks are rounded to so many decimals: prices are binary fractions, and equality decides a class."""


class ScalperLabels(StrictModel):
    """How the targets are made."""

    horizon_s: int = Field(default=60, ge=1)
    """N, seconds ahead; searched over 5, 10, 30, 60, 300."""
    band_ticks: float = Field(default=2.0, gt=0)
    """X: a move of at least so many ticks has a direction; searched over 1, 2, 3, 4, 6, 8."""
    tick: float = Field(default=0.25, gt=0)
    """Index points of a tick of the MES contract, times the market's `price_scale`."""
    flat_inclusive: bool = False
    """A move of just X ticks is flat, not a direction (C-8)."""
    take_profit_ticks: float = Field(default=8.0, gt=0)
    """Gain at which a position is left."""
    stop_ticks: float = Field(default=8.0, gt=0)
    """Loss at which a position is left."""
    cost_ticks: float = Field(default=1.0, ge=0)
    """What waiting must bring beyond leaving now to be better."""


def scalper_labels(market: Market, settings: ScalperLabels) -> tuple[NDArray[np.float32], tuple[str, ...], Int]:
    """Return the targets of every row that has `horizon_s` seconds of its session and segment ahead.

    `direction` is 0 down, 1 flat, 2 up by the move (C_{t+N} - C_t) / tick against the band; `forward_return` the
    log-return to the last bar known at t + N; `volatility` the root of the sum of squared log-returns on the way there.
    `exit_long` and `exit_short` are 1 where leaving now is at least as good, net of the cost of waiting, as leaving at
    any bar until the triple barrier is first touched: take-profit, stop or t + N (Lopez de Prado 2018, ch. 3.4).
    `move_ticks` and `volatility_ticks` are the move and the volatility times the price, in ticks.

    Args:
        market: Bars of seconds, or longer ones that divide the horizon.
        settings: Horizon, band, barriers.

    Returns:
        targets: (n_rows, 7) float32; NaN in a row without a label.
        names: Of the columns.
        label_end: (n_rows,) ns UTC: t + N; `NO_LABEL` without a label.
    """
    end, last, has_label = label_window(market, settings.horizon_s)
    rows = np.flatnonzero(has_label)
    targets = np.full((len(market), len(NAMES)), np.nan)
    close = market.close
    move = np.round((close[last[rows]] - close[rows]) / settings.tick, TICK_DECIMALS)
    targets[rows, 0] = direction(move, settings.band_ticks, settings.flat_inclusive)
    targets[rows, 1] = np.log(close[last[rows]] / close[rows])
    squares = np.append(0.0, np.cumsum(np.diff(np.log(close)) ** 2))
    targets[rows, 2] = np.sqrt(np.maximum(squares[last[rows]] - squares[rows], 0.0))
    targets[rows, 5] = move
    targets[rows, 6] = targets[rows, 2] * close[rows] / settings.tick
    for column, side in ((3, 1.0), (4, -1.0)):
        targets[rows, column] = _exits(
            close / settings.tick,
            rows,
            last[rows],
            side,
            settings.take_profit_ticks,
            settings.stop_ticks,
            settings.cost_ticks,
        )
    return targets.astype(np.float32), NAMES, np.where(has_label, end, NO_LABEL)


def label_window(market: Market, horizon_s: int) -> tuple[Int, Int, NDArray[np.bool_]]:
    """Return when the label of each row ends, ns UTC, the last bar known by then, and whether there is a label.

    There is one where the session and the segment last so long, and at least one bar lies ahead.
    """
    known = market.known_time
    end = known + horizon_s * NS_PER_SECOND
    last = np.searchsorted(known, end, side="right") - 1
    cut = (np.diff(market.session) != 0) | (np.diff(market.segment) != 0)
    run = np.concatenate([[0], np.cumsum(cut)])
    run_last = np.append(np.flatnonzero(cut), len(known) - 1)[run]
    return end, last, (end <= known[run_last]) & (last > np.arange(len(known)))


def direction(move_ticks: NDArray[np.float64], band_ticks: float, flat_inclusive: bool = False) -> NDArray[np.float64]:
    """Return 0 down, 1 flat, 2 up; a move of just the band has a direction unless `flat_inclusive` (C-8)."""
    size = np.abs(move_ticks)
    is_flat = size <= band_ticks if flat_inclusive else size < band_ticks
    return np.where(is_flat, 1.0, np.where(move_ticks > 0, 2.0, 0.0))


@njit(cache=True, nogil=True)
def _exits(close_ticks, rows, last, side, take_profit, stop, cost):  # type: ignore[no-untyped-def]
    """Return 1 where no later bar up to the first barrier gains more than the cost over leaving now, else 0."""
    result = np.ones(len(rows))
    tolerance = 10.0**-TICK_DECIMALS
    for i in range(len(rows)):
        for at in range(rows[i] + 1, last[i] + 1):
            gain = side * (close_ticks[at] - close_ticks[rows[i]])
            if gain > cost + tolerance:
                result[i] = 0.0
                break
            if gain >= take_profit - tolerance or gain <= -stop + tolerance:
                break
    return result
