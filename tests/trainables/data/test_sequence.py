"""Windows over rows of many contracts: never across contracts, or byte for byte the documented slices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.data.datasets import make_dataset
from trainables.data.sequence import order_rows
from trainables.data.windows import gather, history_length, windows_view

MINUTE = 60 * 10**9
ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=80, unique=True)


@pytest.mark.requirement("DATA-19")
@given(ROWS)
def test_windows_of_a_contract_hold_consecutive_minutes_of_it_alone(rows):
    minute, contract = np.array(rows).T
    order = order_rows(minute * MINUTE, contract, "per_contract", bar_ns=MINUTE)
    dataset = make_dataset(len(minute), segment=order.segment)
    assert sorted(order.position) == list(range(len(minute)))
    minute, contract = minute[order.position], contract[order.position]
    for end in np.flatnonzero(history_length(dataset) >= 3):
        window = slice(end - 2, end + 1)
        assert len(set(contract[window])) == 1
        np.testing.assert_array_equal(np.diff(minute[window]), 1)
    longest = max(len(set(contract)), 1)
    assert len(np.unique(order.segment)) >= longest


@pytest.mark.requirement("DATA-19")
def test_flat_windows_equal_the_slices_of_the_stream_byte_for_byte():
    minute, contract = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    order = order_rows(minute * MINUTE, contract, "flat", bar_ns=MINUTE)
    stream = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    rows = np.ascontiguousarray(stream[order.position])
    assert (order.segment == 0).all()
    for i, window in enumerate(windows_view(rows, 12)):
        assert window.tobytes() == stream[i : i + 12].tobytes()
    assert gather(rows, np.array([40]), 12)[0].numpy().tobytes() == stream[29:41].tobytes()


def test_a_hole_cuts_a_contract_unless_it_may_be_flagged():
    minute = np.array([0, 1, 3, 4])
    assert list(order_rows(minute * MINUTE, np.zeros(4, int), "time", bar_ns=MINUTE).segment) == [0, 0, 1, 1]
    kept = order_rows(minute * MINUTE, np.zeros(4, int), "per_contract", bar_ns=MINUTE, max_gap_bars=1)
    assert list(kept.segment) == [0, 0, 0, 0]


@pytest.mark.parametrize(("axis", "contract"), [("time", [0, 1]), ("per_contract", [1, 1]), ("flat", [1, 1])])
def test_two_rows_of_one_moment_are_refused_where_only_one_fits(axis, contract):
    with pytest.raises(ValueError, match="expected one row per time"):
        order_rows(np.zeros(2, dtype=np.int64), np.array(contract), axis, bar_ns=MINUTE)
