"""Which parameters decided whether a trial is among the best (PED-ANOVA)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One parameter of all trials, coded for comparison.

    Attributes:
        values: (n_trials,) numbers on the scale of the search, 0 to 1, or the position of a category; NaN: inactive.
        n_categories: 0 for numbers.
        labels: Of the categories, in order; empty for numbers.
        low, high: Ends of the range in the unit of the parameter; NaN for categories.
        is_log: The scale is logarithmic.
    """

    values: Float
    n_categories: int
    labels: tuple[str, ...]
    low: float
    high: float
    is_log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much a parameter matters for being among the best.

    Attributes:
        share: Of all parameters together; zero where nothing matters.
        noise: Share that 95 % of parameters without any effect stay below, had the best been drawn at random.
        share_active: Trials in which it is active.
    """

    share: float
    noise: float
    share_active: float

    @property
    def is_above_noise(self) -> bool:
        return self.share > self.noise


def axis(
    values: Sequence[Any], *, low: float | None = None, high: float | None = None, is_log: bool | None = None
) -> Axis:
    """Code the values of one parameter: numbers by their place in the range, everything else by category.

    Args:
        values: (n_trials,) None where it is not active. Booleans and text are categories, and so are mixtures.
        low: Lower end of the range; none: the smallest value.
        high: Upper end; none: the largest value.
        is_log: Scale; none: logarithmic where all values are positive and span a factor of 30 or more.
    """
    known = [v for v in values if v is not None]
    is_number = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in known) and len(known) > 0
    if not is_number:
        labels = sorted({str(v) for v in known})
        place = {label: k for k, label in enumerate(labels)}
        coded = np.array([math.nan if v is None else place[str(v)] for v in values])
        return Axis(
            values=coded, n_categories=len(labels), labels=tuple(labels), low=math.nan, high=math.nan, is_log=False
        )
    smallest = min(known) if low is None else min(low, *known)
    largest = max(known) if high is None else max(high, *known)
    log = smallest > 0 and largest >= 30 * smallest if is_log is None else is_log and smallest > 0
    numbers = np.array([math.nan if v is None else float(v) for v in values])
    bounds = np.array([smallest, largest], dtype=float)
    if log:
        numbers, bounds = np.log(numbers), np.log(bounds)
    width = bounds[1] - bounds[0]
    place_01 = (numbers - bounds[0]) / width if width > 0 else np.where(np.isnan(numbers), np.nan, 0.5)
    return Axis(values=place_01, n_categories=0, labels=(), low=float(smallest), high=float(largest), is_log=bool(log))


def ped_anova(
    axes: Mapping[str, Axis], losses: ArrayLike, *, top_share: float = 0.1, n_random: int = 100, seed: int = 0
) -> dict[str, Importance]:
    """Return the importance of each parameter for reaching the best `top_share` of the trials.

    Source: Watanabe, Bansal and Hutter (2023), "PED-ANOVA: efficiently quantifying hyperparameter importance in
    arbitrary subspaces", IJCAI: the Pearson divergence of a parameter's density in the best trials from that in all.
    Densities by Parzen estimators on a grid, Scott's bandwidth, with a flat prior of weight one; a category counts its
    trials. Inactive trials are left out of a parameter. The noise level comes from the same measure for best trials
    drawn at random: with few trials it is high, and says that the figure means little.

    Args:
        axes: Parameters by name.
        losses: (n_trials,) finite, the smaller the better.
        top_share: In (0, 1); 0.1 as in the paper. At least two trials count as best.
        n_random: Random draws for the noise level; 0: none, `noise` is zero.
        seed: Of these draws.

    Returns:
        Most important first.

    Raises:
        ValueError: Losses are not finite, or an axis has another length.
    """
    y = np.asarray(losses, dtype=np.float64)
    if not np.isfinite(y).all() or any(len(a.values) != len(y) for a in axes.values()):
        raise ValueError(f"expected finite losses and axes of their length, {len(y)}")
    if len(y) < 4 or not axes:
        return {}
    n_top = max(2, math.ceil(top_share * len(y)))
    generator = np.random.default_rng(seed)
    cut = np.partition(y, n_top - 1)[n_top - 1]
    tops = [y <= cut] + [_random_top(generator, len(y), n_top) for _ in range(n_random)]
    divergence = np.array([_divergences(a, tops) for a in axes.values()]).T
    total = divergence.sum(axis=1, keepdims=True)
    share = np.divide(divergence, total, out=np.zeros_like(divergence), where=total > 0)
    noise = np.quantile(divergence[1:], 0.95, axis=0) / total[0] if n_random and total[0] > 0 else np.zeros(len(axes))
    found = {
        name: Importance(share=float(s), noise=float(e), share_active=float(np.isfinite(a.values).mean()))
        for (name, a), s, e in zip(axes.items(), share[0], noise, strict=True)
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1].share))


def _random_top(generator: np.random.Generator, n: int, n_top: int) -> NDArray[np.bool_]:
    chosen = np.zeros(n, dtype=np.bool_)
    chosen[generator.choice(n, n_top, replace=False)] = True
    return chosen


def _divergences(a: Axis, tops: Sequence[NDArray[np.bool_]]) -> list[float]:
    """Return the Pearson divergence of the density in each set of best trials from that in all trials."""
    known = np.isfinite(a.values)
    every = a.values[known]
    if not len(every) or np.ptp(every) == 0:
        return [0.0] * len(tops)
    density = _category_shares if a.n_categories else _parzen
    n_cells = a.n_categories or _cells(every)
    q = density(every, n_cells)
    bests = (a.values[top & known] for top in tops)
    return [float(np.sum(q * (density(best, n_cells) / q - 1) ** 2)) if len(best) > 1 else 0.0 for best in bests]


def _cells(values: Float, most: int = 50) -> int:
    """Return the points of the grid: 50, or as many as an evenly spaced integer parameter has values."""
    distinct = np.unique(np.round(values, 9))
    if len(distinct) > 20:
        return most
    step = float(np.diff(distinct).min(initial=1.0))
    cells = round(1 / step) + 1 if step > 0 else most
    return min(most, max(2, cells))


def _category_shares(values: Float, n: int) -> Float:
    counts = np.bincount(values.astype(np.int64), minlength=n) + 1 / n
    return counts / counts.sum()


def _parzen(values: Float, n: int) -> Float:
    """Return a mixture of normals, truncated and integrated over the cells of a grid with spacing one, plus a prior."""
    counts = np.bincount(np.clip(np.ceil(values * (n - 1) - 0.5).astype(np.int64), 0, n - 1), minlength=n)
    centre = np.flatnonzero(counts)
    weight = counts[centre].astype(np.float64)
    total = weight.sum()
    mean = centre @ weight / total
    spread = math.sqrt(float((centre - mean) ** 2 @ weight) / max(1.0, total - 1))
    placed = np.repeat(centre, counts[centre])
    quartiles = np.quantile(placed, (0.25, 0.75))
    # Scott (1992): the smaller of both spreads; never so narrow that a kernel falls between two cells.
    width = max(1.059 * min(float(np.ptp(quartiles)) / 1.34, spread) * total**-0.2, 0.5 / 1.64)
    centres = np.r_[centre, (n - 1) / 2]
    widths = np.r_[np.full(len(centre), width), float(n)]
    weights = np.r_[weight, 1.0] / (total + 1)
    edges = np.arange(n + 1) - 0.5
    mass = np.diff(ndtr((edges - centres[:, None]) / widths[:, None]), axis=1)
    return weights @ (mass / mass.sum(axis=1, keepdims=True))
