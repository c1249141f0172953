"""The numbers that features take from the documents. Imports no numerical library: the planner reads it too."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from trainables.config import StrictModel


class IndicatorSettings(StrictModel):
    """Periods of the shared indicator kit, in bars (IND-1..11)."""

    rsi_n: int = Field(default=14, ge=2)
    """Wilder period of the relative strength index (IND-2)."""
    atr_n: int = Field(default=14, ge=2)
    """Wilder period of the average true range (IND-3)."""
    adx_n: int = Field(default=14, ge=2)
    """Wilder period of the directional movement system (IND-4)."""
    macd_fast_n: int = Field(default=12, ge=2)
    """Span of the fast average of MACD (IND-5)."""
    macd_slow_n: int = Field(default=26, ge=3)
    """Span of the slow average of MACD (IND-5)."""
    macd_signal_n: int = Field(default=9, ge=2)
    """Span of the signal line of MACD (IND-5)."""
    bollinger_n: int = Field(default=20, ge=2)
    """Window of the Bollinger bands and of the condor schema's `sma` (IND-6, FEAT-CB-24)."""
    bollinger_width: float = Field(default=2.0, gt=0)
    """Half width of the Bollinger bands in population standard deviations (IND-6)."""
    stochastic_n: int = Field(default=14, ge=2)
    """Window of %K (IND-7)."""
    stochastic_d_n: int = Field(default=3, ge=1)
    """Window of %D, the mean of %K (IND-7)."""
    cci_n: int = Field(default=20, ge=2)
    """Window of the commodity channel index (IND-8)."""
    cci_constant: float = Field(default=0.015, gt=0)
    """Lambert's constant (IND-8)."""
    mfi_n: int = Field(default=14, ge=2)
    """Window of the money flow index (IND-9)."""
    psar_step: float = Field(default=0.02, gt=0)
    """Acceleration step of the parabolic stop (IND-10)."""
    psar_max: float = Field(default=0.2, gt=0)
    """Largest acceleration of the parabolic stop (IND-10)."""

    @model_validator(mode="after")
    def _fast_is_faster(self) -> IndicatorSettings:
        if self.macd_fast_n >= self.macd_slow_n:
            raise ValueError(
                f"macd_fast_n must be below macd_slow_n ({self.macd_fast_n} >= {self.macd_slow_n}); swap them"
            )
        return self


class ClockSettings(StrictModel):
    """Times of day in New York, in minutes since midnight (FEAT-SC-6, FEAT-MES-9, FEAT-NQ-3)."""

    asia_open_minute: int = Field(default=1080, ge=0, lt=1440)
    """18:00, where the Asian session begins."""
    asia_close_minute: int = Field(default=240, ge=0, lt=1440)
    """04:00, until which Asian trading overlaps the European session; our choice."""
    europe_open_minute: int = Field(default=180, ge=0, lt=1440)
    """03:00, where the European session begins."""
    europe_close_minute: int = Field(default=690, ge=0, lt=1440)
    """11:30, until which European trading overlaps the New York session; our choice."""
    new_york_open_minute: int = Field(default=570, ge=0, lt=1440)
    """09:30, where regular hours begin."""
    new_york_close_minute: int = Field(default=960, ge=0, lt=1440)
    """16:00, where regular hours end on full days."""
    lunch_start_minute: int = Field(default=720, ge=0, lt=1440)
    """12:00, start of the lunch hour."""
    lunch_end_minute: int = Field(default=780, ge=0, lt=1440)
    """13:00, end of the lunch hour."""
    range_bars: int = Field(default=30, ge=1)
    """Bars of the opening and of the closing range; our choice."""


class FeatureSettings(StrictModel):
    """What may vary about features. Names equal the genes of chapter 12.3 where there is one."""

    indicators: IndicatorSettings = IndicatorSettings()
    """Periods of the standard indicators."""

    clock: ClockSettings = ClockSettings()
    """Times of day."""

    ewma_alpha: float = Field(default=0.06, gt=0, lt=1)
    """Weight of the newest squared return in `vol_ewma` (FEAT-CB-32, C-25)."""
    ewma_seed_n: int = Field(default=20, ge=2)
    """Squared returns whose mean starts `vol_ewma` (FEAT-CB-32)."""
    ewma_output: Literal["std", "variance"] = "std"
    """Whether the column `vol_ewma` holds the standard deviation or the variance (C-25)."""
    kappa_order: Literal["second_diff_of_return", "first_diff_of_return", "low_pass"] = "second_diff_of_return"
    """What the curvature proxy averages (FEAT-CB-33, C-26); the first is the documented one."""
    kappa_span: int = Field(default=64, ge=2)
    """Span of the average in the curvature proxy (FEAT-CB-33)."""
    kappa_epsilon: float = Field(default=1e-12, gt=0)
    """Added to the volatility that divides the curvature proxy (FEAT-CB-33)."""
    curvature: Literal["proxy", "menger_documented", "menger_scaled", "menger_true"] = "proxy"
    """Definition of curvature behind columns 27-30 of the condor schemas (FEAT-CB-36, C-24)."""
    menger_epsilon: float = Field(default=1e-12, gt=0)
    """Added to the denominator of the printed Menger expression (FEAT-CB-36)."""
    energy_alpha: float = Field(default=1000.0, gt=0)
    """Factor inside the energy of the curvature proxy (FEAT-CB-34)."""
    menger_energy_alpha: float = Field(default=1.0, gt=0)
    """Factor inside the energy of the Menger variants (FEAT-CB-36)."""
    rsi_beta: float = Field(default=0.5, ge=0)
    """Strength of the driver in `rsi_dyn` (FEAT-CB-35)."""
    rsi_dyn_driver: Literal["kappa", "energy"] = "kappa"
    """What modulates `rsi_dyn` (C-93)."""
    adx_gamma: float = Field(default=0.1, ge=0)
    """Damping of `adx_adaptive` by energy (FEAT-CB-35, C-93)."""

    tda: bool = False
    """Compute persistent homology (FEAT-CB-37); off: its columns are 0."""
    tda_dim: int = Field(default=3, ge=2, le=6)
    """Dimension of the Takens embedding (FEAT-CB-37)."""
    tda_delay: int = Field(default=5, ge=1)
    """Delay of the Takens embedding in bars (FEAT-CB-37)."""
    tda_window: int = Field(default=120, ge=8)
    """Bars per point cloud (FEAT-CB-37, C-96)."""
    tda_stride: int = Field(default=5, ge=1)
    """Bars between point clouds; between them the value is carried forward (C-96)."""
    tda_points: int = Field(default=64, ge=4)
    """Largest number of points of a cloud; larger clouds are thinned evenly (C-96)."""

    momentum_n: int = Field(default=14, ge=1)
    """Bars of `momentum_score` (P008)."""
    vol_regime_n: int = Field(default=252, ge=2)
    """Length of the mean in `vol_regime` (P007)."""
    vol_regime_unit: Literal["bars", "sessions"] = "bars"
    """Unit of the length of the mean in `vol_regime` (P007)."""
    beta1_source: Literal["hurst", "tda"] = "hurst"
    """What `beta1_regime` is (P009, C-27); `tda` needs `tda` on."""
    hurst_window: int = Field(default=256, ge=32)
    """Log-price differences of lag 1 in a Hurst estimate (P009)."""
    realised_n: int | None = Field(default=None, ge=2)
    """Returns in the realised volatility of `iv_rv_spread` (P017); none: one session, at least `realised_min_n`."""
    realised_min_n: int = Field(default=21, ge=2)
    """Fewest returns in that realised volatility: a month of daily bars."""
    sessions_per_year: float = Field(default=252.0, gt=0)
    """Trading days a year, for annualisation."""
    rules_file: str | None = None
    """YAML file whose rules replace shipped rule primitives of the same name; none: the shipped ones."""

    sma_windows: tuple[int, int, int, int, int, int] = (5, 10, 20, 50, 100, 200)
    """Windows of the six average deviations in nq24, increasing (FEAT-NQ-3, chapter 12)."""
    volume_delta: Literal["difference", "signed"] = "difference"
    """Meaning of `volume_delta` in nq24 (FEAT-NQ-2, C-91)."""
    point_value_usd: float = Field(default=20.0, gt=0)
    """Dollars per index point in `dollar_volume`: 20 for NQ (FEAT-NQ-2)."""

    surprise_n: int = Field(default=60, ge=2)
    """Bars of the mean volume in `volume_delta` of the mes set (FEAT-MES-7)."""
    higher_fast_n: int = Field(default=9, ge=2)
    """Span of the fast average of a higher trend, in higher bars (FEAT-MES-10)."""
    higher_slow_n: int = Field(default=21, ge=2)
    """Span of the slow average of a higher trend, in higher bars (FEAT-MES-10)."""
    higher_momentum_n: int = Field(default=5, ge=1)
    """Higher bars of a higher momentum (FEAT-MES-10)."""

    levels_mode: Literal["relative", "raw"] = "relative"
    """Whether the scaling sets hold price levels or ratios to the close (FEAT-SC-1, C-16)."""
    profile_bins: int = Field(default=50, ge=5)
    """Price bins of a volume profile (FEAT-SC-3)."""
    value_area_frac: float = Field(default=0.7, gt=0, lt=1)
    """Share of volume inside the value area (FEAT-SC-3)."""
    profile_daily_n: int = Field(default=20, ge=2)
    """Trailing bars of a volume profile where a session has one bar (FEAT-SC-3)."""
    scaling_regime_n: int = Field(default=252, ge=2)
    """Sessions in the long mean of `volatility_regime`, of `scaling_regime_bars` bars each (FEAT-SC-3)."""
    scaling_regime_bars: int = Field(default=20, ge=1)
    """Bars per session in that count; one on daily bars (FEAT-SC-3)."""
    volatility_n: int = Field(default=20, ge=2)
    """Returns in the short deviation of `volatility_regime` (FEAT-SC-3)."""
    vix_correlation_n: int = Field(default=60, ge=3)
    """Sessions in the correlation of price and implied volatility (FEAT-SC-3)."""
    weekday_n: int = Field(default=52, ge=1)
    """Weeks in the mean return of a weekday (FEAT-SC-3)."""
    vwap_short_n: int = Field(default=15, ge=1)
    """Bars of the short rolling VWAP: 15 minutes on one-minute bars (FEAT-SC-1)."""
    vwap_long_n: int = Field(default=60, ge=1)
    """Bars of the long rolling VWAP: 60 minutes on one-minute bars (FEAT-SC-1)."""
    intermarket_n: int = Field(default=60, ge=3)
    """Bars of the correlation with, and of the return over, another market (FEAT-SC-7); our choice."""
    imbalance_n: int = Field(default=20, ge=2)
    """Bars of the order-flow imbalance (FEAT-SC-5)."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> FeatureSettings:
        if not all(2 <= a < b for a, b in pairwise(self.sma_windows)):
            raise ValueError(
                f"sma_windows: expected increasing windows of 2 or more, found {self.sma_windows}; sort them"
            )
        points = self.tda_window - (self.tda_dim - 1) * self.tda_delay
        if points < 4:
            raise ValueError(
                f"tda_window must leave 4 or more embedded points (window {self.tda_window}, dimension {self.tda_dim}, "
                f"delay {self.tda_delay} leave {points}); raise tda_window"
            )
        if self.beta1_source == "tda" and not self.tda:
            raise ValueError("beta1_source 'tda' needs tda on (tda=False); set tda to true")
        return self
