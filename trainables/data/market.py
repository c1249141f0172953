"""The market as arrays: what readers produce and features and labels consume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Bars in time order, with volatility and one reference option per bar. All arrays have length n_bars.

    Attributes:
        event_time: Start of the bar, ns since the epoch, UTC, strictly increasing.
        known_time: End of the bar, ns UTC: the first moment at which all of the row may be used.
        open, high, low, close: Prices, times `price_scale`. volume: shares or contracts, NaN where the source has none.
        is_filled: Whether the bar is no bar of the source but a step of the regular grid without one (DATA-10).
        session: Session number from 0; rows of one number are of one trading day.
        segment: Run number: a window may not cross from one number to another (roll, hole in the data).
        iv: At-the-money implied volatility, annualised decimal, as known at `known_time`; NaN where unknown.
        iv_rank: Rank of iv in its trailing 252 sessions, 0..100, up to the previous session's close; NaN in warm-up
            (DATA-21).
        strike, delta, gamma, vega, theta, option_iv, spread_ratio: The reference option of the bar: the put whose
            strike is nearest to the close, of the expiry nearest to 30 days. vega per 1.00 of volatility, theta per
            year, spread_ratio = (ask - bid) / mid. NaN where there is none.
        is_call: +1 call, -1 put.
        bars_per_session: Usual number of bars of a session: 1 for daily bars, 390 for minutes of regular hours.
        rate_ann: Risk-free rate, per year.
        marks: What is not measured but modelled, for plan, report and MLflow: {"iv": ..., "chain": ...}.
        snapshot: Hash of the content and of the settings that made it.
        series: Series beside the market by the names of `trainables.features.beside`, (n_bars,) each, as known at
            `known_time`; NaN where unknown. One that is not given is not there (DATA-27).
    """

    event_time: Int
    known_time: Int
    open: Float
    high: Float
    low: Float
    close: Float
    volume: Float
    is_filled: Bool
    session: Int
    segment: Int
    iv: Float
    iv_rank: Float
    strike: Float
    delta: Float
    gamma: Float
    vega: Float
    theta: Float
    option_iv: Float
    spread_ratio: Float
    is_call: Float
    bars_per_session: int
    rate_ann: float
    marks: Mapping[str, str]
    snapshot: str
    series: Mapping[str, Float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.event_time)
