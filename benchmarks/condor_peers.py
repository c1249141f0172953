"""The 52 columns of the condor schema as users write them: in pandas, and with an indicator package on pandas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainables.data.market import Market

BESIDES = ("macd_line", "macd_signal_line", "ema_9", "ema_21", "vwap")
"""Columns on the way, not of the schema."""


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


Technicals = Callable[[pd.DataFrame, "Run", NDArray[np.int64]], None]
"""Adds the standard indicators to open, high, low, close and volume."""


def in_package(market: Market) -> pd.DataFrame:
    """Return the columns of condor52 with pandas-ta-classic for the standard indicators, session by session."""
    return in_pandas(market, _technicals_of_package)


def in_pandas(market: Market, technicals: Technicals | None = None) -> pd.DataFrame:
    """Return the columns of condor52 as a user writes them; the parabolic stop by the usual loop in Python."""
    names = ("open", "high", "low", "close", "volume", "strike", "delta", "gamma", "vega", "theta")
    out = pd.DataFrame({name: getattr(market, name) for name in names})
    out["iv"], out["ivr"], out["spread_ratio"] = market.option_iv, market.iv_rank, market.spread_ratio
    run = Run(market.session)
    (technicals or _technicals)(out, run, market.session)
    out["dist_to_spot"] = out["strike"] / out["close"] - 1
    out["call_put"] = market.is_call
    _dynamics(out, run)
    _primitives(out, run, market)
    return out.drop(columns=[*BESIDES]).astype(np.float32)


def _technicals_of_package(out: pd.DataFrame, run: Run, session: NDArray[np.int64]) -> None:
    """The indicators of pandas-ta-classic, which calls TA-Lib where it can: on each session, for they know of none."""
    bounds = np.append(np.flatnonzero(np.diff(session, prepend=-1)), len(session))
    stamped = out[["high", "low", "close", "volume"]].set_axis(pd.date_range("2024-01-02", periods=len(out), freq="s"))
    parts = [_package_columns(stamped.iloc[a:b]) for a, b in pairwise(bounds)]
    for name, values in pd.concat(parts).items():
        out[name] = values.to_numpy()


def _package_columns(bars: pd.DataFrame) -> dict[str, pd.Series]:
    import pandas_ta_classic as ta

    high, low, close, volume = (bars[name] for name in ("high", "low", "close", "volume"))
    bands = ta.bbands(close, length=20, std=2, ddof=0, talib=True)
    stop = ta.psar(high, low, close, talib=True)
    macd = ta.macd(close, talib=True)
    typical = (high + low + close) / 3
    return pd.DataFrame(
        {
            "rsi": ta.rsi(close, length=14, talib=True),
            "atr": ta.atr(high, low, close, length=14, talib=True),
            "adx": ta.adx(high, low, close, length=14, talib=True).iloc[:, 0],
            "stoch_k": ta.stoch(high, low, close, k=14, d=3, smooth_k=1).iloc[:, 0],
            "bb_lower": bands.iloc[:, 0],
            "bb_upper": bands.iloc[:, 2],
            "sma": bands.iloc[:, 1],
            "psar": stop.iloc[:, 0].fillna(stop.iloc[:, 1]),
            "macd_line": macd.iloc[:, 0],
            "macd_signal_line": macd.iloc[:, 2],
            "ema_9": ta.ema(close, length=9, talib=True),
            "ema_21": ta.ema(close, length=21, talib=True),
            "vwap": (typical * volume).cumsum() / volume.cumsum(),
        }
    ).assign(psar_mark=lambda x: np.sign(close - x["psar"]))


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
    out["macd_line"] = run.ewm(close, span=12) - run.ewm(close, span=26)
    out["macd_signal_line"] = run.ewm(out["macd_line"], span=9)
    out["ema_9"], out["ema_21"] = run.ewm(close, span=9), run.ewm(close, span=21)
    out["vwap"] = run.cumsum((high + low + close) / 3 * out["volume"]) / run.cumsum(out["volume"])


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
    out["macd_signal"] = np.sign(out["macd_line"] - out["macd_signal_line"])
    deviation = run.rolling(out["log_return"], 20, "std", ddof=0)
    out["vol_regime"] = deviation / deviation.dropna().rolling(252).mean().reindex(deviation.index)
    out["momentum_score"] = (close - run.shift(close, 14)) / atr
    out["beta1_regime"] = _hurst(out["log_return"].fillna(0.0).cumsum())
    out["curvature"] = np.log1p(out["kappa_proxy"].abs())
    out["vwap_deviation"] = ((close - out["vwap"]) / atr).clip(-10, 10)
    out["sma_slope"] = ((out["sma"] - run.shift(out["sma"], 5)) / atr).clip(-10, 10)
    out["ema_cross"] = ((out["ema_9"] - out["ema_21"]) / atr).clip(-10, 10)
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
