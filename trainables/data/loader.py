"""The market of a `data` section: bars placed in time, cut at the vault, completed with volatility and a chain.

The vault is cut right after times are known: rows of the final test period are checked for defects with the rest of
their file, but nothing is computed from them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.arch_source import VIX_KNOWN, read_vix
from trainables.data.bars import digest
from trainables.data.chain import PUT, ReferenceOption, reference_option
from trainables.data.config import DataConfig, FinalFolds, FoldsConfig, Unfolded, absent
from trainables.data.folds import FoldPlan, plan_folds
from trainables.data.market import Market
from trainables.data.placed_bars import PlacedBars
from trainables.data.placement import place_bars
from trainables.data.sessions import usual_step_s
from trainables.data.volatility import Volatility, garch_volatility, rank
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, day_of, instants, local_day

Vault = Literal["closed", "open"]
PATHS: dict[str, Any] = {"bars": True, "iv": True, "chain": {"path": True}, "series": True}
"""Settings that say where files are; their content counts, not their place."""
MODEL = "GARCH(1,1) on past returns"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketOutline:
    """What a plan shows about a market, known without modelling anything.

    Attributes:
        plan: Folds and vault.
        known_time: (n_bars,) When each bar is known, ns UTC, those of the vault included.
        marks: What is modelled, not measured, and what was dropped.
    """

    plan: FoldPlan
    known_time: NDArray[np.int64]
    marks: Mapping[str, str]


def load_market(data: DataConfig, folds: FoldsConfig, *, vault: Vault = "closed") -> Market:
    """Return the market of a `data` section.

    Args:
        data: Source and settings.
        folds: Says where the vault begins.
        vault: `closed` leaves out every row that is known at or after the start of the final test period; `open` is
            for the final evaluation.

    Raises:
        DataError: The data cannot be used, or are too short for one fold.
    """
    placed = _cut(place_bars(data), folds, vault)
    bars, close = placed.bars, placed.bars.close * data.price_scale
    option, chain_mark, chain_digests = _listed(data, placed)
    series, series_digests = _beside(data, placed)
    volatility, extra = _volatility(data, placed, option)
    iv = volatility.at(placed.known_time, data.iv_max_age_days)
    if option is None:
        option = reference_option(
            placed.known_time,
            close,
            iv,
            rate_ann=data.rate_ann,
            option_days=data.option_days,
            strike_step=data.strike_step,
            spread_frac=data.spread_frac,
        )
    return Market(
        event_time=placed.event_time,
        known_time=placed.known_time,
        open=bars.open * data.price_scale,
        high=bars.high * data.price_scale,
        low=bars.low * data.price_scale,
        close=close,
        volume=bars.volume,
        is_filled=np.zeros(len(bars), dtype=bool) if placed.is_filled is None else placed.is_filled,
        session=placed.session,
        segment=placed.segment,
        iv=iv,
        iv_rank=_rank_before_session(placed, volatility, data),
        strike=option.strike,
        delta=option.delta,
        gamma=option.gamma,
        vega=option.vega,
        theta=option.theta,
        option_iv=option.iv,
        spread_ratio=option.spread_ratio,
        is_call=np.full(len(bars), PUT),
        bars_per_session=int(np.median(np.unique(placed.session, return_counts=True)[1])),
        rate_ann=data.rate_ann,
        marks={**_marks(data, placed), **chain_mark},
        snapshot=_snapshot(data, folds, vault, (*placed.digests, *extra, *chain_digests, *series_digests)),
        series=series,
    )


def load_times(data: DataConfig, folds: FoldsConfig, *, vault: Vault = "open") -> NDArray[np.int64]:
    """Return when each bar is known, ns UTC, those of the vault included: what `plan_folds` needs; models nothing.

    Raises:
        DataError: As `load_market`.
    """
    return _cut(place_bars(data), folds, vault).known_time


def outline(data: DataConfig, folds: FoldsConfig) -> MarketOutline:
    """Return folds, size, span and marks of a market without modelling anything: what a plan shows.

    Raises:
        DataError: As `load_market`.
    """
    placed = place_bars(data)
    return MarketOutline(
        plan=plan_folds(placed.known_time, folds),
        known_time=placed.known_time,
        marks=_marks(data, placed),
    )


def _cut(placed: PlacedBars, folds: FoldsConfig, vault: Vault) -> PlacedBars:
    if vault == "open" or isinstance(folds, Unfolded):
        return placed
    return placed.before(plan_folds(placed.known_time, folds).vault_start)


def _listed(data: DataConfig, placed: PlacedBars) -> tuple[ReferenceOption | None, dict[str, str], tuple[str, ...]]:
    """Return the reference option of a chain that is named, what to say of it, and its digest."""
    if data.chain is None:
        return None, {}, ()
    from trainables.data.listed_option import checked_chain, listed_option  # numba and SciPy: the planner needs neither

    checked = checked_chain(data)
    option = listed_option(checked, placed.known_time, placed.bars.close * data.price_scale, data)
    return option, {"chain": checked.mark}, (digest(data.chain.path),)


def _beside(data: DataConfig, placed: PlacedBars) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Return the series beside the market, and the digests of their files under their names."""
    paths = data.series.paths()
    if not paths:
        return {}, ()
    from trainables.data.beside import beside_series  # numba: the planner does not need it

    off = absent(paths)
    digests = tuple(f"{name} {digest(path)}" for name, path in sorted(paths.items()) if name not in off)
    return beside_series(data, placed.known_time), digests


def _volatility(
    data: DataConfig, placed: PlacedBars, option: ReferenceOption | None
) -> tuple[Volatility, tuple[str, ...]]:
    """Return the volatility of the market, and digests of the files that it was read from."""
    if placed.volatility is not None:
        return placed.volatility, ()
    if data.source == "files" and data.iv is not None:
        from trainables.data.readers import read_volatility

        times, values = read_volatility(data)
        return Volatility(known_time=_volatility_known(times, data), value=values), (digest(data.iv),)
    if option is not None:
        is_known = np.isfinite(option.iv)
        return Volatility(known_time=placed.known_time[is_known], value=option.iv[is_known]), ()
    modelled = _modelled(data, placed)
    if data.source != "arch_sp500":
        return modelled, ()
    vix, file_digest = read_vix()
    is_before = modelled.known_time < vix.known_time[0]
    return Volatility(
        known_time=np.concatenate([modelled.known_time[is_before], vix.known_time]),
        value=np.concatenate([modelled.value[is_before], vix.value]),
    ), (file_digest,)


def _volatility_known(times: NDArray[np.int64], data: DataConfig) -> NDArray[np.int64]:
    """Return when values of a volatility file are known: a daily index at 16:15 New York, others at their bar's end."""
    step = usual_step_s(times, str(data.iv)) * NS_PER_SECOND
    if step < NS_PER_DAY:
        return times if data.bar_label == "right" else times + step
    day = np.where(times % NS_PER_DAY == 0, times // NS_PER_DAY, local_day(times))
    return instants(day, VIX_KNOWN)


def _modelled(data: DataConfig, placed: PlacedBars) -> Volatility:
    """Model volatility on the last close of each session, known when that bar is."""
    is_last = np.append(np.diff(placed.session) != 0, True)
    value = garch_volatility(
        placed.bars.close[is_last],
        initial_sessions=data.iv_initial_sessions,
        refit_sessions=data.iv_refit_sessions,
        horizon_sessions=data.iv_horizon_sessions,
    )
    return Volatility(known_time=placed.known_time[is_last], value=value)


def _rank_before_session(placed: PlacedBars, volatility: Volatility, data: DataConfig) -> NDArray[np.float64]:
    """Return for every bar the rank of the last daily volatility known before its session opened (DATA-21)."""
    daily = volatility.daily()
    ranks = Volatility(known_time=daily.known_time, value=rank(daily.value, data.iv_rank_sessions))
    is_first = np.append(True, np.diff(placed.session) != 0)
    return ranks.at(placed.event_time[is_first], data.iv_max_age_days)[placed.session]


def _marks(data: DataConfig, placed: PlacedBars) -> dict[str, str]:
    chain = "modelled (Black-Scholes at iv)" if data.chain is None else "measured"
    marks = {"chain": chain, **placed.marks, **_series_mark(data)}
    n_holes = int(placed.segment[-1] - placed.segment[0]) - placed.n_rolls
    if n_holes > 0:
        marks["holes"] = f"{n_holes} in the data; no window and no label crosses one"
    n_sessions = int(placed.session[-1]) + 1
    if data.source == "files" and data.iv is not None:
        return marks
    if "iv" in marks:
        return marks
    if data.chain is not None:
        marks["iv"] = f"measured (put of the chain nearest to the money and {data.option_days:g} days)"
        return marks
    if n_sessions <= data.iv_initial_sessions:
        marks["iv"] = (
            f"none: the model needs {data.iv_initial_sessions} sessions first, found {n_sessions}; give data.iv"
        )
        return marks
    marks["iv"] = f"modelled ({MODEL})"
    if data.source == "arch_sp500":
        measured = np.flatnonzero(placed.known_time >= read_vix()[0].known_time[0])
        if len(measured):
            marks["iv"] = f"modelled before {day_of(int(placed.known_time[measured[0]]))} ({MODEL})"
    return marks


def _series_mark(data: DataConfig) -> dict[str, str]:
    """Say which series beside the market are there, and which are named and off."""
    paths = data.series.paths()
    off = absent(paths)
    parts = [", ".join(name for name in paths if name not in off), *(f"{name} off ({off[name]})" for name in off)]
    return {"series": "; ".join(filter(None, parts))} if paths else {}


def _snapshot(data: DataConfig, folds: FoldsConfig, vault: Vault, digests: tuple[str, ...]) -> str:
    settings = data.model_dump(mode="json", exclude=PATHS)
    is_withheld = vault == "closed" and not isinstance(folds, FinalFolds | Unfolded)
    withheld = folds.test_months if is_withheld else 0
    content = {"data": settings, f"withheld_{folds.unit}": withheld, "files": digests}
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
