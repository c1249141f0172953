import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from analysis.measures import block_bootstrap


@pytest.mark.parametrize("persistence", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("n_rows", [250, 1000])
def test_block_length_is_that_of_arch(persistence, n_rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from arch.bootstrap import optimal_block_length
    series = lfilter([1], [1, -persistence], np.random.default_rng(3).standard_normal(n_rows))
    expected = float(optimal_block_length(series)["stationary"].iloc[0])
    assert block_bootstrap.block_length(series) == pytest.approx(max(1.0, expected), rel=0.02)


def test_block_length_is_never_below_the_horizon_nor_above_half_of_the_rows():
    noise = np.random.default_rng(0).standard_normal(100)
    assert block_bootstrap.block_length(noise, horizon_rows=20) >= 20
    assert block_bootstrap.block_length(noise, horizon_rows=999) == 50
    assert block_bootstrap.block_length(np.ones(100), horizon_rows=3) == 3
    assert block_bootstrap.block_length([1.0, 2.0]) == 1


def test_variance_of_resampled_means_is_the_closed_form_of_politis_and_romano():
    # Politis and Romano (1994), eq. 9: autocovariances weighted by (1 - i/n)(1 - q)^i + (i/n)(1 - q)^(n - i), q = 1/b.
    n, block = 200, 6.0
    x = lfilter([1], [1, -0.6], np.random.default_rng(1).standard_normal(n))
    centred = x - x.mean()
    q, lags = 1 / block, np.arange(1, n)
    covariance = np.array([centred[k:] @ centred[: n - k] / n for k in range(n)])
    weights = (1 - lags / n) * (1 - q) ** lags + lags / n * (1 - q) ** (n - lags)
    expected = (covariance[0] + 2 * weights @ covariance[1:]) / n
    means = block_bootstrap.resampled_means(x[:, None], mean_block=block, n_resamples=20_000, seed=2)
    assert means.var() == pytest.approx(expected, rel=0.04)


@given(st.integers(1, 40), st.floats(1, 50), st.integers(0, 9))
def test_every_resample_has_as_many_rows_as_the_sample(n_rows, block, seed):
    generator = np.random.default_rng(seed)
    counts = block_bootstrap.stationary_counts(n_rows, mean_block=block, n_resamples=5, generator=generator)
    assert counts.shape == (5, n_rows)
    assert (counts.sum(axis=1) == n_rows).all()


def test_one_endless_block_is_the_sample_itself():
    generator = np.random.default_rng(0)
    counts = block_bootstrap.stationary_counts(30, mean_block=1e12, n_resamples=4, generator=generator)
    assert (counts == 1).all()


def test_chunks_do_not_change_the_columns_alike(monkeypatch):
    x = np.random.default_rng(0).standard_normal((50, 2))
    monkeypatch.setattr(block_bootstrap, "_ROWS_AT_ONCE", 120)
    means = block_bootstrap.resampled_means(np.hstack([x, 2 * x]), mean_block=3, n_resamples=11, seed=4)
    assert means.shape == (11, 4)
    assert np.allclose(means[:, 2:], 2 * means[:, :2])


def test_p_is_never_zero():
    assert block_bootstrap.share_at_least([0.0] * 99, 5.0) == 0.01
    assert block_bootstrap.share_at_least([6.0] * 99, 5.0) == 1.0
