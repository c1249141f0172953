import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis.measures import nested

FOLDS = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [1.0, 5.0, 0.0], [2.0, 2.0, 9.0]])


def test_choice_sees_earlier_folds_only_and_weighs_them_by_rows():
    found = nested.walk_forward_choice(FOLDS, [10, 10, 10, 10])
    # Means before: (1, 2, 3); (2, 1.5, 2.5); (5/3, 8/3, 5/3), of equals the first.
    assert found.chosen.tolist() == [0, 1, 0]
    assert found.loss.tolist() == [3.0, 5.0, 2.0]
    assert found.median.tolist() == [2.0, 1.0, 2.0]
    assert found.best.tolist() == [1.0, 0.0, 2.0]
    assert nested.walk_forward_choice(FOLDS, [100, 1, 10, 10]).chosen.tolist()[:2] == [0, 0]


def test_later_folds_do_not_change_earlier_choices():
    changed = FOLDS.copy()
    changed[2:] = np.random.default_rng(0).standard_normal((2, 3))
    before, after = (nested.walk_forward_choice(f, [1, 1, 1, 1]) for f in (FOLDS, changed))
    assert before.chosen[:2].tolist() == after.chosen[:2].tolist()


def test_one_fold_has_no_next():
    assert nested.walk_forward_choice(FOLDS[:1], [5]) is None
    assert nested.rank_persistence(FOLDS[:1]) is None
    assert nested.rank_persistence(FOLDS[:, :2]) is None


def test_persistence_is_the_mean_spearman_of_scipy():
    values = np.random.default_rng(1).integers(0, 5, (5, 12)).astype(float)
    expected = [spearmanr(values[k], values[k + 1]).statistic for k in range(4)]
    found = nested.rank_persistence(values)
    assert np.allclose(found.pairs, expected)
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.error == pytest.approx(np.std(expected, ddof=1) / 2)


def test_a_fold_without_order_has_no_persistence():
    found = nested.rank_persistence(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]]))
    assert found is None
    found = nested.rank_persistence(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]))
    assert np.isnan(found.pairs).tolist() == [True, True, False]
    assert (found.mean, found.error) == (pytest.approx(1.0), None)


def test_drift_of_the_best_value():
    losses = np.array([[0.0, 1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0, 0.0]])
    values = np.array([0.1, 0.2, 0.3, 0.4, np.nan])
    assert np.allclose(nested.best_value_by_fold(values, losses, top_share=0.4), [0.15, 0.4])
    assert np.isnan(nested.best_value_by_fold(values, losses, top_share=0.2)).tolist() == [False, True]


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_bad_losses_are_named(bad):
    with pytest.raises(ValueError, match="fold_losses"):
        nested.rank_persistence(bad)


def test_bad_weights_are_named():
    with pytest.raises(ValueError, match="n_scored"):
        nested.walk_forward_choice(FOLDS, [1, 1, 1, 0])
    with pytest.raises(ValueError, match="values: expected one a trial"):
        nested.best_value_by_fold([1.0], FOLDS)
