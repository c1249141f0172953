import warnings

import numpy as np
import pytest

from analysis.measures.predictive_ability import reality_check, superior_predictive_ability, superior_trials


def advantage(seed, edge, n_rows=300, n_trials=10):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n_rows, n_trials)) + np.r_[edge, np.zeros(n_trials - 1)]


def of_arch(gain, block, seed=2):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from arch.bootstrap import RealityCheck

        reference = RealityCheck(np.zeros(len(gain)), -gain, block_size=block, reps=4000, studentize=False, seed=seed)
        reference.compute()
    return reference.pvalues["upper"]


@pytest.mark.parametrize(("seed", "edge"), [(0, 0.0), (1, 0.1), (2, 0.14), (3, 0.2)])
def test_reality_check_is_that_of_arch(seed, edge):
    gain = advantage(seed, edge)
    found = reality_check(gain, mean_block=4, n_resamples=4000, seed=1)
    assert found.p == pytest.approx(of_arch(gain, 4), abs=0.03)


def test_spa_with_equal_variances_is_the_reality_check():
    gain = advantage(4, 0.15)
    gain = (gain - gain.mean(axis=0)) / gain.std(axis=0) + gain.mean(axis=0)
    check = reality_check(gain, mean_block=1, n_resamples=4000, seed=1)
    found = superior_predictive_ability(gain, mean_block=1, n_resamples=4000, seed=1)
    assert found.p_upper == pytest.approx(check.p, abs=0.02)
    assert found.best == check.best
    assert found.p_lower <= found.p <= found.p_upper


def test_studentising_finds_a_steady_advantage_beside_a_wild_trial():
    # What arch 8.0 does not do: its "studentized" p stays at the reality check's.
    generator = np.random.default_rng(5)
    wild = 30 * generator.standard_normal((500, 1))
    steady = 0.02 + 0.1 * generator.standard_normal((500, 1))
    gain = np.hstack([wild - wild.mean(), steady])
    assert reality_check(gain, mean_block=1, seed=1).p > 0.3
    found = superior_predictive_ability(gain, mean_block=1, seed=1)
    assert found.p < 0.01
    assert found.best == 1


def test_one_trial_is_a_one_sided_bootstrap_t_test():
    gain = advantage(6, 0.12, n_trials=1)
    t = gain.mean() / (gain.std() / np.sqrt(len(gain)))
    from scipy.stats import norm

    assert superior_predictive_ability(gain, mean_block=1, n_resamples=8000, seed=1).p == pytest.approx(
        norm.sf(t), abs=0.01
    )


def test_hopeless_trials_do_not_weaken_the_consistent_p():
    gain = advantage(7, 0.17, n_trials=5)
    hopeless = np.hstack([gain, advantage(8, 0.0, n_trials=200) - 5.0])
    alone = superior_predictive_ability(gain, mean_block=1, seed=1)
    among = superior_predictive_ability(hopeless, mean_block=1, seed=1)
    assert among.p == pytest.approx(alone.p, abs=0.01)
    assert among.p_upper > 3 * alone.p_upper


def test_nothing_ahead_and_nothing_that_varies():
    behind = advantage(9, 0.0) - 3.0
    assert superior_predictive_ability(behind, mean_block=2, seed=1).p == 1.0
    assert superior_predictive_ability(np.zeros((50, 2)), mean_block=2, seed=1).p == 1.0
    assert not superior_trials(np.zeros((50, 2)), mean_block=2, seed=1).any()


@pytest.mark.slow
def test_spa_rejects_as_often_as_its_level_says():
    # 5 % of 400 is 20, standard deviation 4.4.
    rejected = 0
    for seed in range(400):
        gain = advantage(seed, 0.0, n_rows=250, n_trials=20)
        rejected += superior_predictive_ability(gain, mean_block=1, n_resamples=300, seed=seed).p < 0.05
    assert 7 <= rejected <= 33


def test_step_m_names_those_that_arch_names():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from arch.bootstrap import StepM
    generator = np.random.default_rng(1)
    losses = generator.standard_normal((400, 8)) + np.linspace(0, 0.3, 8)
    gain = losses.mean(axis=1, keepdims=True) + 0.1 + 0.5 * generator.standard_normal((400, 1)) - losses
    gain = (gain - gain.mean(axis=0)) / gain.std(axis=0) + gain.mean(axis=0)  # arch does not studentise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = StepM(np.zeros(400), -gain, block_size=5, reps=2000, seed=1)
        reference.compute()
    found = superior_trials(gain, mean_block=5, n_resamples=2000, seed=1)
    assert np.flatnonzero(found).tolist() == list(reference.superior_models)
    assert found.any()
    assert not found.all()


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="advantage: expected finite values, found 1"):
        reality_check([[1.0], [np.inf]], mean_block=1, seed=0)
