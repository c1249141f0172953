"""Small markets with chosen prices and times."""

from __future__ import annotations

from datetime import date, time, timedelta

import numpy as np

from trainables.data.market import Market
from trainables.data.zones import NS_PER_SECOND, instant


def weekdays(n, first=date(2024, 1, 2)):
    """The next `n` Mondays to Fridays."""
    days = (first + timedelta(days=i) for i in range(2 * n + 7))
    return [d for d in days if d.weekday() < 5][:n]


def make_market(
    close, *, iv=0.2, iv_rank=50.0, bars_per_session=1, high=None, low=None, spread=0.0, rate=0.0, segment=None
):
    """Sessions of equal bars, 09:30 to 16:00 New York, on weekdays from 2024-01-02; scalars hold for all rows."""
    close = np.asarray(close, dtype=float)
    n = len(close)
    length = 390 * 60 // bars_per_session * NS_PER_SECOND
    session, bar = np.divmod(np.arange(n), bars_per_session)
    opens = np.array([instant(day, time(9, 30)) for day in weekdays(session[-1] + 1)])
    event = opens[session] + bar * length

    def full(value):
        return np.broadcast_to(np.asarray(value, dtype=float), (n,)).copy()

    return Market(
        event_time=event,
        known_time=event + length,
        open=close,
        high=close if high is None else high,
        low=close if low is None else low,
        close=close,
        volume=full(1.0),
        is_filled=np.zeros(n, dtype=bool),
        session=session,
        segment=np.zeros(n, dtype=np.int64) if segment is None else segment,
        iv=full(iv),
        iv_rank=full(iv_rank),
        strike=close,
        delta=full(-0.5),
        gamma=full(0.0),
        vega=full(0.0),
        theta=full(0.0),
        option_iv=full(iv),
        spread_ratio=full(spread),
        is_call=full(-1.0),
        bars_per_session=bars_per_session,
        rate_ann=rate,
        marks={},
        snapshot="test",
    )
