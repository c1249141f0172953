import subprocess
import sys
import warnings
from datetime import date, time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from arch.data import nasdaq, sp500, vix

from tests.trainables.data.files import session_columns, write_parquet, write_text
from trainables.data.arch_source import read_daily_bars, read_vix
from trainables.data.chain import friday_expiry
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.folds import plan_folds
from trainables.data.loader import load_market, load_times, outline
from trainables.data.zones import day_of, instant, local_time
from trainables.trading.black_scholes import greeks

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"
FOLDS = FoldsConfig(train_months=60, validation_months=12, test_months=12)
SPY_LIKE = DataConfig(price_scale=0.1)


@lru_cache
def market_of(data=SPY_LIKE, folds=FOLDS, vault="closed"):
    return load_market(data, folds, vault=vault)


def row_of(market, day):
    return next(i for i, t in enumerate(market.known_time) if day_of(int(t)) == day)


@pytest.mark.parametrize(("source", "module"), [("arch_sp500", sp500), ("arch_nasdaq", nasdaq)])
def test_daily_bars_are_those_of_the_package(source, module):
    bars, known, _ = read_daily_bars(source)
    frame = module.load()
    assert len(bars) == 5031
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(bars, name), frame[name.capitalize()].to_numpy())
    opened = (frame.index.tz_localize("America/New_York") + pd.Timedelta(hours=9.5)).tz_convert("UTC")
    np.testing.assert_array_equal(bars.timestamp, opened.as_unit("ns").asi8)
    assert (local_time(known) % 86_400_000_000_000 == 16 * 3600 * 10**9).all()


def test_the_vix_is_that_of_the_package_and_known_after_the_close():
    volatility, _ = read_vix()
    series = vix.load()["vix"]
    series = series[pd.to_numeric(series, errors="coerce").notna()].astype(float)
    np.testing.assert_allclose(volatility.value, series.to_numpy() / 100)
    assert (local_time(volatility.known_time) % 86_400_000_000_000 == (16 * 60 + 15) * 60 * 10**9).all()


def test_every_daily_bar_is_a_session_of_the_exchange():
    """The calendar library's sessions are the judge: none is missing, so that all rows are one segment."""
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exchange_calendars about pandas
        calendar = exchange_calendars.get_calendar("XNYS", start="1998-12-01", end="2019-01-31")
    bars, _, _ = read_daily_bars("arch_sp500")
    sessions = calendar.sessions_in_range("1999-01-01", "2018-12-31")
    assert [day_of(int(t)) for t in bars.timestamp] == [s.date() for s in sessions]


def test_the_vault_is_closed():
    closed, opened = market_of(), market_of(vault="open")
    plan = plan_folds(load_times(SPY_LIKE, FOLDS), FOLDS)
    assert plan.vault_start == instant(date(2018, 1, 1), time())
    assert closed.known_time[-1] < plan.vault_start <= opened.known_time[len(closed)]
    assert len(opened) == 5031
    assert closed.snapshot != opened.snapshot
    for name in ("close", "iv", "iv_rank", "gamma"):
        np.testing.assert_array_equal(getattr(closed, name), getattr(opened, name)[: len(closed)])


def test_implied_volatility_is_modelled_first_and_then_the_newest_known_vix():
    market = market_of()
    assert market.marks["iv"] == "modelled before 2014-01-06 (GARCH(1,1) on past returns)"
    assert market.marks["chain"] == "modelled (Black-Scholes at iv)"
    assert np.isnan(market.iv[:504]).all()
    assert np.isfinite(market.iv[504:]).all()
    assert market.iv[row_of(market, date(2014, 1, 6))] == 0.1376  # 3 January's index, known at 16:15 of that day
    assert market.iv[row_of(market, date(2014, 1, 3))] != 0.1376
    assert market.iv[row_of(market, date(2014, 1, 21))] == 0.1244  # over the holiday of the 20th


@pytest.mark.requirement("DATA-21")
def test_the_rank_uses_sessions_before_the_bars_own():
    market = market_of()
    volatility, _ = read_vix()
    row = row_of(market, date(2016, 6, 24))
    past = volatility.value[volatility.known_time < market.event_time[row]][-252:]
    assert market.iv_rank[row] == pytest.approx(100 * (past[-1] - past.min()) / (past.max() - past.min()))
    assert np.isnan(market.iv_rank[: 504 + 252]).all()
    assert np.isfinite(market.iv_rank[504 + 252 :]).all()
    assert (market.iv_rank[756:] >= 0).all()
    assert (market.iv_rank[756:] <= 100).all()


def test_nothing_depends_on_later_bars(tmp_path):
    """Every price from a session on is replaced: before it all arrays of the market stay bit-identical."""
    columns = session_columns(130, bars=13)
    data = DataConfig(
        source="files", bar_seconds=1800, iv_initial_sessions=100, iv_refit_sessions=5, iv_rank_sessions=5
    )
    folds = FoldsConfig(train_months=1)
    first_changed = 115 * 13
    changed = {name: values.copy() for name, values in columns.items()}
    for name in ("open", "high", "low", "close"):
        changed[name][first_changed:] *= np.linspace(0.5, 2.0, len(columns["close"]) - first_changed)
    paths = [write_parquet(tmp_path / f"{i}.parquet", c) for i, c in enumerate((columns, changed))]
    first, second = (load_market(data.model_copy(update={"bars": p}), folds, vault="open") for p in paths)
    cut = int(np.searchsorted(first.event_time, columns["timestamp"][first_changed]))
    for name in first.__slots__:
        values = getattr(first, name)
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(values[:cut], getattr(second, name)[:cut], err_msg=name)
    assert np.isfinite(first.iv_rank[:cut]).any()  # not everywhere: a fit of constant variance has no rank
    assert (first.close[cut:] != second.close[cut:]).any()


def test_the_reference_option_is_the_put_at_the_money_near_thirty_days():
    market = market_of()
    rows = slice(1000, 1010)
    expiry = friday_expiry(market.known_time[rows], 30.0)
    days = [(day_of(int(e)) - day_of(int(t))).days for e, t in zip(expiry, market.known_time[rows], strict=True)]
    assert all(27 <= d <= 33 for d in days)
    assert {day_of(int(e)).weekday() for e in expiry} == {4}
    assert (np.abs(market.strike[rows] - market.close[rows]) <= 0.5).all()
    assert (market.strike % 1 == 0).all()
    years = (expiry - market.known_time[rows]) / 1e9 / (365 * 86_400)
    expected = greeks(market.close[rows], market.strike[rows], years, market.iv[rows], 0.02, -1)
    for name in ("delta", "gamma", "vega", "theta"):
        np.testing.assert_allclose(getattr(market, name)[rows], getattr(expected, name), rtol=1e-12)
    assert (market.is_call == -1).all()


def test_prices_are_scaled_and_days_are_cut():
    market = market_of(DataConfig(price_scale=0.1, start="2003-01-01", end="2016-01-01"))
    assert day_of(int(market.event_time[0])) == date(2003, 1, 2)
    assert day_of(int(market.event_time[-1])) == date(2014, 12, 31)
    frame = sp500.load()
    assert market.close[0] == pytest.approx(frame.loc["2003-01-02", "Close"] / 10)
    assert market.session.tolist() == list(range(len(market)))


def test_the_nasdaq_is_modelled_throughout():
    assert outline(DataConfig(source="arch_nasdaq"), FOLDS).marks["iv"] == "modelled (GARCH(1,1) on past returns)"


def test_a_snapshot_follows_content_and_settings_but_not_the_place_of_a_file(tmp_path):
    columns, folds = session_columns(70, bars=13), FoldsConfig(train_months=1)
    (tmp_path / "a").mkdir()
    paths = [write_parquet(p, columns) for p in (tmp_path / "one.parquet", tmp_path / "a" / "two.parquet")]
    columns["close"][3] += 1e-9
    paths.append(write_parquet(tmp_path / "three.parquet", columns))
    data = DataConfig(source="files", bar_seconds=1800)
    one, two, three = (load_market(data.model_copy(update={"bars": p}), folds).snapshot for p in paths)
    assert one == two != three
    other = data.model_copy(update={"bars": paths[0], "rate_ann": 0.03})
    assert load_market(other, folds).snapshot != one


def test_a_daily_volatility_file_is_known_at_a_quarter_past_four(tmp_path):
    columns = session_columns(70)
    bars = write_parquet(tmp_path / "bars.parquet", columns)
    days = sorted({day_of(int(t)) for t in columns["timestamp"]})
    lines = {"date": [d.isoformat() for d in days], "vix": 10.0 + np.arange(len(days))}
    data = DataConfig(
        source="files", bars=bars, iv=write_text(tmp_path / "v.csv", lines), timezone="UTC", iv_rank_sessions=5
    )
    market = load_market(data, FoldsConfig(train_months=1))
    assert "iv" not in market.marks
    assert np.isnan(market.iv[:390]).all()
    np.testing.assert_allclose(market.iv[390 : 5 * 390], np.repeat([0.10, 0.11, 0.12, 0.13], 390))
    assert np.isnan(market.iv_rank[: 5 * 390]).all()
    assert (market.iv_rank[5 * 390 :] == 100).all()


def test_bars_too_short_for_the_model_say_so(tmp_path):
    path = write_parquet(tmp_path / "bars.parquet", session_columns(70))
    market = load_market(DataConfig(source="files", bars=path), FoldsConfig(train_months=1))
    assert market.marks["iv"].startswith("none: the model needs 504 sessions first, found")
    assert np.isnan(market.iv).all()
    assert np.isnan(market.spread_ratio).all()
    assert market.bars_per_session == 390


def test_the_plan_of_the_default_source_needs_neither_torch_nor_pandas_nor_arch():
    code = (
        "import sys\n"
        "from trainables.data.config import DataConfig, FoldsConfig\n"
        "from trainables.data.loader import outline\n"
        "found = outline(DataConfig(), FoldsConfig())\n"
        "assert len(found.known_time) == 5031\n"
        "print(sorted({'torch', 'pandas', 'arch', 'pyarrow', 'exchange_calendars'} & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def sample(name):
    path = SAMPLES / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no sample file {name} beside the checkout")
    return str(path)


@pytest.mark.slow
def test_a_year_of_spy_minutes_with_the_measured_vix():
    data = DataConfig(source="files", bars=sample("spy_1m_2024_2025"), iv=sample("vix_daily"))
    market = load_market(data, FoldsConfig(train_months=6))
    assert market.bars_per_session == 390
    assert set(market.marks) == {"chain", "sessions"}
    assert np.isfinite(market.iv_rank).all()
    assert (market.segment == 0).all()
    assert len(plan_folds(load_times(data, FOLDS), FoldsConfig(train_months=6)).windows) == 7


@pytest.mark.slow
def test_ten_weeks_of_es_around_the_clock():
    data = DataConfig(source="files", bars=sample("es_1m_esh25"), calendar="CMES", session="all")
    found = outline(data, FoldsConfig(train_months=1))
    holiday, early_close, weekend = 929, 15, 15  # 9 January and 13:00 to 13:15 of 24 December are not in the calendar
    assert len(found.known_time) == 72_584 - holiday - early_close - weekend
    assert found.marks["sessions"] == "left out 959 of 72584 rows outside of CMES all"
    assert len(found.plan.windows) == 1
