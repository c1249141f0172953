"""`python -m benchmarks.features`: condor52 without homology over a million minutes, against what users write.

Two peers: `pandas`, one column after another with rolling and ewm; `package`, the standard indicators by
pandas-ta-classic (the extra `bench`; it calls TA-Lib where it can) and the rest in pandas. Windows and averages begin
anew with every session (DATA-10), in pandas by groupby, with the package session by session; `--one-run` is the same
without sessions, which favours both. First all 52 columns must agree with both, at the end of sessions that are long
enough for starting values, which differ, to die out. The package runs on the first `--package-rows` alone.
`--homology` measures persistence at stride 5 over a year of minutes. One JSON line each.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS, interleaved, peak_mib, report_peak

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pandas as pd

from benchmarks.condor_peers import in_package, in_pandas
from trainables.data.market import Market
from trainables.features.bars import Bars
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings
from trainables.features.topology import persistence

MINUTE = 60 * 10**9
OPENING = int(np.datetime64("2024-01-02T14:30", "ns").astype(np.int64))
SETTINGS = FeatureSettings()
TOLERANCE = 1e-4
"""Largest difference of a column, as a share of its standard deviation, beyond float32 rounding."""
PER_SESSION = 390
COMPARED_SESSION, WARM_BARS = 1380, 1200
"""Bars of a session where columns are compared, and those of each before the first one compared."""
FIRST_ROWS = 2_000
"""Rows that are not compared, because windows over several sessions fill there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--package-rows", type=int, default=200_000, help="rows for the package, which is slow")
    parser.add_argument("--one-run", action="store_true", help="no sessions")
    parser.add_argument("--homology", action="store_true", help="measure persistence over a year of minutes instead")
    parser.add_argument("--memory", choices=("ours", "pandas"), help="run one of them once, print its peak")
    options = parser.parse_args()
    if options.homology:
        print(json.dumps(_homology()))
        return
    market = minutes(options.rows, None if options.one_run else PER_SESSION)
    part = minutes(min(options.package_rows, options.rows), None if options.one_run else PER_SESSION)
    candidates = {"ours": lambda: compute("condor52", market, SETTINGS), "pandas": lambda: in_pandas(market)}
    if options.memory:
        small = minutes(4_000, PER_SESSION)
        compute("condor52", small, SETTINGS), in_pandas(small)  # compile and import first
        report_peak(candidates[options.memory])
        return
    peers = {"pandas": in_pandas, **({"package": in_package} if find_spec("pandas_ta_classic") else {})}
    judged = minutes(min(options.rows, 200_000), None if options.one_run else COMPARED_SESSION)
    largest = {name: float(f"{_check(judged, peer):.1e}") for name, peer in peers.items()}
    if "package" in peers:
        candidates["package"] = lambda: in_package(part)
    seconds = interleaved(candidates, options.repeats)
    rate = {name: (len(part) if name == "package" else options.rows) / value for name, value in seconds.items()}
    size = ("--rows", str(options.rows), *(("--one-run",) if options.one_run else ()))
    memory = {name: peak_mib("benchmarks.features", "--memory", name, *size) for name in ("ours", "pandas")}
    output_mib = options.rows * 52 * 4 / 2**20
    print(
        json.dumps(
            {
                "benchmark": "features",
                "rows": options.rows,
                "sessions": int(market.session[-1]) + 1,
                "columns": 52,
                "largest_difference_in_deviations": largest,
                "cpu_s": {name: round(value, 3) for name, value in seconds.items()},
                "rows_per_s": {name: round(value) for name, value in rate.items()},
                **{f"ratio_to_{name}": round(rate["ours"] / rate[name], 2) for name in peers},
                "peak_mib": {name: round(value) for name, value in memory.items()},
                "memory_over_output": round(memory["ours"] / output_mib, 2),
            }
        )
    )


def minutes(n: int, per_session: int | None = None) -> Market:
    """Return n synthetic minute bars with an option each: one session, or sessions of equal length."""
    random = np.random.default_rng(0)
    close = 470.0 * np.exp(np.cumsum(random.normal(0.0, 4e-4, n)))
    opened = np.append(close[:1], close[:-1])
    wick = np.abs(random.normal(0.0, 2e-4, (2, n))) * close
    session, inside = np.divmod(np.arange(n), per_session or n)
    event = OPENING + session * 24 * 60 * MINUTE + inside * MINUTE
    iv = 0.15 + 0.03 * np.sin(np.arange(n) / 5_000.0) + random.normal(0.0, 1e-3, n)
    return Market(
        event_time=event,
        known_time=event + MINUTE,
        open=opened,
        high=np.maximum(opened, close) + wick[0],
        low=np.minimum(opened, close) - wick[1],
        close=close,
        volume=random.integers(1, 10_000, n).astype(float),
        is_filled=np.zeros(n, dtype=bool),
        session=session,
        segment=np.zeros(n, dtype=np.int64),
        iv=iv,
        iv_rank=random.uniform(0.0, 100.0, n),
        strike=np.round(close),
        delta=random.uniform(-0.6, -0.4, n),
        gamma=random.uniform(0.01, 0.02, n),
        vega=random.uniform(40.0, 60.0, n),
        theta=random.uniform(-30.0, -20.0, n),
        option_iv=iv,
        spread_ratio=random.uniform(0.01, 0.03, n),
        is_call=np.full(n, -1.0),
        bars_per_session=390,
        rate_ann=0.02,
        marks={},
        snapshot="synthetic",
    )


def _check(market: Market, peer: Callable[[Market], pd.DataFrame]) -> float:
    """Compare every column where both are warm; return the largest difference in deviations."""
    features, names = compute("condor52", market, SETTINGS)
    theirs = peer(market)
    begins = np.flatnonzero(np.diff(market.session, prepend=-1))
    age = np.arange(len(market)) - begins[market.session]
    rows = np.flatnonzero((age >= WARM_BARS) & (np.arange(len(market)) >= FIRST_ROWS))
    largest = 0.0
    for name, mine in zip(names, features.T, strict=True):
        a, b = (x[rows].astype(np.float64) for x in (mine, theirs[name].to_numpy()))
        scale = max(float(a.std()), 1e-12)
        difference = float(np.abs(a - b).max()) / scale
        rounding = 2.0**-22 * np.abs(a).max() / scale
        if not difference <= TOLERANCE + rounding:
            raise AssertionError(f"{name}: expected equal columns, found a difference of {difference:.1e} deviations")
        largest = max(largest, difference)
    return largest


def _homology() -> dict[str, object]:
    """Persistence of 252 sessions of 390 minutes at stride 5, one process."""
    market = minutes(252 * PER_SESSION, PER_SESSION)
    settings = FeatureSettings(tda=True)
    persistence(Bars(minutes(600), settings))
    begin = time.process_time()
    values = persistence(Bars(market, settings))
    seconds = time.process_time() - begin
    windows = -(-(len(market) - settings.tda_window + 1) // settings.tda_stride)
    assert np.isfinite(values[settings.tda_window - 1 :]).all()
    return {
        "benchmark": "features_homology",
        "minutes": len(market),
        "windows": windows,
        "cpu_s": round(seconds, 1),
        "ms_per_window": round(1e3 * seconds / windows, 3),
    }


if __name__ == "__main__":
    main()
