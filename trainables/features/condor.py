"""Columns 0-31 of the condor schemas: the 24 base features and the 8 dynamic ones (FEAT-CB-24, FEAT-CB-32)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainables.features import bars as kit
from trainables.features import manifold
from trainables.features.bars import Bars
from trainables.features.indicators import ratio
from trainables.features.rolling import Float
from trainables.features.row import FeatureRow, Kind, Lookback, bars_needed
from trainables.features.rules import VARIABLES
from trainables.features.schemas import TWO_HOT
from trainables.features.settings import FeatureSettings


def psar_mark(bars: Bars) -> Float:
    """Return +1 where the parabolic stop is below the close, -1 above, 0 where equal (IND-10)."""
    return np.sign(bars.market.close - kit.psar(bars))


def distance_to_spot(bars: Bars) -> Float:
    """Return (strike - S)/S (FEAT-CB-24)."""
    return bars.market.strike / bars.market.close - 1.0


def _is_side(side: float) -> Callable[[Bars], Float]:
    """Return the feature: 1 where the option is a call (side 1) or a put (-1), else 0 (C-18)."""
    return lambda bars: (bars.market.is_call == side).astype(np.float64)


def atr_share(bars: Bars) -> Float:
    """Return the average true range as a share of the close (FEAT-CB-32)."""
    return ratio(kit.atr(bars), bars.market.close, 0.0)


def _row(
    name: str,
    group: str,
    function: Callable[[Bars], Float],
    lookback: Lookback,
    *,
    kind: Kind = "number",
    known: str = "bar end",
    requirement: str | None = None,
) -> FeatureRow:
    dynamic = group == "dynamic"
    return FeatureRow(
        name=name,
        family="condor",
        group=group,
        lookback=lookback,
        known=known,
        source="condor document 2.5" if dynamic else "condor document 2.2 (data)",
        requirement=requirement or ("FEAT-CB-32" if dynamic else "FEAT-CB-24"),
        function=function,
        kind=kind,
    )


def _variable(name: str, group: str, kind: Kind = "number", known: str = "bar end") -> FeatureRow:
    """A column that is also a name of the rule language."""
    return _row(name, group, VARIABLES[name].values, VARIABLES[name].lookback, kind=kind, known=known)


def _atr_lookback(s: FeatureSettings, per_session: int) -> int:
    return s.indicators.atr_n + 1


def _kappa_lookback(s: FeatureSettings, per_session: int) -> int:
    return manifold.kappa_lookback(s)


ROWS = (
    _variable("open", "spot", "price"),
    _variable("high", "spot", "price"),
    _variable("low", "spot", "price"),
    _variable("close", "spot", "price"),
    _variable("volume", "spot"),
    _variable("strike", "option", "price"),
    _variable("delta", "option"),
    _variable("gamma", "option"),
    _variable("vega", "option"),
    _variable("theta", "option"),
    _row("iv", "volatility", lambda bars: bars.market.option_iv, bars_needed(1)),
    _variable("ivr", "volatility", known="previous session's close"),
    _variable("spread_ratio", "volatility"),
    _variable("rsi", "technical"),
    _variable("atr", "technical", "distance"),
    _variable("adx", "technical"),
    _variable("stoch_k", "technical"),
    _variable("bb_lower", "bands", "price"),
    _variable("bb_upper", "bands", "price"),
    _variable("sma", "bands", "price"),
    _variable("psar", "bands", "price"),
    _row("psar_mark", "bands", psar_mark, bars_needed(2), kind="category"),
    _row("dist_to_spot", "metadata", distance_to_spot, bars_needed(1)),
    _row("call_put", "metadata", lambda bars: bars.market.is_call, bars_needed(1), kind="category"),
    *(
        _row(name, "metadata", _is_side(side), bars_needed(1), kind="category")
        for name, side in zip(TWO_HOT, (1.0, -1.0), strict=True)
    ),
    _variable("log_return", "dynamic"),
    _row("vol_ewma", "dynamic", manifold.volatility_column, lambda s, per_session: s.ewma_seed_n + 1),
    _row("atr_pct", "dynamic", atr_share, _atr_lookback),
    _row("kappa_proxy", "dynamic", manifold.kappa, _kappa_lookback, requirement="FEAT-CB-33"),
    _row("vol_energy", "dynamic", manifold.volatility_energy, _kappa_lookback, requirement="FEAT-CB-34"),
    _row(
        "rsi_dyn",
        "dynamic",
        manifold.dynamic_rsi,
        lambda s, per_session: max(s.indicators.rsi_n + 1, manifold.kappa_lookback(s)),
        requirement="FEAT-CB-35",
    ),
    _row(
        "adx_adaptive",
        "dynamic",
        manifold.adaptive_adx,
        lambda s, per_session: max(2 * s.indicators.adx_n, manifold.kappa_lookback(s)),
        requirement="FEAT-CB-35",
    ),
    _row("psar_adaptive", "dynamic", manifold.adaptive_psar, _atr_lookback, requirement="FEAT-CB-35"),
)
