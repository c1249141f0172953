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


def _of(family: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{family}.{name}" for name in names)


SCHEMAS: dict[str, tuple[str, ...]] = {
    "condor24": _of("condor", CONDOR_BASE),
    "condor32": _of("condor", CONDOR_BASE + CONDOR_DYNAMIC),
    "condor52": _of("condor", CONDOR_BASE + CONDOR_DYNAMIC + PRIMITIVES),
}
"""Schema -> keys of the registry, in column order."""
