"""A Gaussian process over a few hundred points: Matern-5/2, a length per input, noise per point.

Only NumPy and SciPy: at these sizes one evaluation of the marginal likelihood with its gradient takes a millisecond or
less, because the sum over input pairs of the gradient is two matrix products. Deterministic: equal input gives equal
bits for one build of the linear algebra with one number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.linalg.lapack import dpotrf, dpotri, dtrtri
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr

Array = NDArray[np.float64]

ROOT_5 = math.sqrt(5.0)
JITTER = 1e-8
"""Added to the diagonal, in units of the target's variance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Parameters of the covariance s M(r) + n I, where r^2 = sum_j w_j (x_j - x'_j)^2.

    Attributes:
        weights: (n_groups,) inverse squared lengths; all inputs of a group share one.
        scale: s, the variance of the function.
        noise: n, the variance that all points share.
    """

    weights: Array
    scale: float
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is believed of the kernel before any result; the target has mean 0 and variance about 1.

    The length grows with the root of the number of inputs, so that a function of many inputs is as smooth a priori as
    one of few (Hvarfner, Hellsten, Nardi 2024, "Vanilla Bayesian optimization performs great in high dimensions").

    Attributes:
        log_length: Mean of the logarithm of a length in one dimension.
        length_spread: Its standard deviation.
        log_scale_spread: Standard deviation of log s around 0.
        log_noise: Mean of log n.
        log_noise_spread: Its standard deviation.
    """

    log_length: float = -0.5
    length_spread: float = 1.0
    log_scale_spread: float = 1.0
    log_noise: float = math.log(1e-6)
    log_noise_spread: float = 2.0


def fit_kernel(
    x: Array, y: Array, variance: Array, groups: NDArray[np.intp], *, prior: Prior, start: Kernel, max_steps: int
) -> Kernel:
    """Return the kernel of the highest posterior density (marginal likelihood times prior).

    Source: Rasmussen, Williams (2006), eq. 5.8 and 5.9; gradients are analytic. Uses no randomness.

    Args:
        x: (n, q) inputs.
        y: (n,) targets, mean 0 and variance about 1.
        variance: (n,) known noise variance of each target; zero or more.
        groups: (q,) group of each input.
        prior: What is believed beforehand.
        start: Where to begin.
        max_steps: Steps of L-BFGS.
    """
    begin = np.log(np.concatenate([start.weights, [start.scale, start.noise]]))
    centre, spread = _prior_of_logs(prior, len(start.weights))
    bounds = [(math.log(1e-6), math.log(1e4))] * len(start.weights) + [(-5.0, 5.0), (math.log(1e-7), 1.0)]

    def loss(logs: Array) -> tuple[float, Array]:
        value, gradient = _negative_log_likelihood(logs, x, y, variance, groups)
        away = (logs - centre) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread

    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_steps})
    values = np.exp(found.x)
    return Kernel(weights=values[:-2], scale=float(values[-2]), noise=float(values[-1]))


def initial_kernel(prior: Prior, n_groups: int) -> Kernel:
    """Return the mode of the prior."""
    values = np.exp(_prior_of_logs(prior, n_groups)[0])
    return Kernel(weights=values[:-2], scale=float(values[-2]), noise=float(values[-1]))


@dataclass(slots=True)
class GaussianProcess:
    """A Gaussian process that has seen its points.

    Args:
        x: (n, q) inputs.
        y: (n,) targets, mean 0.
        variance: (n,) known noise variance of each target.
        groups: (q,) group of each input.
        kernel: Its covariance.
    """

    x: Array
    y: Array
    variance: Array
    groups: NDArray[np.intp]
    kernel: Kernel
    _scaled: Array = field(init=False)
    _factor: Array = field(init=False)
    _inverse_factor: Array = field(init=False)
    _alpha: Array = field(init=False)

    def __post_init__(self) -> None:
        self._scaled = self.x * np.sqrt(self.kernel.weights)[self.groups]
        covariance = self.kernel.scale * matern(squared_distances(self._scaled, self._scaled))
        covariance[np.diag_indices_from(covariance)] += self.variance + self.kernel.noise + JITTER
        self._factor = _cholesky(covariance)
        self._alpha = cho_solve((self._factor, True), self.y)
        self._inverse_factor = dtrtri(self._factor, lower=1)[0]  # a product takes half the time of a solve

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation, (m,) each, of the function (without noise) at (m, q) inputs."""
        cross = self._cross(x)
        solved = self._inverse_factor @ cross.T
        spread = self.kernel.scale - np.einsum("ij,ij->j", solved, solved)
        return cross @ self._alpha, np.sqrt(np.maximum(spread, 1e-12))

    def mean(self, x: Array) -> Array:
        """Return the mean of the function, (m,), at (m, q) inputs."""
        return np.asarray(self._cross(x) @ self._alpha)

    def left_out(self, owners: NDArray[np.intp]) -> Array:
        """Return the mean of every target, (n,), predicted from all points of other owners.

        Source: Rasmussen, Williams (2006), eq. 5.12, and for several points at once Dubrule (1983), "Cross validation
        of kriging in a unique neighborhood".

        Args:
            owners: (n,) whose each point is.
        """
        inverse = cho_solve((self._factor, True), np.eye(len(self.y)))
        errors = np.empty_like(self.y)
        for owner in np.unique(owners):
            own = np.flatnonzero(owners == owner)
            errors[own] = np.linalg.solve(inverse[np.ix_(own, own)], self._alpha[own])
        return np.asarray(self.y - errors)

    def _cross(self, x: Array) -> Array:
        scaled = x * np.sqrt(self.kernel.weights)[self.groups]
        return np.asarray(self.kernel.scale * matern(squared_distances(scaled, self._scaled)))


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return the logarithm of the expected improvement below `best`, exact far in the tail.

    Source: Ament et al. (2023), "Unexpected improvements to expected improvement", eq. 9.

    Args:
        mean: (m,) predicted values, smaller is better.
        deviation: (m,) standard deviations, above 0.
        best: Value to be improved upon.
    """
    z = (best - mean) / deviation
    near = z > -1.0
    at = np.where(near, z, 0.0)
    density = np.exp(-0.5 * at * at) / math.sqrt(2 * math.pi)
    direct = np.log(density + at * np.exp(log_ndtr(at)))
    far = np.where(near, -1.0, z)
    ratio = np.maximum(1 - math.sqrt(math.pi / 2) * -far * erfcx(-far / math.sqrt(2)), 0.0)
    tail = np.where(far < -1e3, -2 * np.log(-far), np.log(np.maximum(ratio, 1e-300)))
    return np.log(deviation) + np.where(near, direct, tail - 0.5 * far * far - 0.5 * math.log(2 * math.pi))


def matern(squared: Array) -> Array:
    """Return the Matern-5/2 correlation at squared scaled distances."""
    r = ROOT_5 * np.sqrt(squared)
    return np.asarray((1 + r + r * r / 3) * np.exp(-r))


def squared_distances(a: Array, b: Array) -> Array:
    """Return the (n, m) squared Euclidean distances of the rows of (n, q) and (m, q)."""
    found = -2 * (a @ b.T)
    found += np.einsum("ij,ij->i", a, a)[:, None]
    found += np.einsum("ij,ij->i", b, b)[None, :]
    return np.asarray(np.maximum(found, 0.0, out=found))


def _negative_log_likelihood(
    logs: Array, x: Array, y: Array, variance: Array, groups: NDArray[np.intp]
) -> tuple[float, Array]:
    """Return minus the log marginal likelihood and its gradient by the logarithms of weights, scale and noise."""
    weights, scale, noise = np.exp(logs[:-2]), math.exp(logs[-2]), math.exp(logs[-1])
    scaled = x * np.sqrt(weights)[groups]
    r = ROOT_5 * np.sqrt(squared_distances(scaled, scaled))
    decay = np.exp(-r)
    correlation = (1 + r + r * r / 3) * decay
    covariance = scale * correlation
    covariance[np.diag_indices_from(covariance)] += variance + noise + JITTER
    factor = _cholesky(covariance)
    alpha = cho_solve((factor, True), y)
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor)).sum())
    lower, _ = dpotri(factor, lower=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    slope = 0.5 * (inverse - np.outer(alpha, alpha))
    by_distance = slope * (-scale * (5 / 6)) * (1 + r) * decay
    by_input = 2 * (by_distance.sum(axis=1) @ (scaled * scaled) - np.einsum("ij,ij->j", scaled, by_distance @ scaled))
    gradient = np.empty_like(logs)
    gradient[:-2] = np.bincount(groups, weights=by_input, minlength=len(weights))
    gradient[-2] = scale * float((slope * correlation).sum())
    gradient[-1] = noise * float(np.trace(slope))
    return value, gradient


def _cholesky(covariance: Array) -> Array:
    """Return the lower factor; where rounding made the matrix indefinite, of one with a heavier diagonal."""
    heavier = 0.0
    for _ in range(8):
        lifted = covariance + heavier * np.eye(len(covariance)) if heavier else covariance
        factor, failed = dpotrf(lifted, lower=1, clean=1)
        if not failed:
            return np.asarray(factor)
        heavier = max(10 * heavier, 1e-7 * float(np.mean(np.diag(covariance))))
    raise ArithmeticError("gaussian process: expected a covariance without NaN, found one that has no Cholesky factor")


def _prior_of_logs(prior: Prior, n_groups: int) -> tuple[Array, Array]:
    """Return mean and standard deviation of the logarithms of weights, scale and noise."""
    log_length = prior.log_length + 0.5 * math.log(max(n_groups, 1))
    centre = np.concatenate([np.full(n_groups, -2 * log_length), [0.0, prior.log_noise]])
    of_weights = np.full(n_groups, 2 * prior.length_spread)
    return centre, np.concatenate([of_weights, [prior.log_scale_spread, prior.log_noise_spread]])
