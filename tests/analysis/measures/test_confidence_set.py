import warnings

import numpy as np
import pytest

from analysis.measures import block_bootstrap
from analysis.measures.confidence_set import confidence_set


def losses(seed, n_rows=400, spread=0.3, n_trials=8):
    generator = np.random.default_rng(seed)
    common = 2 * generator.standard_normal((n_rows, 1))
    return generator.standard_normal((n_rows, n_trials)) + common + np.linspace(0, spread, n_trials)


def of_arch(values, method, block):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from arch.bootstrap import MCS

        reference = MCS(values, size=0.1, reps=3000, block_size=block, method=method, seed=3)
        reference.compute()
    return reference.pvalues.sort_index()["Pvalue"].to_numpy()


@pytest.mark.parametrize(("method", "most_in_pairs"), [("R", 60), ("max", 0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_p_values_are_those_of_arch(method, most_in_pairs, seed):
    values = losses(seed)
    found = confidence_set(values, mean_block=5, seed=1, n_resamples=3000, most_in_pairs=most_in_pairs)
    assert np.abs(found.p - of_arch(values, method, 5)).max() < 0.03


def test_float32_losses_with_a_large_common_part_give_the_same_set():
    values = losses(4, spread=0.5)
    exact = confidence_set(values, mean_block=3, seed=1)
    rough = confidence_set((values + 1000).astype(np.float32), mean_block=3, seed=1)
    assert np.abs(exact.p - rough.p).max() < 0.01


def test_copies_share_their_p_and_count_once():
    values = losses(5)
    doubled = np.hstack([values, values[:, [7, 0]]])
    found = confidence_set(doubled, mean_block=3, seed=1)
    assert found.n_distinct == 8
    assert found.p[8] == found.p[7]
    assert found.p[9] == found.p[0]
    assert np.array_equal(found.p[:8], confidence_set(values, mean_block=3, seed=1).p)


def test_many_trials_are_thinned_out_before_pairs_are_compared():
    generator = np.random.default_rng(6)
    values = generator.standard_normal((800, 150)) + np.r_[np.zeros(5), np.linspace(1, 3, 145)]
    found = confidence_set(values, mean_block=1, seed=1)
    assert found.statistic == "max, then range"
    assert found.is_member[:5].any()
    assert not found.is_member[5:].any()
    assert found.p[values.mean(axis=0).argmin()] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("most_in_pairs", [60, 0])
def test_the_best_trial_is_in_the_set_as_often_as_promised(most_in_pairs):
    # 90 % of 200 has a standard deviation of 4.2; AR(1) differences with blocks as Politis and White choose them.
    hits = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        noise = generator.standard_normal((300, 6))
        for t in range(1, 300):
            noise[t] += 0.4 * noise[t - 1]
        values = noise + np.array([0.0, 0.0, 0.0, 0.1, 0.2, 0.4])
        block = max(block_bootstrap.block_length(values[:, k] - values.mean(axis=1)) for k in range(6))
        found = confidence_set(values, mean_block=block, seed=seed, n_resamples=300, most_in_pairs=most_in_pairs)
        hits += bool(found.is_member[:3].all())
    assert hits >= 170


def test_a_trial_that_is_far_behind_is_not_in_it():
    found = confidence_set(losses(7, spread=2.0), mean_block=3, seed=1)
    assert found.is_member[0]
    assert not found.is_member[7]


def test_one_trial_is_its_own_set():
    found = confidence_set(losses(1)[:, :1], mean_block=2, seed=1)
    assert found.p.tolist() == [1.0]


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (np.zeros(5), {}, r"shape \(n_rows, n_trials\)"),
        (np.array([[1.0, np.nan], [1.0, 2.0]]), {}, "found 1 that are not"),
        (np.zeros((5, 2)), {"level": 1.0}, "inside"),
        (np.zeros((5, 2)), {"mean_block": 0.5}, "1 or more rows"),
    ],
)
def test_bad_arguments_are_named(values, changes, message):
    with pytest.raises(ValueError, match=message):
        confidence_set(values, **{"mean_block": 1, "seed": 0, **changes})


def test_constant_equal_losses_cannot_be_told_apart():
    assert confidence_set(np.ones((50, 3)), mean_block=2, seed=1).is_member.all()
