"""Bad data files: each is refused with one line that names the place, or dropped and counted where that is asked for.

The B numbers are those of the project's list of faults.
"""

import pickle
import time
from datetime import timedelta

import numpy as np
import pytest

from tests.trainables.data.files import MINUTE, START, bar_columns, iso, session_columns, write_parquet, write_text
from trainables.data.bars import Bars
from trainables.data.config import DataConfig, FoldsConfig, RollConfig, SyntheticConfig
from trainables.data.loader import load_market
from trainables.data.validation import clean, find_defects
from trainables.errors import DataError

FOLDS = FoldsConfig(train_months=1)


def refusal(path, **settings):
    """The one line with which a file is refused."""
    with pytest.raises(DataError) as caught:
        load_market(DataConfig(source="files", bars=path, **settings), FOLDS)
    message = str(caught.value)
    assert "\n" not in message
    return message


def parquet(tmp_path, **changed):
    return write_parquet(tmp_path / "bars.parquet", {**bar_columns(), **changed})


def with_value(name, row, value):
    column = bar_columns()[name]
    column[row] = value
    return {name: column}


def test_a_data_error_crosses_process_borders():
    error = pickle.loads(pickle.dumps(DataError("bars.csv: row 3: expected this, found that; do so")))
    assert isinstance(error, ValueError)
    assert str(error).startswith("bars.csv: row 3")


def test_missing_empty_and_folder(tmp_path):
    assert "no such file" in refusal(str(tmp_path / "nowhere.parquet"))
    assert "found a folder" in refusal(str(tmp_path))
    (tmp_path / "empty.csv").touch()
    assert "found an empty file" in refusal(str(tmp_path / "empty.csv"))
    assert "a header only" in refusal(write_text(tmp_path / "header.csv", {k: [] for k in bar_columns()}))
    assert "data.bars: expected the path" in refusal(None)


@pytest.mark.requirement("DATA-7")
def test_b01_unsorted(tmp_path):
    times = bar_columns()["timestamp"]
    times[[4, 5]] = times[[5, 4]]
    for policy in ("error", "drop"):
        message = refusal(parquet(tmp_path, timestamp=times), defects=policy)
        assert (
            "row 6: expected timestamps that increase, found 2024-01-02T14:34:00.000Z after 2024-01-02T14:35" in message
        )


def test_b02_identical_duplicates_may_be_dropped(tmp_path):
    columns = {name: np.insert(values, 7, values[6]) for name, values in bar_columns().items()}
    bars = Bars(**columns)
    (defect,) = find_defects(bars)
    assert (
        str(defect)
        == "row 8: expected one row per timestamp, found a copy of the row at 2024-01-02T14:36:00.000Z (1 rows)"
    )
    kept, n_dropped = clean(bars, "bars", "drop", price_tolerance_frac=0.0)
    assert n_dropped == 1
    np.testing.assert_array_equal(kept.close, bar_columns()["close"])
    assert "drop to leave them out" in refusal(write_parquet(tmp_path / "b.parquet", columns))


@pytest.mark.requirement("DATA-7")
def test_b03_conflicting_duplicates_are_always_refused(tmp_path):
    columns = {name: np.insert(values, 7, values[6]) for name, values in bar_columns().items()}
    columns["close"][7] += 0.01
    for policy in ("error", "drop"):
        message = refusal(write_parquet(tmp_path / "b.parquet", columns), defects=policy)
        assert (
            "row 8: expected one row per timestamp, found 2024-01-02T14:36:00.000Z again with other values" in message
        )


def test_b04_mixed_zones(tmp_path):
    times = bar_columns()["timestamp"]
    texts = iso(times[:12], suffix="Z") + iso(times[12:], timedelta(hours=1), "+01:00")
    path = write_text(tmp_path / "b.csv", {**bar_columns(), "timestamp": texts})
    assert "row 13: expected one offset, found '2024-01-02T15:42:00+01:00'" in refusal(path)
    assert "row 1: expected the offset of data.timezone America/New_York" in refusal(path, timezone="America/New_York")


def test_b05_naive_and_aware(tmp_path):
    texts = iso(bar_columns()["timestamp"], suffix="Z")
    texts[3] = texts[3].removesuffix("Z")
    message = refusal(write_text(tmp_path / "b.csv", {**bar_columns(), "timestamp": texts}), timezone="UTC")
    assert "row 4: expected all timestamps with a zone or all without, found '2024-01-02T14:33:00'" in message


def test_b06_naive_without_a_declared_zone(tmp_path):
    path = write_text(tmp_path / "b.csv", {**bar_columns(), "timestamp": iso(bar_columns()["timestamp"])})
    assert "with a zone, found 2024-01-02 14:30:00 without; set data.timezone" in refusal(path)
    assert "expected an IANA zone such as America/New_York, found 'New York'" in refusal(path, timezone="New York")


@pytest.mark.parametrize(
    ("text", "kind"), [("2024-03-10T02:30:00", "never shows"), ("2024-11-03T01:30:00", "shows twice")]
)
def test_b07_b08_wall_clock_times_that_are_not_one_instant(tmp_path, text, kind):
    columns = {**bar_columns(2), "timestamp": ["2024-03-08T10:00:00", text]}
    message = refusal(write_text(tmp_path / "b.csv", columns), timezone="America/New_York")
    assert "row 2: expected a clear time in America/New_York" in message
    assert kind in message


@pytest.mark.parametrize(("divisor", "unit"), [(10**9, "seconds"), (10**6, "milliseconds"), (10**3, "microseconds")])
@pytest.mark.parametrize("write", [write_parquet, write_text])
def test_b10_other_units_taken_for_nanoseconds(tmp_path, divisor, unit, write):
    columns = bar_columns()
    columns["timestamp"] //= divisor
    message = refusal(write(tmp_path / "b.data", columns))
    assert (
        f"row 1: expected nanoseconds since 1970, found {START // divisor} (20 rows); it looks like {unit}" in message
    )


def test_b10_b11_outside_of_1900_to_tomorrow(tmp_path):
    for start, row in ((time.time_ns() + 86_400 * 10**9 - 5 * MINUTE, 7), (-(2**62), 1)):
        message = refusal(write_parquet(tmp_path / "b.parquet", bar_columns(start=start)))
        assert f"row {row}: expected a timestamp in [1900, now + 1 day]" in message


def test_b12_day_and_month_are_not_guessed(tmp_path):
    path = write_text(tmp_path / "b.csv", {**bar_columns(2), "timestamp": ["2024-02-01T10:00:00Z", "02/01/2024 10:01"]})
    assert "row 2: " in refusal(path)
    path = write_text(tmp_path / "b.csv", {**bar_columns(2), "timestamp": ["01/02/2024 10:00", "01/02/2024 10:01"]})
    assert "row 1: expected ISO-8601 such as 2024-01-02T09:30:00, found '01/02/2024 10:00'" in refusal(
        path, timezone="UTC"
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("close", np.nan, "finite prices"),  # B13
        ("high", np.inf, "finite prices"),  # B14
        ("low", 0.0, "prices above zero"),  # B15
        ("low", -37.63, "prices above zero"),  # B16
        ("volume", -5.0, "volume at or above zero"),  # B18
        ("volume", np.inf, "volume at or above zero"),
        ("high", 1.0, "high at or above low"),  # B19
        ("open", 480.0, "open and close within low and high"),
    ],
)
def test_b13_to_b19_values_that_no_bar_can_have(tmp_path, name, value, expected):
    path = parquet(tmp_path, **with_value(name, 11, value))
    message = refusal(path)
    assert f"row 12: expected {expected}" in message
    assert "(1 rows); correct them, or set data.defects: drop" in message


def test_b13_a_missing_price_is_no_number(tmp_path):
    close = bar_columns()["close"].tolist()
    close[2] = None
    assert "row 3: expected finite prices, found" in refusal(parquet(tmp_path, close=close))


def test_all_kinds_of_defects_are_named_together(tmp_path):
    path = parquet(tmp_path, **with_value("close", 3, np.nan), **with_value("volume", 9, -1.0))
    message = refusal(path)
    assert "row 4: expected finite prices" in message
    assert "row 10: expected volume" in message


def test_dropped_rows_are_counted_and_marked_and_nothing_is_filled(tmp_path):
    columns = session_columns(70)
    columns["close"][100] = np.nan
    columns["low"][5000] = -1.0
    path = write_parquet(tmp_path / "bars.parquet", columns)
    market = load_market(DataConfig(source="files", bars=path, defects="drop"), FOLDS)
    assert market.marks["defects"] == f"dropped 2 of {70 * 390} rows"
    assert len(market.close) == len(np.unique(market.event_time))
    assert columns["timestamp"][100] not in market.event_time
    assert np.isfinite(market.close).all()


def test_b17_a_bar_without_volume_is_accepted():
    assert find_defects(Bars(**{**bar_columns(), **with_value("volume", 2, 0.0)})) == ()


def test_b19_a_tolerance_is_a_share_of_the_price():
    bars = Bars(**{**bar_columns(), **with_value("high", 4, bar_columns()["close"][4] - 1e-5)})
    bars.open[4] = bars.low[4]
    assert len(find_defects(bars, price_tolerance_frac=0.0)) == 1
    assert find_defects(bars, price_tolerance_frac=1e-6) == ()


def test_b20_a_constant_price_has_no_model_of_volatility(tmp_path):
    columns = bar_columns(900, step=86_400 * 10**9)
    columns["timestamp"] -= 800 * 86_400 * 10**9
    columns.update(dict.fromkeys(("open", "high", "low", "close"), np.full(900, 100.0)))
    message = refusal(write_parquet(tmp_path / "b.parquet", columns), iv_initial_sessions=100)
    assert "expected closes that move, found a constant series" in message


def test_b21_a_single_bar(tmp_path):
    assert "expected at least 2 bars, found 1" in refusal(write_parquet(tmp_path / "b.parquet", bar_columns(1)))


def test_b22_too_short_for_a_fold(tmp_path):
    message = refusal(write_parquet(tmp_path / "b.parquet", session_columns(5)))
    assert "train 1 + validation 1 + test 1 = 3 months, found 1 (2024-01-02 to 2024-01-08)" in message


def test_b27_a_number_with_a_thousands_mark(tmp_path):
    close = [f'"{c:,.2f}"' for c in bar_columns()["close"] * 10]
    message = refusal(write_text(tmp_path / "b.csv", {**bar_columns(), "close": close}))
    assert "row 1: expected close as a number, found '4,7" in message


@pytest.mark.requirement("DATA-7")
def test_b28_wrong_types(tmp_path):
    times = bar_columns()["timestamp"].astype(np.float32)
    assert "expected timestamps as int64 ns, Arrow timestamps or ISO text, found float" in refusal(
        parquet(tmp_path, timestamp=times)
    )
    assert "expected close as numbers, found string" in refusal(parquet(tmp_path, close=["1"] * 20))
    assert "row 1: expected nanoseconds since 1970" in refusal(
        parquet(tmp_path, timestamp=(bar_columns()["timestamp"] // 10**9).astype(np.int32))
    )


@pytest.mark.requirement("DATA-7")
def test_b29_a_missing_column_offers_the_nearest(tmp_path):
    columns = bar_columns()
    columns["clse"] = columns.pop("close")
    for write in (write_parquet, write_text):
        message = refusal(write(tmp_path / "b.data", columns))
        assert (
            "expected a column close, found timestamp, open, high, low, volume, clse; did you mean 'clse'?" in message
        )
    assert "found it twice" in refusal(parquet(tmp_path, Close=bar_columns()["close"]))
    assert "expected a header, or timestamp, open" in refusal(write_text(tmp_path / "c.csv", {"0": [1], "1": [2]}))


def test_b30_a_file_that_is_cut_or_no_table(tmp_path):
    whole = (tmp_path / "whole.parquet", tmp_path / "cut.parquet")
    write_parquet(whole[0], bar_columns(500))
    content = whole[0].read_bytes()
    for cut in (content[: len(content) // 2], content[:4], b"PAR1" + bytes(100)):
        whole[1].write_bytes(cut)
        assert "expected a whole Parquet or CSV file" in refusal(str(whole[1]))
    text = tmp_path / "cut.csv"
    write_text(text, bar_columns())
    text.write_bytes(text.read_bytes()[:-30])
    assert "expected a whole Parquet or CSV file" in refusal(str(text))
    text.write_bytes(bytes(range(256)) * 4)
    refusal(str(text))


def test_several_symbols_need_a_choice(tmp_path):
    path = parquet(tmp_path, symbol=["ESZ4", "ESH5"] * 10)
    assert "expected one symbol, found 2 (ESH5, ESZ4); set data.symbol" in refusal(path)
    assert "did you mean 'ESH5'?" in refusal(path, symbol="ESH55")
    assert "expected a column symbol" in refusal(parquet(tmp_path), symbol="ES")


def test_rows_of_a_chosen_symbol_are_counted_among_its_own(tmp_path):
    path = parquet(tmp_path, symbol=["ESZ4", "ESH5"] * 10, **with_value("close", 5, np.nan))
    assert "bars.parquet, ESH5: row 3: expected finite prices" in refusal(path, symbol="ESH5")


def test_bars_outside_of_every_session(tmp_path):
    saturday = bar_columns(start=START + 4 * 86_400 * 10**9)
    assert "expected bars in sessions of XNYS (rth), found none of 20" in refusal(
        write_parquet(tmp_path / "b.parquet", saturday)
    )


def test_settings_of_files_with_another_source():
    with pytest.raises(DataError, match=r"data.bars: expected none with data.source: arch_sp500"):
        load_market(DataConfig(bars="x.csv"), FOLDS)
    with pytest.raises(DataError, match="expected a day such as"):
        load_market(DataConfig(start="1/2/2004"), FOLDS)
    with pytest.raises(DataError, match="found none; widen the range"):
        load_market(DataConfig(start="2030-01-01"), FOLDS)


@pytest.mark.parametrize(("values", "message"), [([18.0, -1.0], "row 2: expected vix above zero, found -1.0")])
def test_bad_volatility_file(tmp_path, values, message):
    bars = write_parquet(tmp_path / "bars.parquet", session_columns(70))
    path = write_text(
        tmp_path / "v.csv", {"timestamp": ["2024-01-02T00:00:00Z", "2024-01-03T00:00:00Z"], "vix": values}
    )
    assert message in refusal(bars, iv=path)
    nameless = write_text(tmp_path / "w.csv", {"timestamp": ["2024-01-02T00:00:00Z"], "value": [18.0]})
    assert "expected a column vix, iv or close" in refusal(bars, iv=nameless)
    unsorted = {"timestamp": ["2024-01-03T00:00:00Z", "2024-01-02T00:00:00Z"], "vix": [18.0, 19.0]}
    assert "row 2: expected a later timestamp" in refusal(bars, iv=write_text(tmp_path / "u.csv", unsorted))


def test_sections_that_the_source_does_not_read_are_refused():
    with pytest.raises(ValueError, match="synthetic must be left out with source: files"):
        DataConfig(source="files", synthetic=SyntheticConfig())
    with pytest.raises(ValueError, match="roll must be left out with source: arch_sp500"):
        DataConfig(roll=RollConfig())
    with pytest.raises(DataError, match=r"data\.bars: expected none with data\.source: synthetic"):
        load_market(DataConfig(source="synthetic", bars="x.csv"), FOLDS)
