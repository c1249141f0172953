"""Targets of the condor family: policy by hindsight, regime ahead, forecasts, and when all of them are known.

Requirements: DATA-22, DATA-23, DATA-24. A row's targets depend on nothing after its `label_end`; a row whose future is
not all there, or lies across a hole in the data, has no target at all.
"""

from __future__ import annotations

from datetime import time
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trainables.condor.config import HORIZON_SESSIONS, POLICY_RANGES
from trainables.condor.hindsight import best_condors
from trainables.config import StrictModel
from trainables.data.dataset import NO_LABEL
from trainables.data.market import Float, Int, Market
from trainables.data.zones import instants, local_day
from trainables.errors import DataError

EXPIRY_CLOCK = time(16)
"""The modelled chain has an expiry at 16:00 New York of every day; one without a session settles at the last close."""
SESSIONS_PER_YEAR = 252
PATH_COLUMNS = ("close", "high", "low", "volatility")
"""Columns of each session of a trajectory (CONDOR-17)."""


class LabelSettings(StrictModel):
    """How the targets of the condor family are made (DATA-22 to DATA-24)."""

    label_mode: Literal["soft_hindsight", "argmax_hindsight", "column"] = "soft_hindsight"
    """Average of all condors by softmax of utility, the best one, or supplied columns (C-20)."""
    offsets: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    """Candidate distances of short strikes, in expected moves."""
    widths: tuple[float, ...] = (2.0, 5.0, 10.0, 15.0)
    """Candidate wing widths, points."""
    dtes: tuple[float, ...] = (7.0, 14.0, 21.0, 30.0, 45.0)
    """Candidate calendar days to expiry."""
    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the softmax over utilities."""
    drawdown_weight: float = Field(default=0.5, ge=0)
    """Utility is return on risk capital less this times the drawdown."""
    strike_step: float = Field(default=1.0, gt=0)
    """Strikes are rounded to multiples of this, points."""
    regime_source: Literal["iv_rank", "vix"] = "iv_rank"
    """What the regime is read from (C-22)."""
    regime_iv_rank: tuple[float, float] = (30.0, 70.0)
    """Low up to the first, high from the second on, both included."""
    regime_vix: tuple[float, float] = (15.0, 25.0)
    """Low below the first, high above the second, in percent."""
    regime_label_horizon: int = Field(default=390, ge=0)
    """How far ahead the regime is labelled, in minutes of a session; scaled to the bars of the market (C-23)."""
    minutes_per_session: int = Field(default=390, ge=1)
    """Minutes of a session in `regime_label_horizon`: 390 is one session, also on daily bars."""
    forecast_sessions: tuple[int, ...] = HORIZON_SESSIONS
    """Sessions ahead of the forecasts (CONDOR-16)."""
    trajectory_sessions: int = Field(default=0, ge=0)
    """Sessions of the trajectory, 45 where that head is on; 0: no trajectory (C-82)."""


def condor_labels(market: Market, settings: LabelSettings) -> tuple[NDArray[np.float32], tuple[str, ...], Int]:
    """Return the targets of every row, their names, and when the last of them is known.

    Columns: the eight policy targets in the order and ranges of CONDOR-13; `regime` (0 low, 1 normal, 2 high);
    `return_1`, ... log-returns to the same time of day so many sessions ahead; with a trajectory `close_1`, `high_1`,
    `low_1` (log-returns to that session's prices) and `volatility_1` (annualised), and so on.
    `confidence` holds 1 where the realised `roi` is above zero, else 0: the loss compares that sign with the predicted
    one (C-19).

    Args:
        market: Bars with implied volatility.
        settings: How targets are made.

    Returns:
        targets: (n_rows, n_targets) float32; all NaN in a row without a label.
        names: Of the columns.
        label_end: (n_rows,) ns UTC: the longest expiry or a later bar that a target uses; `NO_LABEL` without a label.

    Raises:
        DataError: `label_mode: column`, as no data source supplies label columns.
    """
    if settings.label_mode == "column":
        raise DataError(
            "label_mode: expected soft_hindsight or argmax_hindsight, found column: this data has no label columns; "
            "choose one of the two"
        )
    policy, policy_end = _policy(market, settings)
    regime, regime_end = _regime(market, settings)
    forecast, forecast_end = _forecasts(market, settings.forecast_sessions)
    blocks, ends = [policy, regime[:, None], forecast], [policy_end, regime_end, forecast_end]
    names = [name for name, _, _ in POLICY_RANGES] + ["regime"] + [f"return_{h}" for h in settings.forecast_sessions]
    if settings.trajectory_sessions:
        path, path_end = _trajectory(market, settings.trajectory_sessions)
        blocks.append(path)
        ends.append(path_end)
        names += [f"{column}_{j + 1}" for j in range(settings.trajectory_sessions) for column in PATH_COLUMNS]
    targets = np.concatenate(blocks, axis=1).astype(np.float32)
    has_label = np.isfinite(targets).all(axis=1)
    targets[~has_label] = np.nan
    return targets, tuple(names), np.where(has_label, np.max(ends, axis=0), NO_LABEL)


def regime_of(value: Float, settings: LabelSettings) -> Float:
    """Return 0 low, 1 normal or 2 high for IV ranks (0 to 100) or VIX (percent); NaN stays (DATA-22, C-22)."""
    if settings.regime_source == "iv_rank":
        low, high = settings.regime_iv_rank
        regime = np.where(value <= low, 0.0, np.where(value >= high, 2.0, 1.0))
    else:
        low, high = settings.regime_vix
        regime = np.where(value < low, 0.0, np.where(value > high, 2.0, 1.0))
    return np.where(np.isnan(value), np.nan, regime)


def _policy(market: Market, settings: LabelSettings) -> tuple[Float, Int]:
    known = market.known_time
    dtes = np.asarray(settings.dtes)
    expiry = instants((local_day(known)[:, None] + dtes.astype(np.int64)).ravel(), EXPIRY_CLOCK).reshape(-1, len(dtes))
    settle = np.searchsorted(known, expiry, side="right") - 1
    is_over = (expiry <= known[-1]) & (market.segment[settle] == market.segment[:, None])
    marks = np.flatnonzero(np.append(np.diff(market.session) != 0, True))
    policy = best_condors(
        market.close,
        market.iv,
        market.spread_ratio,
        known,
        marks,
        np.searchsorted(marks, np.arange(len(known)), side="right"),
        expiry,
        np.where(is_over, settle, -1),
        np.asarray(settings.offsets),
        np.asarray(settings.widths),
        dtes,
        market.rate_ann,
        settings.strike_step,
        settings.temperature,
        settings.drawdown_weight,
        settings.label_mode == "soft_hindsight",
    )
    return policy, expiry.max(axis=1)


def _regime(market: Market, settings: LabelSettings) -> tuple[Float, Int]:
    value = market.iv_rank if settings.regime_source == "iv_rank" else 100 * market.iv
    n_bars = round(settings.regime_label_horizon / settings.minutes_per_session * market.bars_per_session)
    position = np.arange(len(market)) + n_bars
    return _take(regime_of(value, settings), position, market), _known(position, market)


def _forecasts(market: Market, sessions: tuple[int, ...]) -> tuple[Float, Int]:
    ahead = np.stack([_same_time_ahead(market, h) for h in sessions], axis=1)
    later = np.stack([_take(market.close, ahead[:, j], market) for j in range(len(sessions))], axis=1)
    ends = np.stack([_known(ahead[:, j], market) for j in range(len(sessions))], axis=1)
    return np.log(later / market.close[:, None]), ends.max(axis=1)


def _same_time_ahead(market: Market, n_sessions: int) -> Int:
    """Return the row that is known as long after its session's open, `n_sessions` later; -1 where there is none.

    Where no bar ends just then (a half day, a missing bar), it is the last one before, or the session's first.
    """
    first = np.flatnonzero(np.append(True, np.diff(market.session) != 0))
    target = market.session + n_sessions
    exists = target < len(first)
    start = first[np.where(exists, target, 0)]
    elapsed = market.known_time - market.event_time[first[market.session]]
    position = np.searchsorted(market.known_time, market.event_time[start] + elapsed, side="right") - 1
    end = np.append(first[1:], len(market))[np.where(exists, target, 0)] - 1
    return np.where(exists, np.clip(position, start, end), -1)


def _trajectory(market: Market, n_sessions: int) -> tuple[Float, Int]:
    """Return (n_rows, 4 n_sessions) and when the last session of it is known (DATA-24)."""
    first = np.flatnonzero(np.append(True, np.diff(market.session) != 0))
    last = np.append(first[1:], len(market)) - 1
    returns = np.diff(np.log(market.close), prepend=np.nan)
    variance = np.add.reduceat(returns * returns, first)
    prices = (market.close[last], np.maximum.reduceat(market.high, first), np.minimum.reduceat(market.low, first))
    columns, ends = [], []
    for step in range(1, n_sessions + 1):
        target = market.session + step
        exists = target < len(first)
        session = np.where(exists, target, 0)
        is_near = exists & (market.segment[last[session]] == market.segment)
        columns += [np.where(is_near, np.log(price[session] / market.close), np.nan) for price in prices]
        columns.append(np.where(is_near, np.sqrt(SESSIONS_PER_YEAR * variance[session]), np.nan))
        ends.append(np.where(is_near, market.known_time[last[session]], NO_LABEL))
    return np.stack(columns, axis=1), np.max(ends, axis=0)


def _take(values: Float, position: Int, market: Market) -> Float:
    """Return values at other rows; NaN outside of the market and across a hole in it."""
    is_inside = (position >= 0) & (position < len(market))
    safe = np.where(is_inside, position, 0)
    return np.where(is_inside & (market.segment[safe] == market.segment), values[safe], np.nan)


def _known(position: Int, market: Market) -> Int:
    is_inside = (position >= 0) & (position < len(market))
    return np.where(is_inside, market.known_time[np.where(is_inside, position, 0)], NO_LABEL)
