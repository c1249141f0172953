"""Persistent homology of price paths (FEAT-CB-37): one number that is high for cycles and 0 for lines.

A window of prices is z-scored, embedded by delays (Takens 1981), thinned evenly, and its Vietoris-Rips complex is grown
up to the enclosing radius, beyond which nothing changes (the complex is a cone). GUDHI finds the loops.
"""

from __future__ import annotations

import gudhi
import numpy as np

from trainables.features.bars import Bars, chained_log_price, shared
from trainables.features.memory import earlier_rows, remembered
from trainables.features.rolling import Float


@shared
def persistence(bars: Bars) -> Float:
    """Return the sum of squared lifetimes of loops in each bar's trailing window; 0 everywhere where `tda` is off.

    Cross-session, on prices without overnight jumps. Computed at every `tda_stride`-th bar of a segment, counted from
    its first full window, and carried forward in between. NaN before that.
    """
    s = bars.settings
    if not s.tda:
        return np.zeros(len(bars))
    prices = np.exp(chained_log_price(bars))
    (prices,), first, start = earlier_rows(bars.segment_first, s.tda_window - 1, prices)
    held = remembered(1)
    values = np.full(len(bars), np.nan)
    age = np.arange(start, len(prices)) - first[start:] - (s.tda_window - 1)
    for i in np.flatnonzero(age >= 0):
        if age[i] % s.tda_stride == 0:
            path = prices[start + i + 1 - s.tda_window : start + i + 1]
            held[:] = total_persistence(embed(path, s.tda_dim, s.tda_delay, s.tda_points))
        values[i] = held[0]
    return values


def embed(path: Float, dim: int, delay: int, n_points: int) -> Float:
    """Return the delay embedding of a z-scored path as a cloud of at most n_points points.

    Args:
        path: (n,) prices; a constant path gives a cloud of zeros.
        dim: Coordinates per point: p_t, p_{t-delay}, ...
        delay: Bars between coordinates.
        n_points: Larger clouds are thinned to so many points, evenly in time, first and last kept.

    Returns:
        (m, dim) points, oldest first.
    """
    deviation = path.std()
    scaled = (path - path.mean()) / deviation if deviation > 1e-12 * abs(path).max() else np.zeros(len(path))
    last = np.arange((dim - 1) * delay, len(path))
    if len(last) > n_points:
        last = last[np.linspace(0, len(last) - 1, n_points).round().astype(int)]
    return scaled[last[:, None] - delay * np.arange(dim)]


def loops(cloud: Float) -> Float:
    """Return birth and death radii of the one-dimensional classes of a cloud's Vietoris-Rips complex.

    Args:
        cloud: (m, dim) points.

    Returns:
        (n_classes, 2) diameters at birth and death, death at most the enclosing radius.
    """
    distance = np.sqrt(((cloud[:, None] - cloud[None]) ** 2).sum(axis=2))
    enclosing = distance.max(axis=1).min()
    edges = gudhi.RipsComplex(distance_matrix=distance, max_edge_length=enclosing).create_simplex_tree(max_dimension=1)
    edges.collapse_edges()
    edges.expansion(2)
    edges.compute_persistence(min_persistence=0.0)
    classes = edges.persistence_intervals_in_dimension(1).reshape(-1, 2)
    return np.minimum(classes, enclosing)


def total_persistence(cloud: Float) -> float:
    """Return the sum of (death - birth)^2 over the loops of a cloud (FEAT-CB-37)."""
    births_deaths = loops(cloud)
    return float(((births_deaths[:, 1] - births_deaths[:, 0]) ** 2).sum())
