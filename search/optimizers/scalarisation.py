"""Several losses as one, so that one surrogate serves all.

Source: Knowles (2006), "ParEGO", IEEE Transactions on Evolutionary Computation 10(1), eq. 2: the augmented Chebyshev
norm with weights that are drawn anew for every proposal reaches every part of the front, bent inwards or not.
"""

from __future__ import annotations

import numpy as np

from search.optimizers.genome import Array

SHARE_OF_SUM = 0.05
"""rho of ParEGO."""


def drawn_weights(n_objectives: int, rng: np.random.Generator) -> Array:
    """Return (n_objectives,) weights, uniform on the simplex."""
    return np.asarray(rng.dirichlet(np.ones(n_objectives)))


def scalarised(losses: Array, variances: Array, weights: Array) -> tuple[Array, Array]:
    """Return one loss and its variance for each row.

    Each loss is first put on a scale where its best is 0 and its median 1, and counts no more than 10.

    Args:
        losses: (n, n_objectives), smaller is better.
        variances: (n, n_objectives) of these; NaN where unknown.
        weights: (n_objectives,) of sum 1.

    Returns:
        (n,) and (n,); of a single objective the losses themselves.
    """
    if losses.shape[1] == 1:
        return losses[:, 0], variances[:, 0]
    best = losses.min(axis=0)
    unit = np.median(losses, axis=0) - best
    unit = np.where(unit > 0, unit, np.maximum(np.ptp(losses, axis=0), 1e-12))
    weighed = weights * np.minimum((losses - best) / unit, 10.0)
    worst = weighed.argmax(axis=1)
    slopes = weights / unit * (SHARE_OF_SUM + (np.arange(len(weights)) == worst[:, None]))
    return weighed.max(axis=1) + SHARE_OF_SUM * weighed.sum(axis=1), (slopes**2 * variances).sum(axis=1)
