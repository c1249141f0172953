import numpy as np
import pytest

from tests.trainables.data.files import START, bar_columns, session_columns, write_parquet
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.grid import regular_grid
from trainables.data.loader import load_market
from trainables.data.placement import place_bars

SECOND = 10**9


def seconds_file(tmp_path, missing, n=400):
    columns = bar_columns(n, step=SECOND)
    return write_parquet(tmp_path / "b.parquet", {name: np.delete(v, missing) for name, v in columns.items()})


@pytest.mark.requirement("DATA-10")
def test_sixty_rows_are_sixty_seconds_also_where_twenty_bars_are_missing(tmp_path):
    missing = np.arange(100, 140, 2)
    path = seconds_file(tmp_path, missing)
    event, regular = (place_bars(DataConfig(source="files", bars=path, grid=grid)) for grid in ("event", "regular"))
    assert len(event.bars) == 380
    assert (regular.known_time[60:] - regular.known_time[:-60] == 60 * SECOND).all()
    assert (event.known_time[60:] - event.known_time[:-60] > 60 * SECOND).any()
    assert regular.marks["grid"] == "regular: 20 of 400 bars filled in, volume 0"


@pytest.mark.requirement("DATA-10")
def test_a_filled_bar_is_the_close_before_with_no_volume_and_says_so(tmp_path):
    path = seconds_file(tmp_path, [7, 8])
    placed = regular_grid(place_bars(DataConfig(source="files", bars=path)))
    assert np.flatnonzero(placed.is_filled).tolist() == [7, 8]
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(placed.bars, name)[7:9], placed.bars.close[6])
    assert placed.bars.volume[7:9].tolist() == [0, 0]
    assert (placed.event_time - START == SECOND * np.arange(400)).all()
    np.testing.assert_array_equal(placed.bars.high[9:], bar_columns(400, step=SECOND)["high"][9:])


@pytest.mark.requirement("DATA-10")
def test_holes_and_nights_are_not_filled(tmp_path):
    path = seconds_file(tmp_path, np.arange(100, 200))
    placed = regular_grid(place_bars(DataConfig(source="files", bars=path)))
    assert not placed.is_filled.any()
    assert len(np.unique(placed.segment)) == 2
    days = write_parquet(tmp_path / "d.parquet", session_columns(3))
    placed = regular_grid(place_bars(DataConfig(source="files", bars=days)))
    assert not placed.is_filled.any()
    assert len(placed.bars) == 3 * 390


@pytest.mark.requirement("DATA-10")
def test_the_market_says_which_bars_are_filled_also_after_rows_were_cut(tmp_path):
    columns = session_columns(70)
    gone = 40 * 390 + np.arange(5, 25)
    path = write_parquet(tmp_path / "m.parquet", {name: np.delete(v, gone) for name, v in columns.items()})
    folds = FoldsConfig(train_months=1, test_months=1)
    event, regular = (
        load_market(DataConfig(source="files", bars=path, grid=grid), folds) for grid in ("event", "regular")
    )
    assert not event.is_filled.any()
    assert regular.is_filled.sum() == 20
    assert set(regular.event_time[regular.is_filled]) == set(columns["timestamp"][gone])
    assert (regular.volume[regular.is_filled] == 0).all()
    assert len(regular) == len(event) + 20
