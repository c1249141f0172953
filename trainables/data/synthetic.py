"""A market made from a seed, with its truth: for tests, and for users without data (`data.source: synthetic`).

Returns have the variance of GARCH(1,1) over sessions (Bollerslev 1986) times that of a regime, a U over the session,
and normal shocks. A planted signal sits in the log of volume, which sees nothing else; without one nothing predicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trainables.data.bars import PRICES, Bars
from trainables.data.config import DataConfig, SyntheticConfig
from trainables.data.rolls import MONTHS
from trainables.data.sessions import Schedule, schedule
from trainables.data.volatility import SESSIONS_PER_YEAR, Volatility
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, instant
from trainables.errors import DataError

Float = NDArray[np.float64]
Int = NDArray[np.int64]
VERSION = 1
"""Raised when the same section makes another market: part of the market's snapshot."""
BAR_SECONDS = {"seconds": 1, "minutes": 60, "days": 86_400}
BASE_VOLUME = 1e4
"""Volume of a bar without a signal."""
SIGNAL_IN_VOLUME = 0.5
"""Log of volume per standard deviation of the signal, or of noise where nothing is planted."""
QUARTERLY = (2, 5, 8, 11)
"""Delivery months of the contracts, March to December, from 0."""
LAST_DAY, OVERLAP_DAYS = 18, 10
"""Last day of a contract in its month, and days before it in which volume moves to the next one."""
SMALLEST_SHARE = 0.02
"""Of volume, in the contract that is not yet or no longer traded much."""
CALENDAR_DAYS_PER_SESSION = 1.5
"""More days than any calendar needs for a session, holidays included."""
SPARE_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the market was made of.

    Attributes:
        bar_sigma: (n_all,) standard deviation of the log-return of each bar that was made, left-out ones included.
        shock: (n_all,) standardised return of each of them.
        signal: (n_all,) standardised signal in the log of volume; zero where nothing is planted, with noise instead.
        kept: (n_all,) whether the bar was left in.
        session: (n_all,) session of each bar, from 0.
        session_sigma: (n_sessions,) standard deviation of the session's log-return.
        regime: (n_sessions,) position in `regime_factors`.
        log_ic: Correlation of signal and standardised return ahead that was planted.
    """

    bar_sigma: Float
    shock: Float
    signal: Float
    kept: NDArray[np.bool_]
    session: Int
    session_sigma: Float
    regime: Int
    log_ic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticMarket:
    """Bars as a file would have them, volatility as known at each session's end, and the truth."""

    table: dict[str, NDArray[np.generic]]
    volatility: Volatility
    bar_seconds: int
    marks: dict[str, str]
    truth: Truth

    def bars(self) -> Bars:
        """Return the one series.

        Raises:
            DataError: The market has contracts.
        """
        if "symbol" in self.table:
            raise DataError(
                "data.roll: expected a section, as data.synthetic.rolls makes contracts, found none; add it"
            )
        return Bars(**self.table)

    def contracts(self) -> dict[str, Bars]:
        """Return the bars of each contract.

        Raises:
            DataError: The market has no contracts.
        """
        if "symbol" not in self.table:
            raise DataError(
                "data.roll: expected none, as data.synthetic.rolls is off, found a section; set rolls: true"
            )
        every = Bars(**{name: self.table[name] for name in ("timestamp", *PRICES, "volume")})
        symbol = self.table["symbol"]
        return {str(name): every.take(symbol == name) for name in np.unique(symbol)}


def make_market(data: DataConfig) -> SyntheticMarket:
    """Make the market of a `data` section: same section, same market, in every process.

    Raises:
        DataError: The planted correlation cannot be reached with its persistence and horizon.
    """
    settings = data.synthetic or SyntheticConfig()
    random = np.random.default_rng(settings.seed)
    plan = _sessions(data, settings)
    event, session, bar_ns = _clock(plan, settings)
    regime, session_sigma, expected_ann = _session_volatility(settings, random)
    gap_sigma, bar_sigma = _spread_over_session(session, session_sigma, settings)
    signal, shock, volume = _signal_and_shocks(len(event), settings, random)
    open_, high, low, close = _prices(session, gap_sigma, bar_sigma, shock, settings, random)
    kept = random.random(len(event)) >= settings.missing_frac
    kept[[0, -1]] = True
    columns = {"timestamp": event, "open": open_, "high": high, "low": low, "close": close, "volume": volume}
    table = {name: column[kept] for name, column in columns.items()}
    if settings.rolls:
        table = _as_contracts(table, session[kept], plan, settings)
    return SyntheticMarket(
        table=table,
        volatility=Volatility(
            known_time=plan.close if settings.bars == "days" else _last_known(event, session, bar_ns),
            value=expected_ann * (1 + settings.iv_premium),
        ),
        bar_seconds=BAR_SECONDS[settings.bars],
        marks={
            "market": f"synthetic, seed {settings.seed}, planted correlation {settings.planted_ic:g}",
            "iv": "synthetic: the expected volatility of the generator, with a premium",
        },
        truth=Truth(
            bar_sigma=bar_sigma,
            shock=shock,
            signal=signal,
            kept=kept,
            session=session,
            session_sigma=session_sigma,
            regime=regime,
            log_ic=settings.planted_ic,
        ),
    )


def _sessions(data: DataConfig, settings: SyntheticConfig) -> Schedule:
    try:
        first = instant(date.fromisoformat(settings.first_day), time())
    except ValueError:
        raise DataError(f"data.synthetic.first_day: expected an ISO date, found {settings.first_day!r}") from None
    days = round(settings.n_sessions * CALENDAR_DAYS_PER_SESSION) + SPARE_DAYS
    plan = schedule(data, first, first + days * NS_PER_DAY)
    chosen = np.flatnonzero(plan.open >= first)[: settings.n_sessions]
    return Schedule(day=plan.day[chosen], open=plan.open[chosen], close=plan.close[chosen])


def _clock(plan: Schedule, settings: SyntheticConfig) -> tuple[Int, Int, int]:
    """Return start and session of every bar, and the length of a bar in ns."""
    bar_ns = BAR_SECONDS[settings.bars] * NS_PER_SECOND
    if settings.bars == "days":
        return plan.open, np.arange(len(plan.open)), bar_ns
    counts = (plan.close - plan.open) // bar_ns
    session = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return plan.open[session] + number * bar_ns, session, bar_ns


def _last_known(event: Int, session: Int, bar_ns: int) -> Int:
    return event[np.append(np.diff(session) != 0, True)] + bar_ns


def _session_volatility(settings: SyntheticConfig, random: np.random.Generator) -> tuple[Int, Float, Float]:
    """Return regime and standard deviation of each session, and the annual volatility expected after each of them."""
    n, n_regimes = settings.n_sessions, len(settings.regime_factors)
    regime = _regimes(random.random(n), random.integers(0, n_regimes, n), settings.regime_stay)
    long_run = settings.volatility_ann**2 / SESSIONS_PER_YEAR
    variance = _garch(random.standard_normal(n), long_run, settings.garch_alpha, settings.garch_beta)
    factor = np.asarray(settings.regime_factors)[regime]
    expected = np.sqrt(variance[1:] * SESSIONS_PER_YEAR) * factor
    return regime, np.sqrt(variance[:-1]) * factor, expected


@njit(cache=True)
def _regimes(stay, fresh, probability):  # type: ignore[no-untyped-def]
    regime = fresh.copy()
    for i in range(1, len(regime)):
        if stay[i] < probability:
            regime[i] = regime[i - 1]
    return regime


@njit(cache=True)
def _garch(shock, long_run, alpha, beta):  # type: ignore[no-untyped-def]
    """Return the variance of each session and, last, of the one after; it starts at its long-run mean."""
    variance = np.empty(len(shock) + 1)
    variance[0] = long_run
    for i in range(len(shock)):
        variance[i + 1] = long_run * (1 - alpha - beta) + variance[i] * (alpha * shock[i] ** 2 + beta)
    return variance


def _spread_over_session(session: Int, sigma: Float, settings: SyntheticConfig) -> tuple[Float, Float]:
    """Return the standard deviation of the move before each session, and of each bar."""
    if settings.bars == "days":
        return np.zeros(len(sigma)), sigma
    counts = np.bincount(session)
    number = np.arange(len(session)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = (number + 0.5) / counts[session]
    weight = 1 + settings.seasonality * (2 * place - 1) ** 2
    share = weight / np.bincount(session, weights=weight)[session]
    within = (1 - settings.overnight_share) * sigma**2
    return sigma * np.sqrt(settings.overnight_share), np.sqrt(within[session] * share)


def _signal_and_shocks(n: int, settings: SyntheticConfig, random: np.random.Generator) -> tuple[Float, Float, Float]:
    """Return the signal, standardised returns that follow it by a bar, and volumes that show it."""
    noise, fresh = random.standard_normal(n), random.standard_normal(n)
    strength = planted_strength(settings)
    if strength == 0.0:
        return np.zeros(n), noise, BASE_VOLUME * np.exp(SIGNAL_IN_VOLUME * fresh)
    signal = _autoregression(fresh, settings.planted_persistence)
    shock = noise.copy()
    shock[1:] = strength * signal[:-1] + np.sqrt(1 - strength**2) * noise[1:]
    return signal, shock, BASE_VOLUME * np.exp(SIGNAL_IN_VOLUME * signal)


def planted_strength(settings: SyntheticConfig) -> float:
    """Return the weight a of the signal in the next standardised return, which gives the wanted correlation.

    Over h bars, with autocorrelations p^k of the signal, S = sum_{k<h} p^k and Q = sum_{i,j<h} p^|i-j|, the correlation
    of the signal with the sum of returns is a S / sqrt(h + a^2 (Q - h)); solved for a.

    Raises:
        DataError: No weight below one gives it.
    """
    step = np.arange(settings.planted_horizon)
    powers = settings.planted_persistence ** np.abs(step[:, None] - step[None, :])
    total, double, h = float(powers[0].sum()), float(powers.sum()), settings.planted_horizon
    room = total**2 - settings.planted_ic**2 * (double - h)
    square = settings.planted_ic**2 * h / room if room > 0 else np.inf
    if square >= 1:
        raise DataError(
            f"data.synthetic.planted_ic: expected a correlation that a signal of persistence "
            f"{settings.planted_persistence:g} can have with {h} bars, found {settings.planted_ic:g}; lower it"
        )
    return float(np.sign(settings.planted_ic) * np.sqrt(square))


@njit(cache=True)
def _autoregression(fresh, persistence):  # type: ignore[no-untyped-def]
    """Return a series of unit variance whose values are correlated with the one before."""
    values = fresh.copy()
    scale = np.sqrt(1 - persistence**2)
    for i in range(1, len(values)):
        values[i] = persistence * values[i - 1] + scale * fresh[i]
    return values


def _prices(
    session: Int, gap_sigma: Float, sigma: Float, shock: Float, settings: SyntheticConfig, random: np.random.Generator
) -> tuple[Float, Float, Float, Float]:
    """Return open, high, low and close; extremes are those of Brownian bridges from open to close.

    P(max of the bridge > m) = exp(-2 m (m - r) / s^2) for m above 0 and r (Borodin and Salminen 2002), inverted.
    """
    counts = np.bincount(session)
    move = sigma * shock + settings.drift_ann / SESSIONS_PER_YEAR / counts[session]
    before = np.zeros(len(move))
    first = np.append(0, np.cumsum(counts)[:-1])
    before[first] = gap_sigma * random.standard_normal(len(gap_sigma))
    before[0] = 0.0
    log_close = np.log(settings.price) + np.cumsum(move + before)
    log_open = log_close - move
    reach = [np.sqrt(move**2 - 2 * sigma**2 * np.log1p(-random.random(len(move)))) for _ in range(2)]
    close, open_ = np.exp(log_close), np.exp(log_open)
    high = np.maximum(np.exp(log_open + 0.5 * (move + reach[0])), np.maximum(open_, close))
    low = np.minimum(np.exp(log_open + 0.5 * (move - reach[1])), np.minimum(open_, close))
    return open_, high, low, close


def _as_contracts(
    table: dict[str, NDArray[np.generic]], session: Int, plan: Schedule, settings: SyntheticConfig
) -> dict[str, NDArray[np.generic]]:
    """Return every bar as those of the two nearest contracts, between which volume moves on around the roll."""
    day = plan.day.astype("datetime64[D]")
    month = day.astype("datetime64[M]").astype(np.int64) + 12 * 1970
    months = [m for m in range(int(month[0]), int(month[-1]) + 7) if m % 12 in QUARTERLY]
    last_day = np.array([f"{m // 12}-{m % 12 + 1:02d}-{LAST_DAY}" for m in months], dtype="datetime64[D]")
    front = np.searchsorted(last_day, day)
    moved = np.clip(1 - (last_day[front] - day).astype(np.int64) / OVERLAP_DAYS, 0, 1)
    names = np.array([f"SYN{MONTHS[m % 12]}{m // 12 % 100:02d}" for m in (*months, months[-1] + 3)])
    parts = []
    for ahead, share in ((0, 1 - moved), (1, moved)):
        contract = front[session] + ahead
        factor = (1 + settings.roll_basis_frac) ** contract
        part = {name: table[name] * factor if name in PRICES else table[name] for name in table}
        part["volume"] = table["volume"] * np.maximum(share[session], SMALLEST_SHARE)
        parts.append({**part, "symbol": names[contract]})
    merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((merged["symbol"], merged["timestamp"]))
    return {name: column[order] for name, column in merged.items()}
