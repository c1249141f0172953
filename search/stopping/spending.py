"""How much of an error rate each look of a repeated test may spend, so that all looks together spend no more.

A running sum of evidence is looked at several times. The looks see much the same data, so a trial that looks bad by
chance at one is likely to look bad at the next: crossing once is counted once. Bonferroni counts it every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

STEP, REACH = 0.005, 8.0
"""Grid of the sum, in its own standard deviation at the last look."""


def levels(alpha: float, information: Sequence[float], power: float) -> tuple[float, ...]:
    """Return the nominal one-sided level of each look at a sum of independent normal steps.

    After look k of K the chance to have crossed is alpha (k / K)^power (the power family of Kim & DeMets 1987,
    Biometrika 74, in looks instead of information); the boundaries follow by the recursion of Armitage, McPherson &
    Rowe (1969, J. R. Stat. Soc. A 132). Boundaries lie on a grid and are rounded to the safe side.

    Args:
        alpha: Chance that the sum crosses at any look, where nothing is there; in (0, 1).
        information: Increasing, above zero: how much is known at each look, such as its number of folds.
        power: Above 0; 1 spends evenly, 3 keeps most for the late looks (as O'Brien and Fleming do).
    """
    if not information:
        return ()
    grid = np.arange(-REACH, REACH + STEP / 2, STEP)
    known = np.asarray(information, dtype=float) / information[-1]
    density, spent, found = np.zeros_like(grid), 0.0, []
    for k, (now, before) in enumerate(zip(known, (0.0, *known[:-1]), strict=True)):
        deviation = math.sqrt(now - before)
        density = _normal(grid, deviation) if k == 0 else _spread(density, deviation)
        beyond = np.cumsum(density[::-1])[::-1] * STEP
        due = alpha * ((k + 1) / len(known)) ** power - spent
        boundary = int(np.searchsorted(-beyond, -due))
        found.append(float(ndtr(-grid[boundary] / math.sqrt(now))))
        spent += float(beyond[boundary])
        density[boundary:] = 0.0
    return tuple(found)


def _normal(x: np.ndarray, deviation: float) -> np.ndarray:
    density: np.ndarray = np.exp(-0.5 * (x / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    return density


def _spread(density: np.ndarray, deviation: float) -> np.ndarray:
    """Return the density after one more normal step."""
    half = min(math.ceil(8 * deviation / STEP), len(density) // 2)
    return np.convolve(density, _normal(np.arange(-half, half + 1) * STEP, deviation) * STEP, mode="same")
