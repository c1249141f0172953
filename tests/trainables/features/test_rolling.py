"""Windows over runs against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.features import rolling
from trainables.features.memory import run_starts

FUNCTIONS = {
    rolling.rolling_mean: lambda w: w.mean(),
    rolling.rolling_std: lambda w: w.std(ddof=0),
}


@pytest.mark.requirement("IND-1")
@pytest.mark.parametrize("function", list(FUNCTIONS), ids=lambda f: f.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_windows_equal_pandas_per_run_with_gaps(function, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    n = data.draw(st.integers(1, 60))
    window = data.draw(st.integers(2, 12))
    generator = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    x = generator.normal(1000.0, 1.0, n)
    x[generator.random(n) < 0.1] = np.nan
    run = np.cumsum(generator.random(n) < 0.08)
    expected = pd.Series(x).groupby(run).transform(lambda part: FUNCTIONS[function](part.rolling(window)))
    np.testing.assert_allclose(function(x, run_starts(run), window), expected, rtol=1e-7, atol=1e-9)


def test_a_running_sum_forgets_large_values_exactly() -> None:
    x = np.concatenate([np.full(50, 1e15), np.full(50, 0.1)])
    found = rolling.rolling_mean(x, np.zeros(100, dtype=np.int64), 10)
    np.testing.assert_allclose(found[-1], 0.1, rtol=1e-12)


def test_lag_stays_in_its_run_and_refuses_the_future() -> None:
    x, first = np.arange(6.0), np.array([0, 0, 0, 3, 3, 3])
    np.testing.assert_array_equal(rolling.lagged(x, first, 2), [np.nan, np.nan, 0, np.nan, np.nan, 3])
    with pytest.raises(ValueError, match="would read the future"):
        rolling.lagged(x, first, -1)


def test_over_finite_counts_values_not_bars() -> None:
    x = np.array([1.0, np.nan, 2.0, np.nan, np.nan, 3.0, 4.0])
    found = rolling.over_finite(rolling.rolling_mean, x, np.zeros(7, dtype=np.int64), 2)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 1.5, np.nan, np.nan, 2.5, 3.5])
