"""Option chains priced by Black-Scholes, with known units and chosen faults."""

from __future__ import annotations

from datetime import date, time

import numpy as np
import pyarrow as pa

from tests.trainables.data.files import MINUTE, START
from trainables.data.zones import NS_PER_SECOND, instants
from trainables.trading.black_scholes import SECONDS_PER_YEAR, greeks, price

EPOCH = date(1970, 1, 1).toordinal()


def chain_columns(
    n_times=3, *, spot=470.0, iv=0.2, rate=0.02, strikes=range(450, 491), days=(17, 31), start=START, step=MINUTE
):
    """Calls and puts of all strikes, expiring `days` calendar days after 2024-01-02; our units of the Greeks."""
    first = date(2024, 1, 2).toordinal() - EPOCH
    grid = np.meshgrid(start + step * np.arange(n_times), first + np.array(days), np.array(strikes, float), [1.0, -1.0])
    stamp, day, strike, sign = (axis.swapaxes(0, 1).reshape(-1) for axis in grid)
    stamp, day = stamp.astype(np.int64), day.astype(np.int64)
    years = (instants(day, time(16)) - stamp) / (SECONDS_PER_YEAR * NS_PER_SECOND)
    value = price(spot, strike, years, iv, rate, sign)
    g = greeks(spot, strike, years, iv, rate, sign)
    n = len(stamp)
    return {
        "timestamp": stamp,
        "underlying": ["SPY"] * n,
        "expiry": pa.array(day.astype(np.int32), pa.int32()).cast(pa.date32()),
        "strike": strike,
        "type": np.where(sign > 0, "call", "put").tolist(),
        "bid": value * 0.99,
        "ask": value * 1.01,
        "last": value,
        "volume": np.full(n, 10.0),
        "open_interest": np.full(n, 100.0),
        "iv": np.full(n, iv),
        "delta": g.delta,
        "gamma": g.gamma,
        "theta": g.theta,
        "vega": g.vega,
        "underlying_price": np.full(n, spot),
    }
