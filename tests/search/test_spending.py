"""Levels of repeated looks against SciPy's multivariate normal distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from search.stopping.spending import levels

INFORMATION = (1.0, 2.0, 4.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_looks_spend_their_share_of_alpha_and_no_more(power: float) -> None:
    """A running sum looked at with information i and j has correlation sqrt(i / j)."""
    boundary = norm.isf(levels(0.05, INFORMATION, power))
    correlation = np.sqrt([[min(i, j) / max(i, j) for j in INFORMATION] for i in INFORMATION])
    for k in (1, 2, 3):
        known = multivariate_normal(np.zeros(k), correlation[:k, :k])
        crossed = 1 - float(known.cdf(boundary[:k]))
        wanted = 0.05 * (k / 3) ** power
        assert 0.97 * wanted < crossed < wanted + 1e-5


def test_looks_that_share_data_cost_less_than_bonferroni_and_one_look_costs_all() -> None:
    found = levels(0.05, tuple(range(1, 10)), 1.0)
    assert min(found[1:]) > 0.05 / 9
    assert list(found) == sorted(found)
    assert levels(0.05, (3.0,), 1.0)[0] == pytest.approx(0.05, rel=0.02)
    assert levels(0.05, (), 1.0) == ()
