"""`python -m benchmarks.asof`: 10 million option rows joined to a million minute bars, against polars and pandas.

Option rows (time, symbol) in time order; bars of six symbols with five columns, known a minute after their
stamp, at most five minutes old. All three must give the same numbers before anything is timed. One JSON line.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS, interleaved, peak_mib, report_peak

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json

import numpy as np
import pandas as pd
import polars as pl

from trainables.data.asof import asof_join

MINUTE = 60 * 10**9
LAG, MAX_AGE = MINUTE, 5 * MINUTE
COLUMNS = ("open", "high", "low", "close", "volume")
SYMBOLS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--bars", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", choices=("ours", "polars", "pandas"), help="run one of them once, print its peak")
    options = parser.parse_args()
    joins = _joins(options.rows, options.bars)
    if options.memory:
        _joins(1000, 1000)[options.memory]()  # compile and import first
        report_peak(joins[options.memory])
        return
    _check(joins)
    seconds = interleaved(joins, options.repeats)
    size = ("--rows", str(options.rows), "--bars", str(options.bars))
    memory = {name: peak_mib("benchmarks.asof", "--memory", name, *size) for name in joins}
    output_mib = options.rows * len(COLUMNS) * 8 / 2**20
    print(
        json.dumps(
            {
                "benchmark": "asof",
                "rows": options.rows,
                "bars": options.bars,
                "cpu_s": {name: round(value, 4) for name, value in seconds.items()},
                "peak_mib": {name: round(value) for name, value in memory.items()},
                "ratio_to_faster_peer": round(min(seconds["polars"], seconds["pandas"]) / seconds["ours"], 2),
                "memory_over_output": round(memory["ours"] / output_mib, 2),
            }
        )
    )


def _joins(n_rows: int, n_bars: int):
    random = np.random.default_rng(0)
    span = n_bars // SYMBOLS
    bar_time = np.repeat(np.arange(span), SYMBOLS) * MINUTE
    bar_key = np.tile(np.arange(SYMBOLS), span)
    kept = random.random(len(bar_time)) < 0.9
    bar_time, bar_key = bar_time[kept], bar_key[kept]
    values = random.normal(size=(len(bar_time), len(COLUMNS)))
    times = np.sort(random.integers(0, span * MINUTE, n_rows))
    keys = random.integers(0, SYMBOLS, n_rows)

    known = bar_time + LAG
    columns = {name: np.ascontiguousarray(values[:, i]) for i, name in enumerate(COLUMNS)}
    left_pandas = pd.DataFrame({"time": times, "key": keys}, copy=False)
    right_pandas = pd.DataFrame({"time": known, "key": bar_key, **columns}, copy=False)
    left_polars, right_polars = pl.from_pandas(left_pandas), pl.from_pandas(right_pandas)
    tolerance = MAX_AGE - LAG

    def ours():
        return asof_join(times, known, values, keys=keys, known_keys=bar_key, event_time=bar_time, max_age_ns=MAX_AGE)

    def polars():
        return left_polars.join_asof(
            right_polars, on="time", by="key", strategy="backward", tolerance=tolerance, check_sortedness=False
        )

    def pandas():
        return pd.merge_asof(left_pandas, right_pandas, on="time", by="key", tolerance=tolerance)

    return {"ours": ours, "polars": polars, "pandas": pandas}


def _check(joins) -> None:
    mine, theirs, others = joins["ours"](), joins["polars"](), joins["pandas"]()
    for i, name in enumerate(COLUMNS):
        np.testing.assert_array_equal(mine[:, i], theirs[name].to_numpy())
        np.testing.assert_array_equal(mine[:, i], others[name].to_numpy())


if __name__ == "__main__":
    main()
