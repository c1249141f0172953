"""A Gaussian process over a few hundred points: Matern-5/2, a length per input, warped inputs, noise per point.

Losses change fast near a bound and hardly elsewhere more often than not (a momentum of 0.9 and of 0.99). So inputs are
warped by a fitted Kumaraswamy distribution function, 1 - (1 - x^a)^b, before they are compared: Snoek, Swersky, Zemel,
Adams (2014), "Input warping for Bayesian optimization of non-stationary functions", there with that of the beta
distribution. What it brings is in benchmarks/RESULTS.md.

Only NumPy and SciPy: at these sizes one evaluation of the marginal likelihood with its gradient takes a millisecond or
less, because the sum over input pairs of the gradient is two matrix products. Deterministic: equal input gives equal
bits for one build of the linear algebra with one number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

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
EDGE = 1e-6
"""Warped inputs stay so far from 0 and 1, where slopes are infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Parameters of the covariance s M(r) + n I, where r^2 = sum_j w_j (u_j - u'_j)^2 and u is the warped x.

    Attributes:
        weights: (n_groups,) inverse squared lengths; all inputs of a group share one.
        scale: s, the variance of the function.
        noise: n, the variance that all points share.
        warps: (2, q) exponents a and b of every input; at 1 and 1 it is left as it is.
    """

    weights: Array
    scale: float
    noise: float
    warps: Array

    def warped(self, x: Array) -> Array:
        """Return (n, q) inputs as they are compared."""
        a, b = self.warps
        columns = np.flatnonzero((a != 1) | (b != 1))
        return _Warp(x, columns).inputs(a[columns], b[columns]) if len(columns) else x


class Inputs(NamedTuple):
    """What the inputs of a process are.

    Attributes:
        groups: (q,) group of each; groups are 0, 1, ...
        is_warped: (q,) whether it lies between 0 and 1 and is warped.
    """

    groups: NDArray[np.intp]
    is_warped: NDArray[np.bool_]

    @property
    def n_groups(self) -> int:
        return int(self.groups.max()) + 1


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
        warp_spread: Standard deviation of the logarithms of a and b around 0, which is no warp.
    """

    log_length: float = -0.5
    length_spread: float = 1.0
    log_scale_spread: float = 1.0
    log_noise: float = math.log(1e-6)
    log_noise_spread: float = 2.0
    warp_spread: float = 0.4


def fit_kernel(x: Array, y: Array, variance: Array, kinds: Inputs, *, prior: Prior, max_steps: int) -> Kernel:
    """Return the kernel of the highest posterior density (marginal likelihood times prior), from the prior's mode on.

    Source: Rasmussen, Williams (2006), eq. 5.8 and 5.9; gradients are analytic. Uses no randomness.

    Args:
        x: (n, q) inputs.
        y: (n,) targets, mean 0 and variance about 1.
        variance: (n,) known noise variance of each target; zero or more.
        kinds: What the inputs are.
        prior: What is believed beforehand.
        max_steps: Steps of L-BFGS.
    """
    warp = _Warp(x, np.flatnonzero(kinds.is_warped))
    centre, spread = _prior_of_logs(prior, kinds.n_groups, warp.n)
    bounds = [(math.log(1e-6), math.log(1e4))] * kinds.n_groups + [(-5.0, 5.0), (math.log(1e-7), 1.0)]
    bounds += [(-2.5, 2.5)] * (2 * warp.n)

    def loss(logs: Array) -> tuple[float, Array]:
        value, gradient = _negative_log_likelihood(logs, warp, y, variance, kinds.groups)
        away = (logs - centre) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_steps})
    return _kernel(found.x, kinds)


def _kernel(logs: Array, kinds: Inputs) -> Kernel:
    values, n = np.exp(logs), kinds.n_groups
    warps = np.ones((2, len(kinds.groups)))
    warps[:, kinds.is_warped] = values[n + 2 :].reshape(2, -1)
    return Kernel(weights=values[:n], scale=float(values[n]), noise=float(values[n + 1]), warps=warps)


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
        self._scaled = self._scaled_inputs(self.x)
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
        return np.asarray(self.kernel.scale * matern(squared_distances(self._scaled_inputs(x), self._scaled)))

    def _scaled_inputs(self, x: Array) -> Array:
        return self.kernel.warped(x) * np.sqrt(self.kernel.weights)[self.groups]


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


class _Warp:
    """Inputs of which some columns are to be warped again and again."""

    def __init__(self, x: Array, columns: NDArray[np.intp]) -> None:
        self.columns = columns
        self._x = x
        self._log = np.log(np.clip(x[:, columns], EDGE, 1 - EDGE))

    @property
    def n(self) -> int:
        """Number of warped columns."""
        return len(self.columns)

    def inputs(self, a: Array, b: Array) -> Array:
        """Return the (n, q) inputs, warped with (n_columns,) exponents."""
        warped = self._x.copy()
        warped[:, self.columns] = -np.expm1(b * np.log1p(-np.exp(a * self._log)))
        return warped

    def gradient(self, by_input: Array, a: Array, b: Array) -> Array:
        """Return the slope by log a, then log b, of what has the (n, q) slope `by_input` by warped inputs."""
        power = np.exp(a * self._log)
        log_rest = np.log1p(-power)
        slope = by_input[:, self.columns] * b * np.exp(b * log_rest)
        by_a = a * np.einsum("ij,ij->j", slope, self._log * power / (1 - power))
        return np.concatenate([by_a, -np.einsum("ij,ij->j", slope, log_rest)])


def _negative_log_likelihood(
    logs: Array, warp: _Warp, y: Array, variance: Array, groups: NDArray[np.intp]
) -> tuple[float, Array]:
    """Return minus the log marginal likelihood and its gradient by the logarithms of weights, scale, noise, a and b."""
    n = len(logs) - 2 * warp.n - 2
    values = np.exp(logs)
    weights, scale, noise = values[:n], values[n], values[n + 1]
    a, b = values[n + 2 :].reshape(2, -1)
    roots = np.sqrt(weights)[groups]
    scaled = warp.inputs(a, b) * roots
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
    towards = by_distance.sum(axis=1)[:, None] * scaled - by_distance @ scaled
    gradient = np.empty_like(logs)
    by_weight = 2 * np.einsum("ij,ij->j", scaled, towards)
    gradient[:n] = np.bincount(groups, weights=by_weight, minlength=n)
    gradient[n] = scale * float((slope * correlation).sum())
    gradient[n + 1] = noise * float(np.trace(slope))
    gradient[n + 2 :] = warp.gradient(4 * towards * roots, a, b)
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


def _prior_of_logs(prior: Prior, n_groups: int, n_warped: int) -> tuple[Array, Array]:
    """Return mean and standard deviation of the logarithms of weights, scale, noise, a and b."""
    log_length = prior.log_length + 0.5 * math.log(max(n_groups, 1))
    centre = np.concatenate([np.full(n_groups, -2 * log_length), [0.0, prior.log_noise], np.zeros(2 * n_warped)])
    of_weights, of_warps = np.full(n_groups, 2 * prior.length_spread), np.full(2 * n_warped, prior.warp_spread)
    return centre, np.concatenate([of_weights, [prior.log_scale_spread, prior.log_noise_spread], of_warps])
