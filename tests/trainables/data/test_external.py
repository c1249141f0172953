import logging
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.files import write_parquet, write_text
from trainables.data.external import known_at, read_external, read_sources
from trainables.errors import DataError

DAY = 86_400 * 10**9
JANUARY, FEBRUARY = 19_723 * DAY, 19_754 * DAY
"""Midnights of 2024-01-01 and 2024-02-01."""


def series(tmp_path, **changes):
    """January's number, February's, then a revision of January's and one of February's."""
    columns = {
        "event_time": np.array([JANUARY, FEBRUARY, JANUARY, FEBRUARY]),
        "release_time": np.array([JANUARY + 10 * DAY, FEBRUARY + 10 * DAY, FEBRUARY + 20 * DAY, FEBRUARY + 30 * DAY]),
        "value": np.array([1.0, 2.0, 1.5, 2.5]),
        "expected": np.array([0.9, 2.2, np.nan, np.nan]),
    }
    return read_external(Path(write_parquet(tmp_path / "macro.parquet", {**columns, **changes})))


@pytest.mark.requirement("DATA-27")
def test_a_value_is_seen_from_its_release_and_a_revision_from_its_own(tmp_path):
    days = np.array([9, 10, 31 + 9, 31 + 10, 31 + 25, 31 + 29, 31 + 30])
    known = known_at(series(tmp_path), JANUARY + days * DAY)
    np.testing.assert_array_equal(known[:, 0], [np.nan, 1, 1, 2, 2, 2, 2.5])
    np.testing.assert_allclose(known[1:4, 2], [0.1, 0.1, -0.2])
    np.testing.assert_allclose(known[1:, 3], [10, 40, 10, 25, 29, 30])


@pytest.mark.requirement("DATA-27")
def test_a_later_release_changes_nothing_before_it(tmp_path):
    times = JANUARY + np.arange(0, 70 * DAY, DAY // 4)
    before = known_at(series(tmp_path), times)
    after = known_at(series(tmp_path, value=np.array([1.0, 2.0, 1.5, 99.0])), times)
    early = times < FEBRUARY + 30 * DAY
    np.testing.assert_array_equal(before[early], after[early])
    assert (before[~early, 0] != after[~early, 0]).all()


def test_an_old_event_is_not_used(tmp_path):
    known = known_at(series(tmp_path), np.array([JANUARY + 20 * DAY, JANUARY + 21 * DAY]), max_age_days=20)
    np.testing.assert_array_equal(known[:, 0], [1.0, np.nan])


@pytest.mark.requirement("DATA-27")
def test_a_missing_source_is_off_with_a_reason(tmp_path, caplog):
    series(tmp_path)
    with caplog.at_level(logging.WARNING):
        found, off = read_sources({"cpi": str(tmp_path / "macro.parquet"), "fund_flow": str(tmp_path / "flows.csv")})
    assert list(found) == ["cpi"]
    assert off == {"fund_flow": "no file flows.csv"}
    assert "external series fund_flow is off: no file flows.csv" in caplog.text


def test_a_file_that_is_there_and_wrong_is_never_taken_for_absent(tmp_path):
    with pytest.raises(DataError, match="row 2: expected a finite value"):
        series(tmp_path, value=np.array([1.0, np.nan, 1.5, 2.5]))
    with pytest.raises(DataError, match="row 1: expected a release at or after its event"):
        series(tmp_path, release_time=np.full(4, JANUARY - DAY))
    with pytest.raises(DataError, match="expected one row per event and release"):
        series(tmp_path, release_time=np.full(4, FEBRUARY + DAY))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="found an empty file"):
        read_sources({"cpi": str(tmp_path / "empty.csv")})


def test_text_files_are_read(tmp_path):
    columns = {"event_time": ["2024-01-01T00:00:00Z"], "release_time": ["2024-01-11T13:30:00Z"], "value": [3.4]}
    found = read_external(Path(write_text(tmp_path / "cpi.csv", columns)))
    assert np.isnan(found.expected).all()
    assert found.release_time[0] == JANUARY + 10 * DAY + 13 * DAY // 24 + DAY // 48
