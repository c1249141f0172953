"""Schemas: which features, in which order. Names only, so that sizes can be known without computing anything."""

from __future__ import annotations

CONDOR_BASE = (
    *("open", "high", "low", "close", "volume"),
    *("strike", "delta", "gamma", "vega", "theta"),
    *("iv", "ivr", "spread_ratio"),
    *("rsi", "atr", "adx", "stoch_k"),
    *("bb_lower", "bb_upper", "sma", "psar", "psar_mark"),
    *("dist_to_spot", "call_put"),
)
"""Columns 0-23 (FEAT-CB-24)."""

CONDOR_DYNAMIC = (
    *("log_return", "vol_ewma", "atr_pct", "kappa_proxy"),
    *("vol_energy", "rsi_dyn", "adx_adaptive", "psar_adaptive"),
)
"""Columns 24-31 (FEAT-CB-32)."""

PRIMITIVES = (
    *("adx_normalized", "bandwidth", "bb_position", "rsi_normalized", "stoch_normalized"),
    *("macd_signal", "vol_regime", "momentum_score", "beta1_regime", "curvature"),
    *("vwap_deviation", "sma_slope", "ema_cross", "range_ratio", "volume_surprise"),
    *("ivr_normalized", "iv_rv_spread", "spread_quality", "session_progress", "tda_persistence"),
)
"""Columns 32-51, P001 to P020 (FEAT-CB-52)."""
TWO_HOT = ("call", "put")
"""In place of `call_put`: one column more, and a schema of another name (C-18)."""

NQ = (
    *("log_return", "hl_range", "close_location"),
    *("log_volume", "volume_delta", "dollar_volume"),
    *("vwap_dev", "macd_hist"),
    *("sma_dev_1", "sma_dev_2", "sma_dev_3", "sma_dev_4", "sma_dev_5", "sma_dev_6"),
    *("rsi", "cci", "plus_di", "minus_di", "adx"),
    *("atr_norm", "bb_pctb", "bb_bandwidth"),
    "mfi",
    "gap",
)
"""Groups of 3, 3, 8, 5, 3 and 1, then the gap (FEAT-NQ-0). `sma_dev_k` is of the k-th window of `sma_windows`."""

MES_BEFORE_WEEKDAY = (
    *("return_1s", "return_5s", "return_10s", "return_30s", "return_60s"),
    *("log_return_1s", "log_return_5s", "log_return_10s", "log_return_30s", "log_return_60s"),
    *("momentum_1m", "momentum_5m", "momentum_15m"),
    *("volatility_30s", "volatility_60s", "volatility_300s"),
    *("range_1s", "range_30s", "range_60s", "range_300s"),
    *("direction", "upper_wick", "lower_wick", "body", "volume_delta"),
    *("ema_dev_9", "ema_dev_21", "ema_dev_50", "ema_dev_200"),
    *("rsi", "macd_line", "macd_signal", "macd_histogram"),
    *("bb_position", "bb_bandwidth", "atr_norm", "vwap_dev"),
    *("open_sin", "open_cos", "minutes_to_close"),
)
"""FEAT-MES-1..9 without the day of the week."""
MES_WEEKDAY = ("monday", "tuesday", "wednesday", "thursday", "friday")
MES_WEEKDAY_CYCLICAL = ("weekday_sin", "weekday_cos")
"""Two encodings of the day of the week (FEAT-MES-9)."""
MES_HIGHER = ("trend_1min", "trend_5min", "higher_momentum_1min", "higher_momentum_5min")
"""Columns from completed higher bars (FEAT-MES-10)."""
MES_LEVELS = ("open", "high", "low", "close")
"""Prices themselves, which scaling turns into ratios, z-scores or shares of the training range (DATA-11)."""

SCALING_BASELINE = (
    *("close_change_pct", "vwap", "price_range", "price_mom_3d", "price_mom_5d"),
    *("close_to_vwap_15", "close_to_vwap_60", "volume_change_1", "vwap_15", "vwap_60"),
)
"""The current ten (FEAT-SC-1)."""
SCALING_PHASE_1 = (
    *("rsi_14", "macd_line", "macd_signal", "macd_histogram"),
    *("bb_upper", "bb_lower", "bb_position", "stoch_k", "stoch_d", "atr_14"),
)
"""Ten more (FEAT-SC-2)."""
SCALING_PHASE_2 = (
    *("volatility_regime", "vix_correlation", "volume_weighted_price"),
    *("volume_profile_signal", "session_momentum", "day_of_week_effect"),
)
"""Six named ones (FEAT-SC-3)."""
SCALING_MICROSTRUCTURE = ("profile_poc", "profile_vah", "profile_val", "profile_width", "order_flow_imbalance")
"""FEAT-SC-5; spreads are left out because a market of bars holds no quotes."""
SCALING_TIME = (
    *("asia_session", "europe_session", "new_york_session", "asia_europe_overlap", "europe_new_york_overlap"),
    *("monday", "friday", "midweek", "opening_range_position", "closing_range_position", "lunch_hour"),
)
"""FEAT-SC-6."""
SCALING_30 = SCALING_BASELINE + SCALING_PHASE_1 + SCALING_PHASE_2 + SCALING_MICROSTRUCTURE + SCALING_TIME
"""Phase 2, completed (FEAT-SC-4, C-17)."""
BESIDE_PRICES = ("nq", "ym", "rty", "xlf", "xlk", "xle", "eurusd", "usdjpy")
"""Markets that the scaling document compares the S&P 500 with (FEAT-SC-7)."""
BESIDE_RELEASES = ("cpi", "nfp", "gdp")
"""Releases with a surprise (FEAT-SC-8)."""
SCALING_PHASE_3 = (
    *(f"correlation_{name}" for name in BESIDE_PRICES),
    *(f"return_over_{name}" for name in BESIDE_PRICES),
    *("minutes_to_fomc", "minutes_since_fomc"),
    *(f"{name}_surprise" for name in BESIDE_RELEASES),
    *("earnings_season", "advance_decline", "fund_flow"),
)
"""FEAT-SC-7..9: each is off where its series is not given."""


def _of(family: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{family}.{name}" for name in names)


SCHEMAS: dict[str, tuple[str, ...]] = {
    "condor24": _of("condor", CONDOR_BASE),
    "condor32": _of("condor", CONDOR_BASE + CONDOR_DYNAMIC),
    "condor52": _of("condor", CONDOR_BASE + CONDOR_DYNAMIC + PRIMITIVES),
    "condor24_two_hot": _of("condor", CONDOR_BASE[:-1] + TWO_HOT),
    "condor32_two_hot": _of("condor", CONDOR_BASE[:-1] + TWO_HOT + CONDOR_DYNAMIC),
    "condor52_two_hot": _of("condor", CONDOR_BASE[:-1] + TWO_HOT + CONDOR_DYNAMIC + PRIMITIVES),
    "nq24": _of("nq", NQ),
    "mes": _of("mes", MES_BEFORE_WEEKDAY + MES_WEEKDAY + MES_HIGHER),
    "mes_cyclical": _of("mes", MES_BEFORE_WEEKDAY + MES_WEEKDAY_CYCLICAL + MES_HIGHER),
    "scalper": _of("mes", MES_BEFORE_WEEKDAY + MES_WEEKDAY + MES_WEEKDAY_CYCLICAL + MES_LEVELS + MES_HIGHER),
    "scaling10": _of("scaling", SCALING_BASELINE),
    "scaling20": _of("scaling", SCALING_BASELINE + SCALING_PHASE_1),
    "scaling26": _of("scaling", SCALING_BASELINE + SCALING_PHASE_1 + SCALING_PHASE_2),
    "scaling30": _of("scaling", SCALING_30),
    "scaling50": _of("scaling", SCALING_30 + SCALING_PHASE_3),
}
"""Schema -> keys of the registry, in column order."""
