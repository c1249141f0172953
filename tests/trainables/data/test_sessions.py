from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pytest

from tests.trainables.data.files import MINUTE
from trainables.data.config import DataConfig
from trainables.data.sessions import place, schedule, segments, usual_step_s
from trainables.data.zones import NS_PER_DAY, day_of, instant, instants, local_day, local_time

RTH = DataConfig(source="files", bars="x")


def utc(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 10**9


def minutes(first, last):
    """Every minute of the clock from midnight UTC of a day to midnight after another."""
    return np.arange(utc(*first), utc(*last) + NS_PER_DAY, MINUTE)


@pytest.mark.requirement("DATA-8")
def test_utc_becomes_new_york_time_in_winter_and_summer():
    times = np.array([utc(2024, 1, 2, 14, 30), utc(2024, 7, 1, 13, 30)])
    assert (local_time(times) % NS_PER_DAY / 3.6e12).tolist() == [9.5, 9.5]
    assert instant(date(2024, 1, 2), time(9, 30)) == times[0]
    assert instant(date(2024, 7, 1), time(9, 30)) == times[1]
    np.testing.assert_array_equal(instants(local_day(times), time(9, 30)), times)
    assert day_of(utc(2024, 7, 1, 3, 59)) == date(2024, 6, 30)


@pytest.mark.requirement("DATA-8")
@pytest.mark.requirement("DATA-9")
@pytest.mark.parametrize("monday", [date(2024, 3, 11), date(2024, 11, 4), date(2024, 7, 15)])
def test_regular_sessions_have_390_minutes_around_changes_of_the_clock(monday):
    before = monday - timedelta(days=7)
    times = minutes((before.year, before.month, before.day), (monday.year, monday.month, monday.day + 4))
    rows = place(times, 60, RTH, "x")
    assert np.unique(rows.number, return_counts=True)[1].tolist() == [390] * 10
    clock = local_time(rows.event_time) % NS_PER_DAY / 6e10
    assert (clock.min(), clock.max()) == (9 * 60 + 30, 15 * 60 + 59)
    np.testing.assert_array_equal(rows.known_time, rows.event_time + MINUTE)


@pytest.mark.requirement("DATA-9")
def test_a_regular_session_has_23400_seconds():
    times = np.arange(utc(2024, 7, 15), utc(2024, 7, 16), 10**9)
    clock = local_time(place(times, 1, RTH, "x").event_time) % NS_PER_DAY / 1e9
    assert (len(clock), clock[0], clock[-1]) == (23_400, 9.5 * 3600, 16 * 3600 - 1)


@pytest.mark.requirement("DATA-9")
def test_half_days_and_holidays_come_from_the_calendar():
    times = minutes((2024, 7, 3), (2024, 7, 5))
    rows = place(times, 60, RTH, "x")
    assert np.unique(rows.number, return_counts=True)[1].tolist() == [210, 390]


def test_bars_stamped_at_their_end_are_moved_to_their_start():
    times = minutes((2024, 7, 15), (2024, 7, 15))
    rows = place(times, 60, RTH.model_copy(update={"bar_label": "right"}), "x")
    assert len(rows.event_time) == 390
    assert rows.known_time[0] == utc(2024, 7, 15, 13, 31)
    assert times[rows.kept][0] == utc(2024, 7, 15, 13, 31)


def test_extended_hours_globex_and_a_market_without_a_close():
    times = minutes((2024, 7, 15), (2024, 7, 19))
    extended = place(times, 60, RTH.model_copy(update={"session": "all"}), "x")
    assert np.unique(extended.number, return_counts=True)[1].tolist() == [960] * 5
    globex = place(times, 60, RTH.model_copy(update={"session": "all", "calendar": "CMES"}), "x")
    assert (
        local_time(globex.event_time[np.flatnonzero(np.diff(globex.number))[0] + 1 :][:1])[0] % NS_PER_DAY
        == 18 * 3600e9
    )
    always = place(times, 60, RTH.model_copy(update={"calendar": "24/7"}), "x")
    assert always.kept.all()


@pytest.mark.parametrize("stamp", [time(0), time(21, 15)])
def test_daily_bars_belong_to_the_session_of_their_date(stamp):
    """Friday 2024-07-05 to Tuesday 2024-07-09; Saturday's bar is no session's."""
    times = np.array([utc(2024, 7, d, stamp.hour, stamp.minute) for d in (5, 6, 8, 9)])
    rows = place(times, 86_400, RTH, "x")
    assert rows.kept.tolist() == [True, False, True, True]
    assert rows.event_time[0] == utc(2024, 7, 5, 13, 30)
    assert rows.known_time[0] == utc(2024, 7, 5, 20, 0)
    assert np.diff(rows.number).tolist() == [1, 1]


def test_segments_break_at_a_missing_session_and_at_a_long_hole_only():
    times = minutes((2024, 7, 15), (2024, 7, 18))
    rows = place(times, 60, RTH, "x")
    kept = np.ones(len(rows.number), dtype=bool)
    kept[100:110] = False  # ten minutes of the first session
    kept[400:480] = False  # eighty minutes of the second
    kept[2 * 390 : 3 * 390] = False  # all of the third
    thinned = place(times[rows.kept][kept], 60, RTH, "x")
    found = segments(thinned, 60, max_gap_bars=60)
    assert np.unique(found).tolist() == [0, 1, 2]
    breaks = thinned.event_time[np.flatnonzero(np.diff(found)) + 1]
    assert breaks.tolist() == [utc(2024, 7, 16, 15, 0), utc(2024, 7, 18, 13, 30)]


def test_the_usual_step_survives_nights_and_holes():
    times = minutes((2024, 7, 15), (2024, 7, 16))
    assert usual_step_s(np.delete(times, [3, 4, 90]), "x") == 60


def test_the_schedule_reaches_beyond_the_data():
    plan = schedule(RTH, utc(2024, 7, 15), utc(2024, 7, 15))
    assert plan.open[0] < utc(2024, 7, 15)
    assert plan.close[-1] > utc(2024, 7, 16)


@pytest.mark.requirement("DATA-1")
def test_a_week_of_globex_is_6900_minutes_and_6825_with_the_daily_pause_that_there_was():
    times = minutes((2024, 1, 7), (2024, 1, 12))
    times = times[local_time(times) % NS_PER_DAY // (60 * MINUTE) != 17]  # nothing trades from 17:00 to 18:00
    globex = RTH.model_copy(update={"calendar": "CMES", "session": "all"})
    rows = place(times, 60, globex, "x")
    assert len(rows.event_time) == 5 * 23 * 60 == 6900
    assert np.unique(rows.number, return_counts=True)[1].tolist() == [1380] * 5
    clock = local_time(times) % NS_PER_DAY // MINUTE
    paused = place(times[(clock < 16 * 60 + 15) | (clock >= 16 * 60 + 30)], 60, globex, "x")
    assert len(paused.event_time) == 6825
    assert len(np.unique(segments(paused, 60, 60))) == 1
