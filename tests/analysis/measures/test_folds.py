import math

import numpy as np
import pytest
from scipy import stats

from analysis.measures.folds import over_folds


@pytest.mark.requirement("ANALYSIS-1")
def test_equal_weights_give_mean_and_standard_error_of_scipy():
    values = np.random.default_rng(0).standard_normal(7)
    found = over_folds(values, [5] * 7)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(stats.sem(values))


@pytest.mark.requirement("ANALYSIS-1")
def test_weights_are_scored_rows():
    found = over_folds([1.0, 4.0], [30, 10])
    assert found.mean == pytest.approx(1.75)
    assert found.error == pytest.approx(math.sqrt(2 * (0.75**2 * 0.75**2 + 0.25**2 * 2.25**2)))


def test_unknown_folds_are_left_out():
    assert over_folds([math.nan, 2.0], [1, 1]).error is None
    assert over_folds([math.nan], [1]) is None
    assert over_folds([], []) is None


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="n_scored: expected positive"):
        over_folds([1.0], [0])
    with pytest.raises(ValueError, match="equal shapes"):
        over_folds([1.0], [1, 2])
