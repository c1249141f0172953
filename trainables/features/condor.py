"""Columns 0-31 of the condor schemas: the 24 base features and the 8 dynamic ones (FEAT-CB-24, FEAT-CB-32)."""

from __future__ import annotations

import numpy as np

from trainables.features import bars as kit
from trainables.features import manifold
from trainables.features.bars import Bars
from trainables.features.indicators import ratio
from trainables.features.rolling import Float
from trainables.features.row import FeatureRow, Kind, Lookback, bars_needed
from trainables.features.rules import VARIABLES
from trainables.features.settings import FeatureSettings


def psar_mark(bars: Bars) -> Float:
    """Return +1 where the parabolic stop is below the close, -1 above, 0 where equal (IND-10)."""
    return np.sign(bars.market.close - kit.psar(bars))


def distance_to_spot(bars: Bars) -> Float:
    """Return (strike - S)/S (FEAT-CB-24)."""
    return bars.market.strike / bars.market.close - 1.0


def atr_share(bars: Bars) -> Float:
    """Return the average true range as a share of the close (FEAT-CB-32)."""
    return ratio(kit.atr(bars), bars.market.close, 0.0)


def _base(
    name: str, group: str, kind: Kind = "number", variable: str | None = None, known: str = "bar end"
) -> FeatureRow:
    """A base column that is also a name of the rule language."""
    meaning = VARIABLES[variable or name]
    return FeatureRow(
        name=name,
        family="condor",
        group=group,
        lookback=meaning.lookback,
        known=known,
        source="condor document 2.2 (data)",
        requirement="FEAT-CB-24",
        function=meaning.values,
        kind=kind,
    )


def _own(name: str, group: str, function, lookback: Lookback, kind: Kind = "number") -> FeatureRow:  # type: ignore[no-untyped-def]
    dynamic = group == "dynamic"
    return FeatureRow(
        name=name,
        family="condor",
        group=group,
        lookback=lookback,
        source="condor document 2.5" if dynamic else "condor document 2.2 (data)",
        requirement="FEAT-CB-32" if dynamic else "FEAT-CB-24",
        function=function,
        kind=kind,
    )


def _atr_lookback(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.atr_n + 1


def _kappa_lookback(s: FeatureSettings, per_session: int) -> int:
    return manifold.kappa_lookback(s)


ROWS = (
    _base("open", "spot", "price"),
    _base("high", "spot", "price"),
    _base("low", "spot", "price"),
    _base("close", "spot", "price"),
    _base("volume", "spot"),
    _base("strike", "option", "price"),
    _base("delta", "option"),
    _base("gamma", "option"),
    _base("vega", "option"),
    _base("theta", "option"),
    _own("iv", "volatility", lambda bars: bars.market.option_iv, bars_needed(1)),
    _base("ivr", "volatility", known="previous session's close"),
    _base("spread_ratio", "volatility"),
    _base("rsi", "technical"),
    _base("atr", "technical", "distance"),
    _base("adx", "technical"),
    _base("stoch_k", "technical"),
    _base("bb_lower", "bands", "price"),
    _base("bb_upper", "bands", "price"),
    _base("sma", "bands", "price"),
    _base("psar", "bands", "price"),
    _own("psar_mark", "bands", psar_mark, bars_needed(2), "category"),
    _own("dist_to_spot", "metadata", distance_to_spot, bars_needed(1)),
    _own("call_put", "metadata", lambda bars: bars.market.is_call, bars_needed(1), "category"),
    _base("log_return", "dynamic"),
    _own("vol_ewma", "dynamic", manifold.volatility_column, lambda s, per_session: s.ewma_seed_n + 1),
    _own("atr_pct", "dynamic", atr_share, _atr_lookback),
    _own("kappa_proxy", "dynamic", manifold.kappa, _kappa_lookback),
    _own("vol_energy", "dynamic", manifold.volatility_energy, _kappa_lookback),
    _own(
        "rsi_dyn",
        "dynamic",
        manifold.dynamic_rsi,
        lambda s, per_session: max(s.indicators.rsi_n + 1, manifold.kappa_lookback(s)),
    ),
    _own(
        "adx_adaptive",
        "dynamic",
        manifold.adaptive_adx,
        lambda s, per_session: max(2 * s.indicators.adx_n, manifold.kappa_lookback(s)),
    ),
    _own("psar_adaptive", "dynamic", manifold.adaptive_psar, _atr_lookback),
)
