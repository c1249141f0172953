from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.chains import chain_columns
from tests.trainables.data.files import bar_columns, session_columns, write_parquet, write_text
from trainables.data.check import check_file, main

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def report(name):
    return "\n\n".join(str(section) for section in check_file(str(name)))


@lru_cache
def real(name):
    path = SAMPLES / f"{name}.parquet"
    if not path.is_file():
        pytest.skip("the real files are not here")
    return report(path)


def seeded(tmp_path, change, n_sessions=12):
    """The report of clean sessions with one fault in them."""
    columns = session_columns(n_sessions, first=date(2024, 2, 20))
    changed = change(columns)
    return report(write_parquet(tmp_path / "bars.parquet", columns if changed is None else changed))


def put(name, row, value):
    def change(columns):
        columns[name][row] = value

    return change


def shock(columns):
    for name in ("open", "high", "low", "close"):
        columns[name][390 * 6 :] *= 0.5


def foreign(columns):
    for name in ("open", "high", "low", "close"):
        columns[name][1000] *= 0.98


def without(rows):
    return lambda columns: {name: np.delete(values, rows) for name, values in columns.items()}


def constant_volume(columns):
    columns["volume"][:] = 7.0


def copied(columns):
    return {name: np.insert(values, 7, values[6]) for name, values in columns.items()}


def swapped(columns):
    columns["timestamp"][[4, 5]] = columns["timestamp"][[5, 4]]


@pytest.mark.requirement("DATA-31")
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (swapped, "error: expected timestamps that increase (1); first: row 6"),
        (copied, "error: expected one row per timestamp (1); first: row 8"),
        (put("close", 11, np.nan), "error: expected finite prices (1); first: row 12"),
        (put("high", 11, np.inf), "error: expected finite prices (1); first: row 12"),
        (put("low", 11, 0.0), "error: expected prices above zero (returns are logarithms) (1); first: row 12"),
        (put("high", 11, 1.0), "error: expected high at or above low (1); first: row 12"),
        (put("volume", 11, -1.0), "error: expected volume at or above zero (1); first: row 12"),
        (put("volume", 11, 0.0), "note: bars without volume (0): volume-weighted prices are masked there (1)"),
        (constant_volume, "warning: volume is 7 in every row (4,680)"),
        (without(np.arange(500, 507)), "warning: gaps within sessions, 8 to 8 bars apart, 7 bars missing, 0.1% (1)"),
        (without(np.arange(390, 780)), "warning: sessions of the calendar without a bar (1); first: 2024-02-21"),
        (without(np.arange(390 * 11 + 200, 390 * 12)), "note: the file ends within a session; first: 2024-03-06 17:50"),
        (shock, "warning: bars after a jump over 40 % between days: a split, or an error (1); first: row 2341"),
        (foreign, "warning: foreign bars: a move that the next bar undoes (1); first: row 1001"),
    ],
)
def test_each_seeded_defect_is_found_with_its_count_and_place(tmp_path, change, finding):
    assert finding in seeded(tmp_path, change)


@pytest.mark.requirement("DATA-13")
def test_clean_bars_have_no_finding_but_their_facts(tmp_path):
    text = seeded(tmp_path, lambda columns: None)
    assert "bars per session: 12 x 390" in text
    assert "sessions: 12" in text
    assert "calendar: XNYS (all)" in text
    assert "warning" not in text
    assert "error" not in text


def test_the_exit_code_says_whether_there_is_an_error(tmp_path, capsys):
    good = write_parquet(tmp_path / "good.parquet", session_columns(3))
    assert main([good]) == 0
    assert main([good, str(tmp_path / "nowhere.csv")]) == 1
    assert "no such file" in capsys.readouterr().out
    assert main([write_text(tmp_path / "naive.csv", {**bar_columns(2), "timestamp": ["2024-01-02T10:00"] * 2})]) == 1
    assert "set data.timezone" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_a_chain_and_a_volatility_file(tmp_path):
    columns = chain_columns(30)
    columns["bid"][:5] = np.nan
    columns["iv"][7] = 4.0
    text = report(write_parquet(tmp_path / "chain.parquet", columns))
    assert "Greek units: delta per dollar, gamma per dollar, vega per 1.00 of volatility, theta per year" in text
    assert "warning: masked: no bid or no ask (5)" in text
    assert "warning: iv above 3 (1)" in text
    volatility = {"timestamp": ["2024-01-02T21:15:00Z", "2024-01-03T21:15:00Z"], "vix": [13.2, 14.0]}
    assert "values: 0.1320 to 0.1400" in report(write_text(tmp_path / "vix.csv", volatility))


GOLDEN = {
    "dt": ["2024-01-02T14:30:00Z"] * 5,
    "open": [472.16] * 5,
    "high": [472.67] * 5,
    "volume": [60_276.0] * 5,
    "strike": [423.0, 424.0, 425.0, 426.0, 427.0],
    "type": ["Put"] * 5,
    "delta": [0.0] * 5,
    "gamma": [1.50e-23, 1.25e-22, 9.98e-22, 7.54e-21, 5.42e-20],
    "vega": [2.75e-21, 2.30e-20, 1.83e-19, 1.38e-18, 9.95e-18],
    "theta": [-3.78e-20, -3.16e-19, -2.51e-18, -1.90e-17, -1.36e-16],
    "iv": [0.15] * 5,
    "ivr": [50.0] * 5,
    "rsi": [30.33] * 5,
    "maxdd": [0.218] * 5,
}
"""The sample rows of the document (DATA-17)."""


@pytest.mark.requirement("DATA-17")
def test_the_sample_rows_fit_into_float32_and_are_flagged_as_placeholders(tmp_path):
    for name in ("gamma", "vega", "theta"):
        assert (np.abs(np.asarray(GOLDEN[name], np.float32)) > np.finfo(np.float32).tiny).all()
        np.testing.assert_allclose(np.asarray(GOLDEN[name], np.float32), GOLDEN[name], rtol=1e-6)
    text = report(write_text(tmp_path / "rows.csv", GOLDEN))
    for name, value in (("delta", "0"), ("iv", "0.15"), ("ivr", "50")):
        assert f"warning: {name} is {value} at every strike: it looks like a placeholder (5)" in text
    assert "gamma is" not in text


@pytest.mark.requirement("DATA-18")
def test_the_sample_rows_have_the_stated_units():
    """Vega over gamma gives the time to expiry, theta over gamma minus half of variance times the price squared."""
    gamma, vega, theta = (np.asarray(GOLDEN[name]) for name in ("gamma", "vega", "theta"))
    days = vega / gamma / (472.16**2 * 0.15) * 365
    np.testing.assert_allclose(days, 2.0, atol=0.015)
    np.testing.assert_allclose(theta / gamma, -2515, atol=20)


@pytest.mark.requirement("DATA-31")
@pytest.mark.parametrize(
    ("name", "findings"),
    [
        (
            "es_1m_esh25",
            (
                "outside of every session, at a weekend (15)",
                "when Globex pauses since 2015; the calendar keeps them (2)",
                "after a close (2024-12-24: 15, 2025-01-08: 360, 2025-01-09: 569) (944)",
                "gaps below an hour: 71, 2 to 58 bars apart",
                "168 bars missing, 0.2% (67)",
                "under 50% of the usual volume: another contract may have been in front (2)",
                "rows: 72,584",
                "ends within a session",
            ),
        ),
        (
            "spy_1m_2024_2025",
            (
                "sampling changes: sessions in a row with 597 to 891 bars, usually 391 (6); first: 2025-03-26",
                "closes that are no multiple of 0.01 (24.5%)",
                "outside of regular hours",
                "ends within a session; first: 2025-04-02 19:24",
                "247 sessions",
            ),
        ),
        ("spy_1s_lean_2013", ("(26,975)",)),
        ("es_1m_lean_2013_2020", ("contracts: 8", "sessions of the calendar without a bar", "without volume (0)")),
        ("vix_daily", ("error: expected open and close within low and high (47)", "open = high = low = close (506)")),
        (
            "nq_1m_2024_2025",
            ("undoes (2); first: row 14065, 2024-12-17 04:26", "volume has no value", "a continuous future"),
        ),
        ("spy_qqq_vix_1m_201902", ("volume is 0 in every row",)),
        ("goog_options_1m_20151224", ("bid is missing in 24.6%", "ask is missing in 16.5%", "iv has no value")),
        ("btcusd_1m_2018h2", ("bars missing, 1.6%", "largest move from bar to bar")),
        ("vxx_options_eod_201612", ("iv above 3 (1,583)", "(3,726)", "gamma x 100", "theta per day x 100")),
        (
            "spx_options_eod_201101",
            ("(998)", "vega per point of volatility", "end of day: iv and Greeks are known after"),
        ),
        ("fx_1m_gbpusd_usdjpy", ("bars USDJPY_BID", "volume has no value")),
        ("spy_spx_options_eod_lean", ("bid has no value", "inferred from delta and iv (505)")),
    ],
)
def test_the_known_defects_of_real_files_are_found(name, findings):
    text = real(name)
    for finding in findings:
        assert finding in text
