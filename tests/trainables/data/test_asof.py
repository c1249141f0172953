import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.asof import NO_ROW, asof_join, asof_rows, key_codes

SMALL = st.integers(0, 12)


def brute_force(times, keys, event, known, known_keys, is_valid, max_age, allow_exact):
    """For each row look at every record."""
    rows = []
    for t, k in zip(times, keys, strict=True):
        best = NO_ROW
        for j in range(len(known)):
            is_known = known[j] < t or (allow_exact and known[j] == t)
            if is_known and known_keys[j] == k >= 0 and is_valid[j]:
                best = j
        if best != NO_ROW and max_age is not None and t - event[best] > max_age:
            best = NO_ROW
        rows.append(best)
    return np.array(rows, dtype=np.int64)


@pytest.mark.requirement("DATA-15")
@settings(max_examples=300, deadline=None)
@given(
    left=st.lists(st.tuples(SMALL, st.integers(-1, 3)), max_size=12),
    right=st.lists(st.tuples(SMALL, st.integers(-1, 3), st.booleans(), st.integers(0, 4)), max_size=12),
    max_age=st.none() | SMALL,
    allow_exact=st.booleans(),
)
def test_it_is_what_looking_at_every_record_gives(left, right, max_age, allow_exact):
    left, right = sorted(left, key=lambda row: row[0]), sorted(right, key=lambda row: row[0])
    times, keys = (np.array([row[i] for row in left], dtype=np.int64) for i in range(2))
    known, known_keys, lag = (np.array([row[i] for row in right], dtype=np.int64) for i in (0, 1, 3))
    is_valid = np.array([row[2] for row in right], dtype=bool)
    rows = asof_rows(
        times,
        known,
        keys=keys,
        known_keys=known_keys,
        event_time=known - lag,
        max_age_ns=max_age,
        is_valid=is_valid,
        allow_exact=allow_exact,
    )
    expected = brute_force(times, keys, known - lag, known, known_keys, is_valid, max_age, allow_exact)
    np.testing.assert_array_equal(rows, expected)


def random_sides(seed, n=2000, m=700, n_keys=9, span=5000):
    random = np.random.default_rng(seed)
    times, known = np.sort(random.integers(0, span, n)), np.sort(random.integers(0, span, m))
    values = random.normal(size=(m, 3))
    values[random.random((m, 3)) < 0.1] = np.nan
    return times, random.integers(0, n_keys, n), known, random.integers(0, n_keys, m), values


@pytest.mark.requirement("DATA-15")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tolerance", [None, 0, 100])
@pytest.mark.parametrize("allow_exact", [True, False])
def test_it_equals_pandas_nulls_ties_and_tolerance_included(seed, tolerance, allow_exact):
    times, keys, known, known_keys, values = random_sides(seed)
    joined = asof_join(
        times, known, values, keys=keys, known_keys=known_keys, max_age_ns=tolerance, allow_exact=allow_exact
    )
    right = pd.DataFrame({"t": known, "k": known_keys} | {f"v{i}": values[:, i] for i in range(3)})
    left = pd.DataFrame({"t": times, "k": keys})
    expected = pd.merge_asof(left, right, on="t", by="k", tolerance=tolerance, allow_exact_matches=allow_exact)
    np.testing.assert_array_equal(joined, expected[["v0", "v1", "v2"]].to_numpy())


@pytest.mark.parametrize("lag", [0, 7])
def test_it_equals_polars_with_a_publication_lag(lag):
    times, keys, event, known_keys, values = random_sides(11)
    joined = asof_join(times, event + lag, values, keys=keys, known_keys=known_keys, event_time=event, max_age_ns=100)
    right = pl.DataFrame({"t": event + lag, "k": known_keys, "v": values[:, 0]})
    left = pl.DataFrame({"t": times, "k": keys})
    expected = left.join_asof(right, on="t", by="k", tolerance=100 - lag, check_sortedness=False)
    np.testing.assert_array_equal(joined[:, 0], expected["v"].to_numpy())


@pytest.mark.requirement("DATA-15")
def test_a_print_one_second_later_is_never_attached_and_one_at_the_instant_is():
    second = 10**9
    now = np.array([100 * second])
    assert asof_rows(now, now + second)[0] == NO_ROW
    assert asof_rows(now, now)[0] == 0
    assert asof_rows(now, now, allow_exact=False)[0] == NO_ROW


def test_an_old_record_hides_those_before_it_and_an_invalid_one_does_not():
    known = np.array([0, 5, 6])
    assert asof_rows(np.array([20]), known, max_age_ns=14).tolist() == [2]
    assert asof_rows(np.array([20]), known, max_age_ns=13).tolist() == [NO_ROW]
    assert asof_rows(np.array([20]), known, is_valid=np.array([True, True, False])).tolist() == [1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_keep_their_type(dtype):
    joined = asof_join(np.array([1, 2]), np.array([2]), np.array([[0.1]], dtype=dtype))
    assert joined.dtype == dtype
    np.testing.assert_array_equal(joined[:, 0], np.array([np.nan, dtype(0.1)]))


def test_what_lies_ahead_changes_nothing():
    times, keys, known, known_keys, values = random_sides(3)
    half = times < 2500
    changed = np.where(known[:, None] > 2500, 99.0, values)
    before, after = (asof_join(times, known, v, keys=keys, known_keys=known_keys)[half] for v in (values, changed))
    np.testing.assert_array_equal(before, after)


def test_codes_are_equal_where_all_columns_are():
    expiry = np.array(["2024-01-19", "2024-01-19", "2024-02-16", "NaT"], dtype="datetime64[D]")
    first, second = key_codes(
        (expiry, expiry[::-1]),
        (np.array([470.0, 475.0, 470.0, 470.0]), np.array([470.0, 470.0, 475.0, 470.0])),
        (np.array(["put", "put", "call", "put"]), np.array(["put", "call", "put", "put"])),
    )
    assert first[3] == second[0] == NO_ROW
    assert second[1:].tolist() == first[[2, 1, 0]].tolist()
    assert len(set(first[:3])) == 3


def test_wrong_arguments_are_named():
    one, two = np.array([1]), np.array([2, 1])
    with pytest.raises(ValueError, match="times: expected instants that do not decrease, found row 2 earlier"):
        asof_rows(two, one)
    with pytest.raises(ValueError, match="known_time: expected instants that do not decrease, found row 2 earlier"):
        asof_rows(np.array([5]), two)
    with pytest.raises(ValueError, match="keys, known_keys: expected both or neither"):
        asof_rows(one, one, keys=one)
    with pytest.raises(ValueError, match="values: expected 2 rows, found 1"):
        asof_join(one, np.array([1, 2]), np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"values: expected floats \(n_records, n_columns\)"):
        asof_join(one, one, np.ones(1))
