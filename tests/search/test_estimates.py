from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from search.estimates import paired_estimate
from tests.search.toy_search import observed, running


def test_a_dropped_trial_is_judged_by_what_its_folds_were_for_the_reference() -> None:
    """The first two folds are easy. The trial is worse by 0.5 on both, so it is worse than the whole reference."""
    reference = running(0, {}, [1.0, 2.0, 9.0, 8.0])
    found = paired_estimate(running(1, {}, [1.4, 2.6]), reference, "val_loss")
    assert found is not None
    assert found.mean == pytest.approx(5.0 + 0.5)
    assert found.error == pytest.approx(stats.sem([0.4, 0.6]))
    assert found.n_folds == 2


def test_differences_weigh_by_scored_timestamps() -> None:
    own = replace(running(1, {}), observations=(observed(0, 2.0), replace(observed(1, 5.0), n_scored=300)))
    found = paired_estimate(own, running(0, {}, [1.0, 1.0]), "val_loss")
    assert found is not None
    assert found.mean == pytest.approx(1.0 + (1.0 * 100 + 4.0 * 300) / 400)


def test_what_cannot_be_paired() -> None:
    reference = running(0, {}, [1.0, 2.0])
    one = paired_estimate(running(1, {}, [1.5]), reference, "val_loss")
    assert one is not None
    assert (one.mean, one.error) == (2.0, None)
    assert paired_estimate(running(1, {}), reference, "val_loss") is None
    assert paired_estimate(running(1, {}, [1.5]), reference, "ic") is None
