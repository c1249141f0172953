"""Bar files written for a test."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.trainables.data.markets import weekdays
from trainables.data.zones import instant

MINUTE = 60 * 10**9
START = int(datetime(2024, 1, 2, 14, 30, tzinfo=UTC).timestamp()) * 10**9
"""09:30 in New York."""


def bar_columns(n=20, *, start=START, step=MINUTE, seed=0):
    """Clean bars, one after another."""
    random = np.random.default_rng(seed)
    close = 470 * np.exp(np.cumsum(random.normal(0, 1e-4, n)))
    opened = np.append(470.0, close[:-1])
    return {
        "timestamp": start + step * np.arange(n, dtype=np.int64),
        "open": opened,
        "high": np.maximum(opened, close) + 0.05,
        "low": np.minimum(opened, close) - 0.05,
        "close": close,
        "volume": random.integers(1, 1000, n).astype(float),
    }


def session_columns(n_sessions, *, first=date(2024, 1, 2), bars=390, seed=0):
    """Minutes of regular hours of New York on weekdays, from 09:30."""
    opens = [instant(day, time(9, 30)) for day in weekdays(n_sessions, first)]
    columns = bar_columns(n_sessions * bars, seed=seed)
    columns["timestamp"] = np.concatenate([o + MINUTE * np.arange(bars) for o in opens])
    return columns


def write_parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def write_text(path, columns, delimiter=",", header=True):
    names = list(columns)
    lines = [delimiter.join(names)] if header else []
    lines += [delimiter.join(str(v) for v in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def iso(times, offset=timedelta(0), suffix=""):
    """Text such as 2024-01-02T09:30:00 of ns UTC, moved by an offset and with that suffix."""
    moved = (datetime.fromtimestamp(t / 1e9, UTC) + offset for t in times)
    return [m.strftime("%Y-%m-%dT%H:%M:%S") + suffix for m in moved]
