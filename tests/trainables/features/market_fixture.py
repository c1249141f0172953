"""Synthetic markets for feature tests, NumPy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainables.data.market import Market
from trainables.features.registry import REGISTRY
from trainables.features.schemas import BESIDE_PRICES

SECOND = 1_000_000_000


def series_beside(market: Market, seed: int = 7) -> dict[str, np.ndarray]:
    """Return a value per bar for every series that features may use; a longer market only adds to them."""
    n, seconds = len(market), market.known_time / SECOND
    names = sorted({name for row in REGISTRY.values() for name in row.series})
    generators = {name: np.random.default_rng([seed, i]) for i, name in enumerate(names)}
    series = {name: generators[name].uniform(0.1, 2.0, n) for name in names}
    for name in BESIDE_PRICES:
        series[name] = 100.0 * np.exp(np.cumsum(np.random.default_rng([seed, names.index(name), 1]).normal(0, 4e-4, n)))
    return series | {"fomc_next_s": seconds + 86_400.0, "fomc_previous_s": seconds - 7_200.0}


def make_market(
    *,
    sessions: int = 3,
    per_session: int = 120,
    bar_seconds: int = 60,
    seed: int = 0,
    close: np.ndarray | None = None,
    flat: bool = False,
    start: str = "2024-01-02T14:30",
    roll_at_session: int | None = None,
    volume: np.ndarray | None = None,
    session_step_days: int = 1,
) -> Market:
    """Return a random walk with an option per bar; sessions are weekdays that begin 09:30 in New York's winter."""
    generator = np.random.default_rng(seed)
    n = sessions * per_session
    days = np.arange(np.datetime64(start, "D"), np.datetime64(start, "D") + 2 * sessions * session_step_days + 10)
    days = days[np.is_busday(days)][: sessions * session_step_days : session_step_days]
    first = days + (np.datetime64(start, "m") - np.datetime64(start, "D"))
    session = np.repeat(np.arange(sessions), per_session)
    inside = np.tile(np.arange(per_session), sessions)
    event = first.astype("datetime64[ns]").astype(np.int64)[session] + inside * bar_seconds * SECOND
    if close is None:
        close = 470.0 * np.exp(np.cumsum(generator.normal(0, 5e-4, n)))
    if flat:
        close = np.full(n, 470.13)
    opened = close.copy() if flat else np.concatenate([[close[0]], close[:-1]]) * (1 + generator.normal(0, 1e-5, n))
    wick = 0.0 if flat else np.abs(generator.normal(0, 1e-4, (2, n))) * close
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    if not flat:
        high, low = high + wick[0], low - wick[1]
    iv = 0.15 + 0.02 * np.sin(np.arange(n) / 50) + generator.normal(0, 1e-3, n)
    segment = np.zeros(n, dtype=np.int64)
    if roll_at_session is not None:
        segment[session >= roll_at_session] = 1
    return Market(
        event_time=event,
        known_time=event + bar_seconds * SECOND,
        open=opened,
        high=high,
        low=low,
        close=close,
        volume=generator.integers(1, 10_000, n).astype(float) if volume is None else volume,
        is_filled=np.zeros(n, dtype=bool),
        session=session,
        segment=segment,
        iv=iv,
        iv_rank=generator.uniform(0, 100, n),
        strike=np.round(close),
        delta=generator.uniform(-0.6, -0.4, n),
        gamma=generator.uniform(0.01, 0.02, n),
        vega=generator.uniform(40, 60, n),
        theta=generator.uniform(-30, -20, n),
        option_iv=iv + 0.001,
        spread_ratio=generator.uniform(0.01, 0.03, n),
        is_call=np.full(n, -1.0),
        bars_per_session=per_session,
        rate_ann=0.02,
        marks={},
        snapshot="synthetic",
    )


def changed_from(market: Market, row: int) -> Market:
    """Return the market with other prices from a row on: what was known before it must not see them."""
    factor = np.where(np.arange(len(market)) >= row, 1.3, 1.0)
    prices = {name: getattr(market, name) * factor for name in ("open", "high", "low", "close")}
    return replace(market, **prices, snapshot="changed")
