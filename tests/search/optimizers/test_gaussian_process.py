from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.special import gamma, kv
from scipy.stats import beta, multivariate_normal, norm

from search.optimizers import gaussian_process as gp

GROUPS = np.array([0, 1, 1, 2])
KINDS = gp.Inputs(GROUPS, np.array([True, False, False, True]))
WARPS = np.array([[0.6, 1.0, 1.0, 2.5], [1.7, 1.0, 1.0, 0.8]])
KERNEL = gp.Kernel(weights=np.array([3.0, 0.5, 8.0]), scale=1.7, noise=0.02, warps=WARPS)


def points(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, 4))
    return x, np.sin(5 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * rng.standard_normal(n), rng.random(n) / 50


def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The Matern covariance of order 5/2 by its general form with a Bessel function, entry by entry; inputs are
    warped by the beta distribution's (1, b) function of x^a, which is Kumaraswamy's (a, b) of x.
    """
    weights = KERNEL.weights[GROUPS]
    a, b = (beta.cdf(at ** WARPS[0], 1, WARPS[1]) for at in (a, b))
    r = np.sqrt((((a[:, None] - b[None]) ** 2) * weights).sum(-1))
    at = math.sqrt(5) * np.where(r > 0, r, 1.0)
    return KERNEL.scale * np.where(r > 0, 2**-1.5 / gamma(2.5) * at**2.5 * kv(2.5, at), 1.0)


def test_prediction_is_that_of_the_conditional_normal_distribution() -> None:
    x, y, variance = points(12)
    new = points(5, seed=1)[0]
    inverse = np.linalg.inv(covariance(x, x) + np.diag(variance + KERNEL.noise))
    cross = covariance(new, x)
    mean, deviation = gp.GaussianProcess(x, y, variance, GROUPS, KERNEL).predict(new)
    assert mean == pytest.approx(cross @ inverse @ y, rel=1e-5)
    wanted = KERNEL.scale - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    assert deviation**2 == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("owners", [np.arange(9), np.array([4, 1, 1, 0, 4, 4, 2, 3, 0])])
def test_left_out_predictions_are_those_of_processes_without_the_points_of_an_owner(owners: np.ndarray) -> None:
    x, y, variance = points(9)
    means = gp.GaussianProcess(x, y, variance, GROUPS, KERNEL).left_out(owners)
    for owner in set(owners):
        rest = owners != owner
        without = gp.GaussianProcess(x[rest], y[rest], variance[rest], GROUPS, KERNEL)
        assert means[~rest] == pytest.approx(without.mean(x[~rest]), rel=1e-6)


def test_likelihood_is_that_of_the_normal_distribution_and_its_gradient_that_of_differences() -> None:
    x, y, variance = points(12)
    warp = gp._Warp(x, np.array([0, 3]))
    logs = np.log([*KERNEL.weights, KERNEL.scale, KERNEL.noise, *WARPS[:, [0, 3]].ravel()])
    value, gradient = gp._negative_log_likelihood(logs, warp, y, variance, GROUPS)
    full = covariance(x, x) + np.diag(variance + KERNEL.noise)
    wanted = -multivariate_normal(cov=full).logpdf(y) - 6 * math.log(2 * math.pi)
    assert value == pytest.approx(wanted, rel=1e-6)
    numeric = approx_fprime(logs, lambda at: gp._negative_log_likelihood(at, warp, y, variance, GROUPS)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-4)


def test_the_fit_finds_which_input_matters() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((60, 2))
    y = np.sin(6 * x[:, 0])
    kernel = fitted(x, y)
    assert kernel.weights[0] > 10 * kernel.weights[1]


def test_the_fit_stretches_the_end_of_an_input_where_the_function_changes() -> None:
    """The first input matters only near 1, the second only near 0, the third everywhere alike."""
    rng = np.random.default_rng(4)
    x = rng.random((60, 3))
    warped = fitted(x, np.sin(4 * x[:, 0] ** 6) + np.sin(4 * (1 - x[:, 1]) ** 6) + x[:, 2]).warped(np.full((1, 3), 0.5))
    assert warped[0, 0] < 0.35
    assert warped[0, 1] > 0.65
    assert warped[0, 2] == pytest.approx(0.5, abs=0.1)


def fitted(x: np.ndarray, y: np.ndarray) -> gp.Kernel:
    d = x.shape[1]
    kinds = gp.Inputs(np.arange(d), np.ones(d, bool))
    target = (y - y.mean()) / y.std()
    return gp.fit_kernel(x, target, np.zeros(len(x)), kinds, prior=gp.Prior(), max_steps=40)


@pytest.mark.parametrize(("mean", "best"), [(0.3, 0.5), (0.5, 0.3), (2.0, 0.0), (-1.0, 0.0)])
def test_expected_improvement_is_the_integral(mean: float, best: float) -> None:
    found = gp.log_expected_improvement(np.array([mean]), np.array([0.7]), best)[0]
    wanted = quad(lambda v: (best - v) * norm.pdf(v, mean, 0.7), -10, best)[0]
    assert found == pytest.approx(math.log(wanted), abs=1e-7)


def test_expected_improvement_far_in_the_tail_falls_on_smoothly() -> None:
    """At z deviations away it is close to the density over z squared (Mills' ratio)."""
    z = np.array([-20.0, -200.0, -2e3, -2e6])
    found = gp.log_expected_improvement(-z, np.ones(4), 0.0)
    assert found == pytest.approx(norm.logpdf(z) - 2 * np.log(-z), rel=1e-3)


def test_a_covariance_of_equal_points_is_factored() -> None:
    kernel = gp.Kernel(weights=np.ones(3), scale=1.0, noise=0.0, warps=WARPS)
    process = gp.GaussianProcess(np.zeros((30, 4)), np.zeros(30), np.zeros(30), GROUPS, kernel)
    assert np.isfinite(process.predict(np.ones((2, 4)))[0]).all()
