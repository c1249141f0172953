"""Expected improvement of something that is known up to a normal error."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr


def expected_improvement(gap: ArrayLike, deviation: ArrayLike) -> NDArray[np.float64]:
    """Return E[max(x, 0)] of normal x (Jones, Schonlau & Welch 1998, J. Global Optim. 13, equation 15).

    Args:
        gap: Mean of x: by how much it is expected to be better.
        deviation: Standard deviation of x, above 0.
    """
    gap, deviation = np.asarray(gap, dtype=float), np.asarray(deviation, dtype=float)
    z = gap / deviation
    return np.asarray(deviation * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) + gap * ndtr(z))
