from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from tests.trainables.data.files import bar_columns, iso, write_parquet, write_text
from trainables.data.bars import PRICES
from trainables.data.check import main as check
from trainables.data.config import DataConfig
from trainables.data.readers import read_bars, read_volatility

HOUR = timedelta(hours=1)


def read(path, **settings):
    return read_bars(DataConfig(source="files", bars=path, **settings))


def assert_equal(bars, columns):
    for name in ("timestamp", *PRICES, "volume"):
        np.testing.assert_allclose(getattr(bars, name), columns[name], rtol=1e-15)


@pytest.mark.requirement("DATA-7")
def test_parquet_round_trip(tmp_path):
    columns = bar_columns()
    assert_equal(read(write_parquet(tmp_path / "b.parquet", {**columns, "symbol": ["ES"] * 20})), columns)


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_text_is_sniffed_for_delimiter_and_header(tmp_path, delimiter, header):
    columns = bar_columns()
    assert_equal(read(write_text(tmp_path / "b.txt", columns, delimiter, header)), columns)


def test_names_ignore_case_order_and_other_columns(tmp_path):
    columns = bar_columns()
    renamed = {"Close": columns["close"], "note": ["x"] * 20, "DateTime": columns["timestamp"]}
    renamed |= {name.upper(): columns[name] for name in ("open", "high", "low", "volume")}
    assert_equal(read(write_parquet(tmp_path / "b.parquet", renamed)), columns)
    assert_equal(read(write_text(tmp_path / "b.csv", renamed)), columns)


def test_a_file_without_volume_has_none(tmp_path):
    columns = bar_columns()
    del columns["volume"]
    assert np.isnan(read(write_parquet(tmp_path / "b.parquet", columns)).volume).all()


@pytest.mark.parametrize(
    ("texts", "zone"),
    [
        (lambda t: iso(t, suffix="Z"), None),
        (lambda t: iso(t, suffix="+00:00"), "America/New_York"),
        (lambda t: iso(t, -5 * HOUR, "-05:00"), None),
        (lambda t: iso(t, -5 * HOUR, "-0500"), None),
        (lambda t: iso(t, -5 * HOUR), "America/New_York"),
        (lambda t: [s.replace("T", " ") for s in iso(t)], "UTC"),
    ],
)
@pytest.mark.parametrize("write", [write_parquet, write_text])
def test_text_timestamps_become_the_same_instants(tmp_path, texts, zone, write):
    if zone == "America/New_York" and texts([0])[0].endswith("+00:00"):
        zone = None
    columns = bar_columns()
    path = write(tmp_path / "b.data", {**columns, "timestamp": texts(columns["timestamp"])})
    assert_equal(read(path, timezone=zone), columns)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_arrow_timestamps_become_the_same_instants(tmp_path, unit, zone):
    columns = bar_columns()
    stamps = pa.array(columns["timestamp"]).cast(pa.timestamp("ns", zone)).cast(pa.timestamp(unit, zone))
    assert_equal(read(write_parquet(tmp_path / "b.parquet", {**columns, "timestamp": stamps})), columns)
    naive = pa.compute.local_timestamp(stamps)
    path = write_parquet(tmp_path / "n.parquet", {**columns, "timestamp": naive})
    assert_equal(read(path, timezone=zone), columns)


@pytest.mark.requirement("DATA-8")
def test_offsets_that_follow_the_declared_zone_are_one_zone(tmp_path):
    """02:00 New York on 2024-03-10 is 07:00 UTC: the offset changes there and the instants go on evenly."""
    start = 1710050400 * 10**9  # 2024-03-10 06:00 UTC
    columns = bar_columns(4, start=start, step=1800 * 10**9)
    before, after = (
        iso(columns["timestamp"][:2], -5 * HOUR, "-05:00"),
        iso(columns["timestamp"][2:], -4 * HOUR, "-04:00"),
    )
    path = write_text(tmp_path / "b.csv", {**columns, "timestamp": before + after})
    assert_equal(read(path, timezone="America/New_York"), columns)


def test_one_symbol_of_several_is_chosen(tmp_path):
    columns = bar_columns()
    symbols = ["ESH5", "ESM5"] * 10
    path = write_parquet(tmp_path / "b.parquet", {**columns, "symbol": symbols})
    assert_equal(read(path, symbol="ESM5"), {name: values[1::2] for name, values in columns.items()})


def test_b27_a_symbol_named_na_stays_text(tmp_path):
    path = write_text(tmp_path / "b.csv", {**bar_columns(), "symbol": ["NA"] * 20})
    assert len(read(path, symbol="NA")) == 20


@pytest.mark.parametrize("name", ["vix", "iv", "close", "VIX"])
def test_a_volatility_file_is_read_in_percent(tmp_path, name):
    columns = bar_columns()
    path = write_text(tmp_path / "v.csv", {"DATE": iso(columns["timestamp"], suffix="Z"), name: np.full(20, 18.5)})
    times, values = read_volatility(DataConfig(source="files", iv=path))
    np.testing.assert_array_equal(times, columns["timestamp"])
    np.testing.assert_allclose(values, 0.185)


@pytest.mark.requirement("DATA-6")
def test_the_mes_files_open_and_their_span_is_read_from_them_not_from_their_names(tmp_path, capsys):
    folder = tmp_path / "data" / "historical" / "MES"
    folder.mkdir(parents=True)
    seconds = {**bar_columns(300, step=10**9), "symbol": ["MESH24"] * 300}
    primary = write_parquet(folder / "MES_1s_2years.parquet", seconds)
    secondary = write_text(folder / "MES_full_1min_continuous.txt", bar_columns(50), "\t", header=False)
    assert_equal(read(primary), seconds)
    assert_equal(read(secondary), bar_columns(50))
    assert check([str(primary)]) == check([str(secondary)]) == 0
    report = capsys.readouterr().out
    assert "rows: 300\n  span: 2024-01-02 14:30:00Z to 2024-01-02 14:34:59Z" in report
    assert "rows: 50\n  span: 2024-01-02 14:30:00Z to 2024-01-02 15:19:00Z" in report
