"""`python -m benchmarks.features`: condor52 without homology over a million minutes, against columns in pandas.

The peer is what a user writes: one column after another with rolling and ewm. Windows and averages begin anew with
every session (DATA-10), in pandas by groupby; `--one-run` is the same without sessions, which favours pandas. First all
52 columns must agree, at the end of sessions that are long enough for starting values, which differ, to die out.
`--homology` measures persistence at stride 5 over a year of minutes. One JSON line each.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS, interleaved, peak_mib, report_peak

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import time
from itertools import pairwise

import numpy as np
import pandas as pd

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
    parser.add_argument("--one-run", action="store_true", help="no sessions")
    parser.add_argument("--homology", action="store_true", help="measure persistence over a year of minutes instead")
    parser.add_argument("--memory", choices=("ours", "pandas"), help="run one of them once, print its peak")
    options = parser.parse_args()
    if options.homology:
        print(json.dumps(_homology()))
        return
    market = minutes(options.rows, None if options.one_run else PER_SESSION)
    candidates = {"ours": lambda: compute("condor52", market, SETTINGS), "pandas": lambda: in_pandas(market)}
    if options.memory:
        small = minutes(4_000, PER_SESSION)
        compute("condor52", small, SETTINGS), in_pandas(small)  # compile and import first
        report_peak(candidates[options.memory])
        return
    largest, compared = _check(minutes(options.rows, None if options.one_run else COMPARED_SESSION))
    seconds = interleaved(candidates, options.repeats)
    size = ("--rows", str(options.rows), *(("--one-run",) if options.one_run else ()))
    memory = {name: peak_mib("benchmarks.features", "--memory", name, *size) for name in candidates}
    output_mib = options.rows * 52 * 4 / 2**20
    print(
        json.dumps(
            {
                "benchmark": "features",
                "rows": options.rows,
                "sessions": int(market.session[-1]) + 1,
                "columns": 52,
                "columns_compared": compared,
                "largest_difference_in_deviations": float(f"{largest:.1e}"),
                "cpu_s": {name: round(value, 3) for name, value in seconds.items()},
                "rows_per_s": round(options.rows / seconds["ours"]),
                "ratio_to_pandas": round(seconds["pandas"] / seconds["ours"], 2),
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


class Run:
    """Rolling and ewm that begin anew with every session, where there is more than one."""

    def __init__(self, session: np.ndarray) -> None:
        self.session = session if session[-1] else None

    def rolling(self, x: pd.Series, n: int, how: str, **options: float) -> pd.Series:
        if self.session is None:
            return getattr(x.rolling(n), how)(**options)
        return getattr(x.groupby(self.session).rolling(n), how)(**options).droplevel(0)

    def ewm(self, x: pd.Series, **weight: float) -> pd.Series:
        if self.session is None:
            return x.ewm(adjust=False, **weight).mean()
        return x.groupby(self.session).ewm(adjust=False, **weight).mean().droplevel(0)

    def shift(self, x: pd.Series, n: int = 1) -> pd.Series:
        return x.shift(n) if self.session is None else x.groupby(self.session).shift(n)

    def cumsum(self, x: pd.Series) -> pd.Series:
        return x.cumsum() if self.session is None else x.groupby(self.session).cumsum()


def in_pandas(market: Market) -> pd.DataFrame:
    """Return the columns of condor52 as a user writes them; the parabolic stop by the usual loop in Python."""
    names = ("open", "high", "low", "close", "volume", "strike", "delta", "gamma", "vega", "theta")
    out = pd.DataFrame({name: getattr(market, name) for name in names})
    out["iv"], out["ivr"], out["spread_ratio"] = market.option_iv, market.iv_rank, market.spread_ratio
    run = Run(market.session)
    _technicals(out, run, market.session)
    out["dist_to_spot"] = out["strike"] / out["close"] - 1
    out["call_put"] = market.is_call
    _dynamics(out, run)
    _primitives(out, run, market)
    return out.astype(np.float32)


def _technicals(out: pd.DataFrame, run: Run, session: np.ndarray) -> None:
    high, low, close = out["high"], out["low"], out["close"]
    before = run.shift(close)
    move = close - before
    gain, loss = (run.ewm(x, alpha=1 / 14) for x in (move.clip(lower=0), (-move).clip(lower=0)))
    out["rsi"] = 100 - 100 / (1 + gain / loss)
    true_range = pd.concat([high - low, (high - before).abs(), (low - before).abs()], axis=1).max(axis=1)
    out["atr"] = run.ewm(true_range.where(before.notna()), alpha=1 / 14)
    up, down = high - run.shift(high), run.shift(low) - low
    plus = 100 * run.ewm(up.where((up > down) & (up > 0), 0.0).where(before.notna()), alpha=1 / 14) / out["atr"]
    minus = 100 * run.ewm(down.where((down > up) & (down > 0), 0.0).where(before.notna()), alpha=1 / 14) / out["atr"]
    out["adx"] = run.ewm(100 * (plus - minus).abs() / (plus + minus), alpha=1 / 14)
    bottom, top = run.rolling(low, 14, "min"), run.rolling(high, 14, "max")
    out["stoch_k"] = 100 * (close - bottom) / (top - bottom)
    mean, deviation = run.rolling(close, 20, "mean"), run.rolling(close, 20, "std", ddof=0)
    out["bb_lower"], out["bb_upper"], out["sma"] = mean - 2 * deviation, mean + 2 * deviation, mean
    bounds = np.append(np.flatnonzero(np.diff(session, prepend=-1)), len(session))
    stops = [_psar_loop(high.to_numpy()[a:b], low.to_numpy()[a:b]) for a, b in pairwise(bounds)]
    out["psar"] = np.concatenate(stops)
    out["psar_mark"] = np.sign(close - out["psar"])


def _psar_loop(high: np.ndarray, low: np.ndarray, step: float = 0.02, largest: float = 0.2) -> np.ndarray:
    """The loop that indicator packages on pandas run in Python."""
    out = np.full(len(high), np.nan)
    is_long = not (low[0] - low[1] > max(high[1] - high[0], 0.0))
    extreme, stop, factor = (high[1], low[0], step) if is_long else (low[1], high[0], step)
    high_before, low_before = high[1], low[1]
    for i in range(1, len(high)):
        h, b = high[i], low[i]
        if is_long and b <= stop:
            is_long, stop = False, max(extreme, high_before, h)
            out[i], factor, extreme = stop, step, b
            stop = max(stop + factor * (extreme - stop), high_before, h)
        elif not is_long and h >= stop:
            is_long, stop = True, min(extreme, low_before, b)
            out[i], factor, extreme = stop, step, h
            stop = min(stop + factor * (extreme - stop), low_before, b)
        elif is_long:
            out[i] = stop
            if h > extreme:
                extreme, factor = h, min(factor + step, largest)
            stop = min(stop + factor * (extreme - stop), low_before, b)
        else:
            out[i] = stop
            if b < extreme:
                extreme, factor = b, min(factor + step, largest)
            stop = max(stop + factor * (extreme - stop), high_before, h)
        high_before, low_before = h, b
    return out


def _dynamics(out: pd.DataFrame, run: Run) -> None:
    close, log_close = out["close"], np.log(out["close"])
    returns = log_close - run.shift(log_close)
    out["log_return"] = returns
    out["vol_ewma"] = np.sqrt(run.ewm(returns**2, alpha=0.06))
    out["atr_pct"] = out["atr"] / close
    acceleration = returns - 2 * run.shift(returns) + run.shift(returns, 2)
    out["kappa_proxy"] = run.ewm(acceleration, span=64) / (out["vol_ewma"] + 1e-12)
    out["vol_energy"] = np.log1p(1000 * out["kappa_proxy"].abs())
    out["rsi_dyn"] = out["rsi"] * (1 + 0.5 * out["kappa_proxy"])
    out["adx_adaptive"] = out["adx"] / (1 + 0.1 * out["vol_energy"])
    out["psar_adaptive"] = (close - out["psar"]) / out["atr"]


def _primitives(out: pd.DataFrame, run: Run, market: Market) -> None:
    high, low, close, volume, atr = (out[name] for name in ("high", "low", "close", "volume", "atr"))
    out["adx_normalized"] = out["adx"] / 100
    out["bandwidth"] = (out["bb_upper"] - out["bb_lower"]) / out["sma"]
    out["bb_position"] = (close - out["bb_lower"]) / (out["bb_upper"] - out["bb_lower"])
    out["rsi_normalized"], out["stoch_normalized"] = out["rsi"] / 100, out["stoch_k"] / 100
    line = run.ewm(close, span=12) - run.ewm(close, span=26)
    out["macd_signal"] = np.sign(line - run.ewm(line, span=9))
    deviation = run.rolling(out["log_return"], 20, "std", ddof=0)
    out["vol_regime"] = deviation / deviation.dropna().rolling(252).mean().reindex(deviation.index)
    out["momentum_score"] = (close - run.shift(close, 14)) / atr
    out["beta1_regime"] = _hurst(out["log_return"].fillna(0.0).cumsum())
    out["curvature"] = np.log1p(out["kappa_proxy"].abs())
    vwap = run.cumsum((high + low + close) / 3 * volume) / run.cumsum(volume)
    out["vwap_deviation"] = ((close - vwap) / atr).clip(-10, 10)
    out["sma_slope"] = ((out["sma"] - run.shift(out["sma"], 5)) / atr).clip(-10, 10)
    out["ema_cross"] = ((run.ewm(close, span=9) - run.ewm(close, span=21)) / atr).clip(-10, 10)
    out["range_ratio"] = ((high - low) / atr).clip(0, 10)
    out["volume_surprise"] = np.log((volume + 1) / (run.rolling(volume, 20, "mean") + 1)).clip(-10, 10)
    out["ivr_normalized"] = out["ivr"] / 100
    squares = (out["log_return"] ** 2).dropna()
    realised = np.sqrt(squares.rolling(390).mean() * 252 * 390).reindex(close.index).ffill()
    out["iv_rv_spread"] = (pd.Series(market.iv).shift() - realised).clip(-5, 5)
    out["spread_quality"] = 1 / (1 + 10 * out["spread_ratio"])
    stamps = pd.Series(pd.to_datetime(market.event_time))
    opened = stamps.groupby(market.session).transform("first")
    out["session_progress"] = (stamps - opened).dt.total_seconds() / 60 / 390
    out["tda_persistence"] = 0.0


def _hurst(path: pd.Series) -> pd.Series:
    lags = (1, 2, 4, 8, 16)
    squares = pd.DataFrame({k: (path.diff(k) ** 2).rolling(256 - k).mean() for k in lags})
    x = np.log2(lags) - np.log2(lags).mean()
    return (0.5 * np.log2(squares).dot(x / (x**2).sum())).clip(0, 1)


def _check(market: Market) -> tuple[float, int]:
    """Compare every column where both are warm; return the largest difference in deviations, and how many columns."""
    features, names = compute("condor52", market, SETTINGS)
    theirs = in_pandas(market)
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
    return largest, len(names)


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
