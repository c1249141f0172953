"""What each fold costs and each trial is worth, from trials that saw different numbers of folds.

loss(trial, fold) = worth(trial) + effect(fold) + chance(trial, fold): worths are random with one variance, effects are
fixed, chance has a variance for each fold, as a wild fold says less than a calm one. Who goes on to later folds was
chosen by luck in the earlier ones; plain averages would then take the later folds for harder than they are. Generalised
least squares do not, since the losses that the choice was made on are in the data (Henderson 1975, "Best linear
unbiased estimation and prediction under a selection model", Biometrics 31).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATIOS = np.geomspace(1e-2, 1e3, 11)
"""Variance of worths over that of chance: where the likelihood is looked at."""
FEWEST_DOF = 6
"""Degrees of freedom below which the variance of chance is not told; what a fold's own variance is moderated by."""
ROUNDS = 3
"""Of fitting effects and variances of folds in turns."""


@dataclass(frozen=True, slots=True)
class FoldEffects:
    """A fitted layout.

    Attributes:
        effects: (n_folds,) of the folds; NaN where no trial saw it. Their level is that of the mean trial.
        chance: (n_folds,) variance of a loss around worth and effect; NaN where it is not known.
        worths: Variance of worths around their mean; NaN where it is not known.
    """

    effects: Floats
    chance: Floats
    worths: float

    def worth(self, losses: Floats) -> tuple[Floats, Floats]:
        """Return the weighted mean of losses less effects over the folds seen, and its variance, (m,) each.

        Args:
            losses: (m, n_folds), NaN for folds that a trial did not see.
        """
        rest = losses - self.effects
        seen = ~np.isnan(rest)
        weights = np.where(seen, 1 / self.chance if self.is_known else 1.0, 0.0)
        total = weights.sum(axis=1)
        mean = np.sum(np.where(seen, rest, 0.0) * weights, axis=1) / total
        return mean, 1 / total if self.is_known else np.full(len(total), np.nan)

    @property
    def is_known(self) -> bool:
        """Whether the variances are told."""
        return not bool(np.isnan(self.chance).any())


def fit(losses: Floats) -> FoldEffects:
    """Fit the layout by restricted maximum likelihood over a grid of variance ratios.

    Args:
        losses: (n_trials, n_folds), NaN where a trial did not see a fold; every trial saw one.
    """
    seen = ~np.isnan(losses)
    used = seen.any(axis=0)
    y, m = np.where(seen, losses, 0.0)[:, used], seen[:, used].astype(float)
    n_trials, n_folds = m.shape
    dof = float(m.sum()) - n_trials - n_folds + 1
    effects, chance = np.full((2, losses.shape[1]), np.nan)
    if dof < FEWEST_DOF:
        effects[used] = y.sum(axis=0) / m.sum(axis=0)
        return FoldEffects(effects, chance, np.nan)
    relative = np.ones(n_folds)
    for _ in range(ROUNDS):
        fits = [_at(ratio, y, m / relative) for ratio in RATIOS]
        _, found, common, ratio = max(fits, key=lambda one: one[0])
        relative = relative * _moderated(found, common, ratio, y, m, relative)
    effects[used] = found
    chance[:] = common * float(np.exp(np.mean(np.log(relative))))
    chance[used] = common * relative
    return FoldEffects(effects, chance, ratio * common)


def refit(losses: Floats, known: FoldEffects) -> FoldEffects:
    """Fit effects alone, with variances that are known: a tenth of the work.

    Args:
        losses: See `fit`.
        known: Whose variances are told.
    """
    seen = ~np.isnan(losses)
    used = seen.any(axis=0)
    weights = np.where(seen, 1 / known.chance, 0.0)[:, used]
    effects = np.full(losses.shape[1], np.nan)
    effects[used] = _at(known.worths, np.where(seen, losses, 0.0)[:, used], weights)[1]
    return FoldEffects(effects, known.chance, known.worths)


def _at(ratio: float, y: Floats, weights: Floats) -> tuple[float, Floats, float, float]:
    """Return restricted log-likelihood, effects, common factor of the variances of chance, and the ratio.

    Args:
        ratio: Variance of worths over the common factor.
        y: (n_trials, n_folds) losses, 0 where unseen.
        weights: (n_trials, n_folds) inverse variances of chance over the common factor, 0 where unseen.
    """
    count = weights.sum(axis=1)
    shrunk = ratio / (1 + count * ratio)
    total = (weights * y).sum(axis=1)
    normal = np.diag(weights.sum(axis=0)) - weights.T @ (shrunk[:, None] * weights)
    effects = np.linalg.solve(normal, (weights * y).sum(axis=0) - weights.T @ (shrunk * total))
    rest = y - effects
    squares = float(np.sum(weights * rest**2) - np.sum(shrunk * (weights * rest).sum(axis=1) ** 2))
    dof = float(np.count_nonzero(weights)) - len(effects)
    common = max(squares / dof, 1e-300)
    log_likelihood = -0.5 * (dof * np.log(common) + np.sum(np.log1p(count * ratio)) + np.linalg.slogdet(normal)[1])
    return float(log_likelihood), effects, common, float(ratio)


def _moderated(effects: Floats, common: float, ratio: float, y: Floats, m: Floats, relative: Floats) -> Floats:
    """Return by how much the variance of each fold is larger than it was taken for, moderated towards one factor."""
    weights = m / relative
    rest = y - effects
    count = weights.sum(axis=1, keepdims=True)
    centred = rest - (weights * rest).sum(axis=1, keepdims=True) / count
    left = m * (1 - weights / count)
    squares = (weights * centred**2).sum(axis=0) / common
    dof = left.sum(axis=0)
    factor = (squares + FEWEST_DOF) / (dof + FEWEST_DOF)
    return np.asarray(factor / np.exp(np.mean(np.log(factor))))


def matrix(trials: Sequence[Mapping[int, float]], n_folds: int) -> Floats:
    """Return (n_trials, n_folds) losses, NaN where a trial has none."""
    found = np.full((len(trials), n_folds), np.nan)
    for row, losses in zip(found, trials, strict=True):
        for fold, loss in losses.items():
            row[fold] = loss
    return found
