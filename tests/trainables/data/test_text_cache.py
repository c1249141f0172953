import numpy as np
import pyarrow as pa
import pytest

from tests.trainables.data.files import iso, session_columns, write_text
from trainables.data import readers
from trainables.data.config import DataConfig
from trainables.data.placement import place_bars
from trainables.data.text_cache import parsed_once


def text_file(folder):
    """The default path of the command line, with minutes of two sessions."""
    path = folder / "data" / "processed" / "mamba_institutional_1m.csv"
    path.parent.mkdir(parents=True)
    columns = session_columns(2)
    columns["timestamp"] = iso(columns["timestamp"], suffix="Z")
    write_text(path, columns)
    return path


def copies(path):
    return sorted(path.parent.glob(".*.parquet"))


@pytest.mark.requirement("DATA-28")
def test_a_text_file_is_parsed_once_and_anew_after_one_changed_byte(tmp_path, monkeypatch):
    path, parsed = text_file(tmp_path), []
    parse = readers._read_text
    monkeypatch.setattr(readers, "_read_text", lambda *given: parsed.append(given) or parse(*given))
    data = DataConfig(source="files", bars=str(path))
    first, second = place_bars(data), place_bars(data)
    assert len(parsed) == 1
    for name in ("timestamp", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(first.bars, name), getattr(second.bars, name))
    (before,) = copies(path)
    content = bytearray(path.read_bytes())
    last_digit = len(content) - 4  # before ".0\n" of the last volume
    content[last_digit] = ord("1") if content[last_digit] != ord("1") else ord("2")
    path.write_bytes(content)
    changed = place_bars(data)
    assert len(parsed) == 2
    assert changed.bars.volume[-1] != first.bars.volume[-1]
    assert changed.digests != first.digests
    (after,) = copies(path)
    assert after != before


@pytest.mark.requirement("DATA-28")
def test_other_columns_are_another_copy_and_a_damaged_one_is_made_again(tmp_path):
    path, calls = text_file(tmp_path), []

    def parse():
        calls.append(1)
        return pa.table({"close": [1.0, 2.0]})

    for wanted in (("close",), ("close",), ("open",)):
        assert parsed_once(path, (wanted, ()), parse).equals(pa.table({"close": [1.0, 2.0]}))
    assert len(calls) == 2
    for copy in copies(path):
        copy.write_bytes(copy.read_bytes()[:-20])
    parsed_once(path, (("close",), ()), parse)
    assert len(calls) == 3


def test_looking_at_a_file_leaves_nothing_beside_it(tmp_path):
    path = text_file(tmp_path)
    readers.read_bars(DataConfig(source="files", bars=str(path)))
    assert copies(path) == []


def test_where_nothing_can_be_written_the_file_is_parsed(tmp_path, monkeypatch, caplog):
    path = text_file(tmp_path)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("trainables.data.text_cache.pq.write_table", refuse)
    assert len(place_bars(DataConfig(source="files", bars=str(path))).bars) == 780
    assert "not kept as Parquet" in caplog.text
