from datetime import UTC, date, datetime, time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.data.datasets import make_dataset
from trainables.data.config import FinalFolds, FoldsConfig
from trainables.data.dataset import NO_LABEL
from trainables.data.folds import check_folds, fold_rows, plan_folds, thinned
from trainables.data.zones import NS_PER_DAY, instant
from trainables.errors import DataError


def at(year, month, day=1):
    return instant(date(year, month, day), time())


TWO_YEARS = np.arange(at(2023, 1, 3), at(2025, 1, 1), NS_PER_DAY)


def month_of(time_ns):
    """Month that New York's winter or summer midnight lies in; six hours later is the same day everywhere."""
    stamp = datetime.fromtimestamp(time_ns / 1e9, UTC)
    return stamp.year, stamp.month


@pytest.mark.requirement("WF-1")
@pytest.mark.parametrize(("test_months", "n_folds", "last"), [(1, 17, (2024, 11)), (3, 15, (2024, 9))])
def test_two_years_give_the_documented_number_of_folds(test_months, n_folds, last):
    plan = plan_folds(TWO_YEARS, FoldsConfig(train_months=6, test_months=test_months))
    assert len(plan.windows) == n_folds
    assert month_of(plan.windows[0].validation_start) == (2023, 7)
    assert month_of(plan.windows[-1].validation_start) == last
    assert plan.vault_start == plan.windows[-1].validation_end
    assert plan.vault_end == at(2025, 1)


@pytest.mark.requirement("WF-1")
def test_the_first_three_folds_are_those_of_the_document():
    windows = plan_folds(TWO_YEARS, FoldsConfig(train_months=6)).windows[:3]
    found = [(w.train_start, w.train_end, w.validation_start, w.validation_end) for w in windows]
    assert found == [
        (at(2023, 1), at(2023, 7), at(2023, 7), at(2023, 8)),
        (at(2023, 1), at(2023, 8), at(2023, 8), at(2023, 9)),
        (at(2023, 1), at(2023, 9), at(2023, 9), at(2023, 10)),
    ]


@pytest.mark.requirement("WF-1")
def test_rolling_folds_train_on_a_fixed_number_of_months():
    windows = plan_folds(TWO_YEARS, FoldsConfig(mode="rolling", train_months=6)).windows
    assert [month_of(w.train_start) for w in windows[:3]] == [(2023, 1), (2023, 2), (2023, 3)]


def test_boundaries_are_midnights_of_new_york_on_both_sides_of_daylight_saving():
    windows = plan_folds(TWO_YEARS, FoldsConfig(train_months=6)).windows
    starts = [datetime.fromtimestamp(w.validation_start / 1e9, UTC) for w in windows]
    assert {(s.day, s.hour) for s in starts if s.month == 7} == {(1, 4)}
    assert {(s.day, s.hour) for s in starts if s.month == 12} == {(1, 5)}


def test_max_folds_keeps_the_latest_and_numbers_them_from_zero():
    windows = plan_folds(TWO_YEARS, FoldsConfig(train_months=6, max_folds=2)).windows
    assert [w.index for w in windows] == [0, 1]
    assert month_of(windows[-1].validation_start) == (2024, 11)


def test_b22_too_few_months_are_refused_with_the_arithmetic():
    with pytest.raises(DataError, match=r"train 24 \+ validation 1 \+ test 1 = 26 months, found 24"):
        plan_folds(TWO_YEARS, FoldsConfig(train_months=24))
    with pytest.raises(DataError, match="at least one row"):
        plan_folds(np.array([], dtype=np.int64), FoldsConfig())


@pytest.mark.requirement("WF-4")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    train_months=st.integers(1, 12),
    validation_months=st.integers(1, 3),
    test_months=st.integers(1, 3),
    mode=st.sampled_from(["anchored", "rolling"]),
    embargo=st.floats(0, 20),
    lookback=st.integers(1, 5),
)
def test_no_training_label_touches_validation_and_no_row_reaches_the_vault(
    seed, train_months, validation_months, test_months, mode, embargo, lookback
):
    random = np.random.default_rng(seed)
    n_rows = 600
    span = random.integers(0, 60 * NS_PER_DAY, n_rows)
    span[random.random(n_rows) < 0.1] = NO_LABEL
    dataset = make_dataset(
        n_rows,
        start=at(2023, 1, 3) + int(random.integers(0, NS_PER_DAY)),
        label_span=span,
        usable=(random.random(n_rows) < 0.8) & (span != NO_LABEL),
        segment=np.sort(random.integers(0, 4, n_rows)),
    )
    folds = FoldsConfig(
        mode=mode, train_months=train_months, validation_months=validation_months, test_months=test_months
    )
    plan = plan_folds(dataset.known_time, folds)
    for window in plan.windows:
        try:
            rows = fold_rows(window, dataset, lookback=lookback, scored_lookback=5, embargo=embargo)
        except DataError:
            continue
        known, end = dataset.known_time, dataset.label_end
        touches = (known[rows.train] < window.validation_end) & (end[rows.train] >= window.validation_start)
        assert not touches.any()
        assert (window.validation_start - end[rows.train] > embargo * NS_PER_DAY * (1 - 1e-12)).all()
        assert max(known[rows.validation].max(), end[rows.validation].max(), end[rows.train].max()) < plan.vault_start
        assert (known[rows.validation] >= window.validation_start).all()
        assert (known[rows.validation] < window.validation_end).all()
        for position in (*rows.train[:5], *rows.validation[:5]):
            assert dataset.usable[position]
            assert len(set(dataset.segment[position - lookback + 1 : position + 1])) == 1


def test_training_rows_come_before_scored_rows():
    dataset = make_dataset(700, start=at(2023, 1, 3))
    for window in plan_folds(dataset.known_time, FoldsConfig()).windows:
        rows = fold_rows(window, dataset, lookback=3, scored_lookback=3)
        assert dataset.known_time[rows.train].max() < dataset.known_time[rows.validation].min()


@pytest.mark.requirement("WF-7")
@pytest.mark.requirement("SEARCH-14")
def test_scored_rows_do_not_depend_on_the_look_back_of_the_trial():
    segment = np.repeat([0, 1], [230, 470])
    dataset = make_dataset(700, start=at(2023, 1, 3), segment=segment)
    window = plan_folds(dataset.known_time, FoldsConfig()).windows[1]
    short, long = (fold_rows(window, dataset, lookback=n, scored_lookback=20) for n in (1, 20))
    np.testing.assert_array_equal(short.validation, long.validation)
    assert len(short.train) > len(long.train)
    in_window = (dataset.known_time >= window.validation_start) & (dataset.known_time < window.validation_end)
    assert 0 < len(long.validation) < in_window.sum()


def test_a_look_back_beyond_the_scored_one_is_a_mistake_of_the_caller():
    dataset = make_dataset(700, start=at(2023, 1, 3))
    with pytest.raises(ValueError, match="scored_lookback"):
        fold_rows(plan_folds(dataset.known_time, FoldsConfig()).windows[0], dataset, lookback=3, scored_lookback=2)


def test_a_purge_that_leaves_no_training_row_is_refused():
    dataset = make_dataset(700, start=at(2023, 1, 3), label_span=200 * NS_PER_DAY)
    window = plan_folds(dataset.known_time, FoldsConfig()).windows[0]
    with pytest.raises(DataError, match=r"fold 0 .*no training row; of 179 rows 179 have .* 0 a label known before"):
        fold_rows(window, dataset, lookback=1, scored_lookback=1)


def test_a_declared_purge_shorter_than_a_label_is_refused():
    dataset = make_dataset(700, start=at(2023, 1, 3), label_span=5 * NS_PER_DAY)
    short, long = (plan_folds(dataset.known_time, FoldsConfig(purge_days=d)).windows[0] for d in (4.0, 30.0))
    with pytest.raises(DataError, match="purge_days: expected at least the longest label, 5 days, found 4"):
        fold_rows(short, dataset, lookback=1, scored_lookback=1)
    rows = fold_rows(long, dataset, lookback=1, scored_lookback=1)
    assert dataset.known_time[rows.train].max() < long.validation_start - 30 * NS_PER_DAY


def test_b23_folds_without_scored_rows_are_listed_together():
    dataset = make_dataset(700, start=at(2023, 1, 3))
    dataset.usable[170:250] = False
    windows = plan_folds(dataset.known_time, FoldsConfig()).windows
    with pytest.raises(DataError, match=r"2 of 17 cannot be used: fold 0 .*; fold 1 "):
        check_folds(windows, dataset, lookback=1, scored_lookback=1)
    dataset.usable[:] = True
    assert len(check_folds(windows, dataset, lookback=1, scored_lookback=1)) == 17


@pytest.mark.requirement("WF-1")
def test_days_may_stand_for_months_where_data_cover_only_days():
    """Five trading days around a weekend, each from 09:30 to 16:00; known at the end of a bar."""
    days = [(2024, 3, d) for d in (7, 8, 11, 12, 13)]  # the clock changes on the 10th
    opens = np.array([instant(date(*day), time(9, 30)) for day in days])
    known = (opens[:, None] + np.arange(60, 23_460, 60) * 10**9).ravel()
    plan = plan_folds(known, FoldsConfig(unit="days", train_months=2, validation_months=1, test_months=1))
    assert [(w.validation_start, w.validation_end) for w in plan.windows] == [
        (at(2024, 3, 11), at(2024, 3, 12)),
        (at(2024, 3, 12), at(2024, 3, 13)),
    ]
    assert {w.train_start for w in plan.windows} == {at(2024, 3, 7)}
    assert (plan.vault_start, plan.vault_end) == (at(2024, 3, 13), at(2024, 3, 14))
    rolling = plan_folds(known, FoldsConfig(unit="days", mode="rolling", train_months=2, validation_months=1))
    assert [w.train_start for w in rolling.windows] == [at(2024, 3, 7), at(2024, 3, 8)]
    with pytest.raises(DataError, match="= 7 days, found 5"):
        plan_folds(known, FoldsConfig(unit="days", train_months=5))


def test_only_rows_that_may_be_scored_are_scored():
    from dataclasses import replace

    dataset = make_dataset(len(TWO_YEARS), start=int(TWO_YEARS[0]))
    window = plan_folds(TWO_YEARS, FoldsConfig()).windows[0]
    every = fold_rows(window, dataset, lookback=1, scored_lookback=1)
    scored = np.arange(len(dataset)) % 2 == 0
    half = fold_rows(window, replace(dataset, scored=scored), lookback=1, scored_lookback=1)
    assert half.validation.tolist() == [row for row in every.validation if row % 2 == 0]
    assert half.train.tolist() == every.train.tolist()


@pytest.mark.requirement("DATA-5")
@given(
    rows=st.sets(st.integers(0, 300), min_size=1).map(lambda found: np.array(sorted(found))), stride=st.integers(1, 40)
)
def test_thinned_rows_are_a_stride_apart_and_none_could_be_added(rows, stride):
    kept = thinned(rows, stride)
    assert kept[0] == rows[0]
    assert (np.diff(kept) >= stride).all()
    expected, last = [], -stride
    for row in rows:
        if row - last >= stride:
            expected.append(row)
            last = row
    assert kept.tolist() == expected


def test_a_stride_of_one_keeps_every_row():
    rows = np.array([3, 4, 9])
    assert thinned(rows, 1) is rows
    assert len(thinned(rows[:0], 5)) == 0


@pytest.mark.requirement("WF-1", "SEARCH-17")
@pytest.mark.parametrize(("mode", "first"), [("anchored", (2023, 1)), ("rolling", (2024, 4))])
def test_the_final_folds_train_up_to_the_vault_and_are_scored_on_all_of_it(mode, first):
    section = {"mode": mode, "train_months": 6, "test_months": 3, "validation_months": 2}
    closed = plan_folds(TWO_YEARS, FoldsConfig(**section))
    opened = plan_folds(TWO_YEARS, FinalFolds(**section, opening=1))
    (window,) = opened.windows
    assert month_of(window.train_start) == first
    assert window.train_end == window.validation_start == closed.vault_start
    assert window.validation_end == opened.vault_start == opened.vault_end == closed.vault_end
    dataset = make_dataset(len(TWO_YEARS), start=TWO_YEARS[0], label_span=5 * NS_PER_DAY)
    rows = fold_rows(window, dataset, lookback=3, scored_lookback=3)
    assert dataset.label_end[rows.train].max() < closed.vault_start
    assert 0 <= dataset.known_time[rows.validation[0]] - closed.vault_start < NS_PER_DAY


def test_no_space_file_can_open_the_vault():
    with pytest.raises(ValueError, match="opening"):
        FoldsConfig.model_validate_json('{"opening": 1}')
