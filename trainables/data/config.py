"""The `data` and `folds` sections of a space file. Imports no torch: the planner reads them too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainables.config import StrictModel


class ChainConfig(StrictModel):
    """A file of option rows; see `options` for its columns."""

    path: str
    """Path of the Parquet or CSV file."""
    underlying: str | None = None
    """Which underlying of a file of several is used."""
    greek_units: Annotated[tuple[str, ...], Field(min_length=4, max_length=4)] | None = None
    """Units of delta, gamma, vega, theta by their names in `greek_units.FACTORS`; none: detected (DATA-18)."""
    lag_s: float = Field(default=0.0, ge=0)
    """Seconds after its timestamp at which a row is known; end-of-day Greeks are computed after the close."""
    max_age_minutes: float = Field(default=5.0, gt=0)
    """Older quotes are not used (DATA-15). End-of-day chains need days: 5760 carries one over a long weekend."""
    n_strikes: int = Field(default=50, ge=1)
    """Strikes nearest to the money, of each type, that make rows of their own (DATA-14): see condor's sequence_axis."""
    min_volume: float = Field(default=1.0, ge=0)
    """Contracts traded below which a quote makes no row of its own; 0 asks for no volume (DATA-14)."""
    min_coverage: float = Field(default=0.5, ge=0, le=1)
    """Share of rows with a good quote below which the file is refused (B32)."""
    bounds_tolerance_frac: float = Field(default=1e-3, ge=0)
    """Share of the underlying's price by which no-arbitrage bounds may be missed."""


class RollConfig(StrictModel):
    """How contracts of a future follow one another (DATA-2, C-12)."""

    adjust: Literal["per_contract", "ratio_back_adjust", "none"] = "per_contract"
    """`per_contract`: a roll begins a new segment; `ratio_back_adjust`: contracts are scaled to meet; `none`: they
    follow as they are, and the jump shows."""


class SyntheticConfig(StrictModel):
    """A market made from a seed, with known truth (`source: synthetic`)."""

    seed: int = Field(default=0, ge=0)
    """Same seed, same market, in every process."""
    bars: Literal["seconds", "minutes", "days"] = "days"
    """Length of a bar."""
    first_day: str = "2005-01-03"
    """ISO date from which sessions of the calendar are made, holidays and half days included."""
    n_sessions: int = Field(default=2520, ge=2)
    """Sessions; 2520 are ten years."""
    price: float = Field(default=400.0, gt=0)
    """First price."""
    volatility_ann: float = Field(default=0.16, gt=0, lt=3)
    """Long-run volatility of a year in the middle regime."""
    garch_alpha: float = Field(default=0.08, ge=0, lt=1)
    """Weight of yesterday's squared shock in today's variance (Bollerslev 1986)."""
    garch_beta: float = Field(default=0.9, ge=0, lt=1)
    """Weight of yesterday's variance."""
    regime_factors: tuple[Annotated[float, Field(gt=0)], ...] = (0.7, 1.0, 1.6)
    """What each regime multiplies volatility by; one regime: (1.0,)."""
    regime_stay: float = Field(default=0.98, ge=0, le=1)
    """Probability that a session has the regime of the one before."""
    overnight_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of a session's variance before its first bar; within a day only."""
    seasonality: float = Field(default=1.0, ge=0)
    """Intraday variance at open and close, over that at noon, less one; within a day only."""
    drift_ann: float = 0.05
    """Mean log-return of a year."""
    iv_premium: float = Field(default=0.1, gt=-1)
    """Implied volatility is the expected one times one plus this."""
    planted_ic: float = Field(default=0.0, gt=-1, lt=1)
    """Correlation of the log of a bar's volume with the standardised return of `planted_horizon` bars after it.
    Zero: pure noise, nothing predicts returns."""
    planted_horizon: int = Field(default=1, ge=1)
    """Bars ahead of the planted correlation."""
    planted_persistence: float = Field(default=0.0, ge=0, lt=1)
    """Correlation of the planted signal with itself one bar later."""
    missing_frac: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of bars that are left out, as data vendors do."""
    rolls: bool = False
    """Quarterly futures contracts at a premium to one another instead of one series; needs `data.roll`."""
    roll_basis_frac: float = Field(default=0.01, gt=-0.5, lt=0.5)
    """Price of each contract over the one before."""

    @model_validator(mode="after")
    def _variance_is_finite(self) -> SyntheticConfig:
        if self.garch_alpha + self.garch_beta >= 1:
            raise ValueError("garch_alpha + garch_beta must be below 1: variance has no long-run mean otherwise")
        return self


class SeriesConfig(StrictModel):
    """Paths of series beside the market (DATA-27), Parquet or CSV; see `external` for their columns, and `beside`."""

    nq: str | None = None
    """Price of the Nasdaq-100 future or index, as those of other markets: value in its own currency."""
    ym: str | None = None
    """Price of the Dow."""
    rty: str | None = None
    """Price of the Russell 2000."""
    xlf: str | None = None
    """Price of the financial sector's fund."""
    xlk: str | None = None
    """Price of the technology sector's fund."""
    xle: str | None = None
    """Price of the energy sector's fund."""
    eurusd: str | None = None
    """Dollars per euro."""
    usdjpy: str | None = None
    """Yen per dollar."""
    fomc: str | None = None
    """A row per decision of the FOMC: event_time is its instant, value that of the next one as then scheduled, in
    seconds since the epoch. A schedule that changes is a revision."""
    cpi: str | None = None
    """Consumer prices: value is what was published, expected its forecast."""
    nfp: str | None = None
    """Payrolls outside farms, the same."""
    gdp: str | None = None
    """Gross domestic product, the same."""
    earnings_season: str | None = None
    """1 from the start of an earnings season, 0 from its end."""
    advance_decline: str | None = None
    """(advancing - declining)/all issues."""
    fund_flow: str | None = None
    """Net flow into funds as a share of their assets."""

    def paths(self) -> dict[str, str]:
        """Return source -> path of those that are named."""
        return self.model_dump(exclude_none=True)


def absent(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the sources whose file is not there, and the reason in words."""
    return {name: f"no file {Path(path).name}" for name, path in sources.items() if not Path(path).exists()}


class DataConfig(StrictModel):
    """Where the market comes from."""

    source: Literal["arch_sp500", "arch_nasdaq", "files", "synthetic"] = "arch_sp500"
    """`arch_*`: daily bars that the arch package ships; `files`: Parquet or CSV files of yours; `synthetic`: made."""
    bars: str | None = None
    """Path of the bars (`source: files`): columns timestamp, open, high, low, close, volume, optionally symbol."""
    iv: str | None = None
    """Path of a daily or intraday volatility index in percent (timestamp and vix, iv or close); none: modelled."""
    symbol: str | None = None
    """Which symbol of a file of several is used; with `roll`: the root of the contracts, such as ES."""
    chain: ChainConfig | None = None
    """A file of option rows to take the reference option from; none: modelled."""
    roll: RollConfig | None = None
    """Set for a file of several contracts of a future."""
    synthetic: SyntheticConfig | None = None
    """The market of `source: synthetic`; none: its defaults."""
    series: SeriesConfig = SeriesConfig()
    """Series beside the market by name, joined by when they were published; those left out are off."""
    series_max_age_days: float = Field(default=7.0, gt=0)
    """A price of another market that is older is unknown; what else there is holds until the next release."""
    defects: Literal["error", "drop"] = "error"
    """`error` refuses bad rows; `drop` leaves them out, counts them and marks the market. Nothing is ever filled in."""
    price_tolerance_frac: float = Field(default=1e-6, ge=0, lt=0.1)
    """How far, as a share of the close, open and close may lie outside of low and high before a bar is bad."""
    timezone: str | None = None
    """IANA zone of naive timestamps; naive timestamps without it are refused."""
    bar_seconds: int | None = Field(default=None, gt=0)
    """Length of a bar; none: the most frequent step of the file. Daily bars: 86400."""
    bar_label: Literal["left", "right"] = "left"
    """Whether a bar's timestamp is its start (left) or its end (right)."""
    calendar: Literal["XNYS", "CMES", "24/7"] = "XNYS"
    """Exchange calendar that gives sessions and holidays."""
    session: Literal["rth", "all"] = "rth"
    """`rth` keeps regular hours only; `all` keeps every bar of the file that lies in a session."""
    grid: Literal["event", "regular"] = "event"
    """`event`: bars as the file has them; `regular`: a step without a bar within a session becomes one of volume 0 at
    the close before, up to `max_gap_bars` in a row (DATA-10): seconds of a look-back are then seconds of the clock."""
    max_gap_bars: int = Field(default=60, ge=1)
    """More missing bars than this within a session, or a missing session, begin a new segment: no window crosses it."""
    max_missing_sessions_frac: float = Field(default=0.35, ge=0, le=1)
    """Share of the calendar's sessions from first to last bar that may have no bar (B24); beyond it the data are
    refused. Days of weekdays declared 24/7 lack 31 %."""
    price_scale: float = Field(default=1.0, gt=0)
    """Prices are multiplied by this; 0.1 turns the S&P 500 index into SPY-like dollars."""
    iv_initial_sessions: int = Field(default=504, ge=100)
    """Modelled volatility: sessions before the first GARCH fit; volatility is unknown up to there.
    Two years: on one year of the S&P 500 the fit degenerates to a constant variance."""
    iv_refit_sessions: int = Field(default=252, ge=1)
    """Modelled volatility: sessions between fits on the growing past."""
    iv_horizon_sessions: int = Field(default=21, ge=1)
    """Modelled volatility: sessions ahead that it averages over; a month, as the VIX does."""
    iv_max_age_days: float = Field(default=7.0, gt=0)
    """A volatility older than this is unknown."""
    iv_rank_sessions: int = Field(default=252, ge=2)
    """Sessions that the rank of volatility looks back on; fewer give no rank (DATA-21)."""
    option_days: float = Field(default=30.0, gt=0)
    """Calendar days that the expiry of the reference option is nearest to (DATA-19)."""
    strike_step: float = Field(default=1.0, gt=0)
    """Distance of strikes of the modelled chain, after `price_scale`."""
    rate_ann: float = Field(default=0.02, ge=-0.1, le=0.5)
    """Risk-free rate of the modelled chain, per year, continuously compounded."""
    spread_frac: float = Field(default=0.02, ge=0, lt=1)
    """Bid-ask spread of a modelled option as a fraction of its price."""
    start: str | None = None
    """First day used, ISO date; none: the first of the file."""
    end: str | None = None
    """Day after the last one used, ISO date; none: after the last of the file."""

    @model_validator(mode="after")
    def _sections_fit_the_source(self) -> DataConfig:
        if self.synthetic is not None and self.source != "synthetic":
            raise ValueError(f"synthetic must be left out with source: {self.source}, or source set to synthetic")
        if self.roll is not None and self.source not in ("files", "synthetic"):
            raise ValueError(f"roll must be left out with source: {self.source}: it has no contracts")
        return self


class FoldsConfig(StrictModel):
    """Walk-forward folds (WF-1). Boundaries are midnights in the exchange's zone on calendar-month steps."""

    unit: Literal["months", "days"] = "months"
    """What the numbers of months below count. `days`: days that have bars, for data of seconds that cover no months."""
    mode: Literal["anchored", "rolling"] = "anchored"
    """`anchored`: training always starts at the first row; `rolling`: it is `train_months` long."""
    train_months: int = Field(default=6, ge=1)
    """Length of the (first) training window."""
    validation_months: int = Field(default=1, ge=1)
    """Length of a validation window."""
    step_months: int | None = Field(default=None, ge=1)
    """Distance between folds; none: `validation_months`."""
    test_months: int = Field(default=1, ge=1)
    """Length of the final test period at the end of the data: the vault. No trial reads it."""
    embargo_days: float = Field(default=0.0, ge=0)
    """Calendar days added to the purge between the last training label and the first validation row."""
    max_folds: Annotated[int, Field(ge=1)] | None = None
    """Keep only the latest so many folds; none: all."""
    purge_days: float | None = Field(default=None, ge=0)
    """Shortest purge in calendar days; none: each row's own label end decides. Shorter than the label: refused."""

    @model_validator(mode="after")
    def _steps_do_not_overlap(self) -> FoldsConfig:
        if self.step_months is not None and self.step_months < self.validation_months:
            raise ValueError("step_months must not be below validation_months: validation windows would overlap")
        return self


class Unfolded(FoldsConfig):
    """No folds and no vault: all rows are there, to be scored by a model that was trained elsewhere.

    No space file can say this; `trainables.serve` makes it.
    """


class FinalFolds(FoldsConfig):
    """The folds of a final evaluation: one, which trains on all that lies before the vault and is scored on the vault.

    No space file can say this: only `--final-eval` makes it, after it has written the opening down.
    """

    opening: int = Field(ge=1)
    """Number of the opening in the ledger of the run."""
