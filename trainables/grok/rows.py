"""Rows of the grok data set: nq24 features, what stands beside them, and which rows count (DATA-3, DATA-4, FEAT-NQ-8).

A row whose features are not known, such as the first of a session, is masked, not filled: its features are zero and its
column `valid` is 0. Windows may hold such rows; no window is trained on or scored that ends at one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.data.market import Market
from trainables.data.zones import NS_PER_SECOND
from trainables.errors import DataError
from trainables.features.columns import Described, columns_of
from trainables.features.nq import calendar_inputs
from trainables.features.registry import compute, rows_of
from trainables.features.settings import FeatureSettings
from trainables.grok.config import CONTEXT, FEATURE_GROUPS, GrokConfig
from trainables.grok.embedding import phases

SCHEMA = "nq24"
BAR_S = 60
"""Length of a bar: horizons and volatility count in minutes."""
PERIODS = (1440.0, 31.0, 365.25)
"""Of the time of day in minutes, the day of the month and the day of the year (GROK-5)."""

Reach = Mapping[str, tuple[Any, ...]]


def feature_settings(config: GrokConfig) -> FeatureSettings:
    """Return the settings of the features."""
    return FeatureSettings(sma_windows=config.averages, volume_delta=config.volume_delta)


def slowest_settings(config: GrokConfig, reach: Reach) -> FeatureSettings:
    """Return the settings within reach that need the longest history, so that all trials score the same rows."""
    every = (config.sma_windows, *reach.get("sma_windows", ()))
    averages = max((tuple(int(n) for n in windows.split(",")) for windows in every), key=lambda windows: windows[-1])
    is_difference = "difference" in (config.volume_delta, *reach.get("volume_delta", ()))
    return FeatureSettings(sma_windows=averages, volume_delta="difference" if is_difference else "signed")


def checked_market(market: Market, config: GrokConfig, reach: Reach) -> Market:
    """Return the market that features are computed from.

    Where the source has no volume, each bar counts once in the averages that volume weights, and the market is marked;
    the volume group itself is then refused.

    Raises:
        DataError: Bars are not minutes, or the volume group is within reach of a market without volume.
    """
    step = int(np.median(market.known_time - market.event_time))
    if step != BAR_S * NS_PER_SECOND:
        raise DataError(
            f"data: expected bars of one minute for family grok, found {step / NS_PER_SECOND:g} s; give minute bars, "
            "or set data.synthetic.bars: minutes"
        )
    if np.isfinite(market.volume).any():
        return market
    seen = {config.feature_groups, *reach.get("feature_groups", ())}
    if any(groups == "all" or "volume" in groups.split("+") for groups in seen):
        others = "+".join(name for name in FEATURE_GROUPS if name != "volume")
        raise DataError(
            "feature_groups: expected bars with volume for the group volume, found none in the data; "
            f"set feature_groups: {others}"
        )
    marks = {**market.marks, "volume": "none in the source; in VWAP and money flow each bar counts once"}
    return replace(market, volume=np.ones(len(market)), marks=marks)


def columns(market: Market, config: GrokConfig) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return features and context of every row, (n_rows, 24 + 9) float32, and their names."""
    features, names = compute(SCHEMA, market, feature_settings(config))
    is_valid = np.isfinite(features).all(axis=1)
    positions, _ = calendar_inputs(market.event_time)
    cyclic = phases(torch.from_numpy(positions[:, [0, 2, 3]].astype(np.float64)), PERIODS).numpy()
    context = np.column_stack([cyclic, positions[:, 1], features[:, names.index("log_return")], is_valid])
    rows = np.where(is_valid[:, None], np.column_stack([features, context]), 0.0)
    return rows.astype(np.float32), (*names, *CONTEXT)


def described_columns(market: Market, config: GrokConfig) -> tuple[Described, ...]:
    """Return a description of every column of `columns` (DATA-29)."""
    names = [row.name for row in rows_of(SCHEMA)]
    features = columns_of(SCHEMA, names, feature_settings(config), market.bars_per_session)
    return (*features, *({"name": f"context.{name}", "group": "context", "lookback": 1} for name in CONTEXT))


def known_rows(market: Market, config: GrokConfig, reach: Reach) -> NDArray[np.bool_]:
    """Return where every feature within reach has a value, (n_rows,)."""
    return np.isfinite(compute(SCHEMA, market, slowest_settings(config, reach))[0]).all(axis=1)


def window_volatility(features: NDArray[np.float32], names: tuple[str, ...], window: int) -> NDArray[np.float64]:
    """Return the root mean square of the valid minutes' returns in the window that ends at each row, (n_rows,).

    A window that would begin before the first row begins there; NaN where it has no valid row.
    """
    squares = np.square(np.asarray(features[:, names.index("raw_return")], dtype=np.float64))
    valid = np.asarray(features[:, names.index("valid")], dtype=np.float64)
    total, count = (_trailing_sum(values, window) for values in (squares, valid))
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return np.sqrt(np.maximum(mean, 0.0))


def moving_volatility(features: NDArray[np.float32], names: tuple[str, ...], span: float) -> NDArray[np.float64]:
    """Return the exponential mean of squared minutes' returns up to each row, as a root, (n_rows,) (ANALYSIS-4).

    Rows that are not valid change nothing; NaN before the first valid one.
    """
    from scipy.signal import lfilter

    is_valid = np.asarray(features[:, names.index("valid")]) > 0
    squares = np.square(np.asarray(features[:, names.index("raw_return")], dtype=np.float64))[is_valid]
    weight = 2.0 / (span + 1.0)
    variance = np.full(len(is_valid), np.nan)
    if len(squares):
        start = np.array([(1.0 - weight) * squares[0]])
        variance[is_valid] = lfilter([weight], [1.0, weight - 1.0], squares, zi=start)[0]
    last = np.maximum.accumulate(np.where(is_valid, np.arange(len(is_valid)), -1))
    return np.sqrt(np.where(last >= 0, variance[last], np.nan))


def _trailing_sum(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    total = np.append(0.0, np.cumsum(values))
    end = np.arange(1, len(total))
    return total[end] - total[np.maximum(end - window, 0)]
