"""`python -m benchmarks.features`: condor52 without homology over a million minutes, against columns in pandas.

The peer is what a user writes: one column after another with rolling and ewm, on the whole series. The bars are one run
of minutes, so that both need no sessions; the columns that both define alike must agree before anything is timed.
`--homology` measures persistence at stride 5 over a year of minutes. One JSON line each.
"""

from __future__ import annotations

import os

from benchmarks.measure import THREADS, interleaved, peak_mib, report_peak

os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import time

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
TOLERANCE = 2e-4
"""Largest difference of a column, as a share of its standard deviation, beyond float32 rounding; from row WARM on."""
WARM = 5_000
"""Rows after which starting values of exponential averages, which differ, have died out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--homology", action="store_true", help="measure persistence over a year of minutes instead")
    parser.add_argument("--memory", choices=("ours", "pandas"), help="run one of them once, print its peak")
    options = parser.parse_args()
    if options.homology:
        print(json.dumps(_homology()))
        return
    market = minutes(options.rows)
    candidates = {"ours": lambda: compute("condor52", market, SETTINGS), "pandas": lambda: in_pandas(market)}
    if options.memory:
        small = minutes(2_000)
        compute("condor52", small, SETTINGS), in_pandas(small)  # compile and import first
        report_peak(candidates[options.memory])
        return
    largest, compared = _check(market)
    seconds = interleaved(candidates, options.repeats)
    size = ("--rows", str(options.rows))
    memory = {name: peak_mib("benchmarks.features", "--memory", name, *size) for name in candidates}
    output_mib = options.rows * 52 * 4 / 2**20
    print(
        json.dumps(
            {
                "benchmark": "features",
                "rows": options.rows,
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


def in_pandas(market: Market) -> pd.DataFrame:
    """Return the columns of condor52 as a user writes them; `psar` and the Hurst exponent by their usual loops."""
    names = ("open", "high", "low", "close", "volume", "strike", "delta", "gamma", "vega", "theta")
    bars = pd.DataFrame({name: getattr(market, name) for name in names}, copy=False)
    open_, high, low, close, volume = (bars[name] for name in names[:5])
    out = bars.copy()
    out["iv"], out["ivr"], out["spread_ratio"] = market.option_iv, market.iv_rank, market.spread_ratio
    _technicals(out, high, low, close)
    out["dist_to_spot"] = out["strike"] / close - 1
    out["call_put"] = market.is_call
    _dynamics(out, close)
    _primitives(out, market, open_, high, low, close, volume)
    return out.astype(np.float32)


def _technicals(out: pd.DataFrame, high: pd.Series, low: pd.Series, close: pd.Series) -> None:
    move = close.diff()
    gain = move.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-move).clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    out["rsi"] = 100 - 100 / (1 + gain / loss)
    before = close.shift()
    true_range = pd.concat([high - low, (high - before).abs(), (low - before).abs()], axis=1).max(axis=1)
    out["atr"] = true_range.ewm(alpha=1 / 14, adjust=False).mean()
    up, down = high.diff(), -low.diff()
    plus = up.where((up > down) & (up > 0), 0.0).ewm(alpha=1 / 14, adjust=False).mean() / out["atr"] * 100
    minus = down.where((down > up) & (down > 0), 0.0).ewm(alpha=1 / 14, adjust=False).mean() / out["atr"] * 100
    out["adx"] = (100 * (plus - minus).abs() / (plus + minus)).ewm(alpha=1 / 14, adjust=False).mean()
    bottom, top = low.rolling(14).min(), high.rolling(14).max()
    out["stoch_k"] = 100 * (close - bottom) / (top - bottom)
    mean, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    out["bb_lower"], out["bb_upper"], out["sma"] = mean - 2 * deviation, mean + 2 * deviation, mean
    out["psar"] = _psar_loop(high.to_numpy(), low.to_numpy())
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


def _dynamics(out: pd.DataFrame, close: pd.Series) -> None:
    returns = np.log(close).diff()
    out["log_return"] = returns
    out["vol_ewma"] = np.sqrt((returns**2).ewm(alpha=0.06, adjust=False).mean())
    out["atr_pct"] = out["atr"] / close
    out["kappa_proxy"] = returns.diff().diff().ewm(span=64, adjust=False).mean() / (out["vol_ewma"] + 1e-12)
    out["vol_energy"] = np.log1p(1000 * out["kappa_proxy"].abs())
    out["rsi_dyn"] = out["rsi"] * (1 + 0.5 * out["kappa_proxy"])
    out["adx_adaptive"] = out["adx"] / (1 + 0.1 * out["vol_energy"])
    out["psar_adaptive"] = (close - out["psar"]) / out["atr"]


def _primitives(
    out: pd.DataFrame,
    market: Market,
    open_: pd.Series,
    high: pd.Series,
    low: pd.Series,
    close: pd.Series,
    volume: pd.Series,
) -> None:
    out["adx_normalized"] = out["adx"] / 100
    out["bandwidth"] = (out["bb_upper"] - out["bb_lower"]) / out["sma"]
    out["bb_position"] = (close - out["bb_lower"]) / (out["bb_upper"] - out["bb_lower"])
    out["rsi_normalized"], out["stoch_normalized"] = out["rsi"] / 100, out["stoch_k"] / 100
    line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    out["macd_signal"] = np.sign(line - line.ewm(span=9, adjust=False).mean())
    deviation = out["log_return"].rolling(20).std(ddof=0)
    out["vol_regime"] = deviation / deviation.rolling(252).mean()
    out["momentum_score"] = (close - close.shift(14)) / out["atr"]
    out["beta1_regime"] = _hurst(np.log(close))
    out["curvature"] = np.log1p(out["kappa_proxy"].abs())
    typical = (high + low + close) / 3
    vwap = (typical * volume).cumsum() / volume.cumsum()
    out["vwap_deviation"] = ((close - vwap) / out["atr"]).clip(-10, 10)
    out["sma_slope"] = ((out["sma"] - out["sma"].shift(5)) / out["atr"]).clip(-10, 10)
    fast, slow = close.ewm(span=9, adjust=False).mean(), close.ewm(span=21, adjust=False).mean()
    out["ema_cross"] = ((fast - slow) / out["atr"]).clip(-10, 10)
    out["range_ratio"] = ((high - low) / out["atr"]).clip(0, 10)
    out["volume_surprise"] = np.log((volume + 1) / (volume.rolling(20).mean() + 1)).clip(-10, 10)
    out["ivr_normalized"] = out["ivr"] / 100
    realised = np.sqrt((out["log_return"] ** 2).rolling(390).mean() * 252 * 390)
    out["iv_rv_spread"] = (pd.Series(market.iv).shift() - realised).clip(-5, 5)
    out["spread_quality"] = 1 / (1 + 10 * out["spread_ratio"])
    stamps = pd.to_datetime(market.event_time)
    out["session_progress"] = (stamps - stamps[0]).total_seconds() / 60 / 390
    out["tda_persistence"] = 0.0


def _hurst(log_close: pd.Series) -> pd.Series:
    lags = (1, 2, 4, 8, 16)
    squares = pd.DataFrame({k: (log_close.diff(k) ** 2).rolling(256 - k).mean() for k in lags})
    x = np.log2(lags) - np.log2(lags).mean()
    return (0.5 * np.log2(squares).dot(x / (x**2).sum())).clip(0, 1)


def _check(market: Market) -> tuple[float, int]:
    """Compare every column from row WARM on; return the largest difference in deviations, and how many columns."""
    features, names = compute("condor52", market, SETTINGS)
    theirs = in_pandas(market)
    largest = 0.0
    for name, mine in zip(names, features.T, strict=True):
        a, b = mine[WARM:].astype(np.float64), theirs[name].to_numpy()[WARM:].astype(np.float64)
        scale = max(float(np.nanstd(a)), 1e-12)
        difference = np.nanmax(np.abs(a - b)) / scale
        rounding = 2.0**-23 * np.nanmax(np.abs(a)) / scale
        if np.isnan(a).any() or np.isnan(b).any() or difference > TOLERANCE + rounding:
            raise AssertionError(f"{name}: expected equal columns, found a difference of {difference:.1e} deviations")
        largest = max(largest, difference)
    return largest, len(names)


def _homology() -> dict[str, object]:
    """Persistence of 252 sessions of 390 minutes at stride 5, one process."""
    market = minutes(252 * 390, 390)
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
