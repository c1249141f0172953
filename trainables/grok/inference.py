"""What a trained model is asked for: an ensemble by dropout, and signals where it is sure enough (GROK-14, EXEC-2).

Letters: B batch, T rows, C columns, H horizons, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from trainables.grok.config import LEVELS, MEDIAN
from trainables.training.randomness import undisturbed

ENSEMBLE_SEED = 0
"""Equal windows give equal forecasts, in every process: the masks of the ensemble are always drawn alike."""
SPREAD_SHARE = 0.6
"""Share of the training spreads under which a forecast counts as sure (GROK-14)."""


def ensemble(model: nn.Module, windows_BTC: Tensor, n_samples: int) -> dict[str, Any]:
    """Return the outputs of a model in evaluation mode, quantiles averaged level by level over passes with dropout.

    Args:
        model: In evaluation mode; left in it.
        windows_BTC: Windows.
        n_samples: Passes; 1: a single one without dropout.
    """
    if n_samples == 1:
        return model(windows_BTC)
    with undisturbed(windows_BTC.device), _dropping(model):
        torch.manual_seed(ENSEMBLE_SEED)
        total_BHQ = sum(model(windows_BTC)["quantiles"] for _ in range(n_samples))
    return {"quantiles": total_BHQ / n_samples}


@contextmanager
def _dropping(model: nn.Module) -> Iterator[None]:
    """Turn dropout on, and nothing else of training."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


def spread(quantiles: ArrayLike) -> NDArray[np.float64]:
    """Return the distance of the outer quantiles, (...,), of forecasts (..., Q)."""
    ordered = np.sort(np.asarray(quantiles, dtype=np.float64), axis=-1)
    return ordered[..., -1] - ordered[..., 0]


def spread_threshold(training_spreads: ArrayLike, share: float = SPREAD_SHARE) -> float:
    """Return the spread that this share of the training fold's forecasts stays under (GROK-14).

    Raises:
        ValueError: There is no finite spread, or the share lies outside (0, 1).
    """
    spreads = np.asarray(training_spreads, dtype=np.float64)
    known = spreads[np.isfinite(spreads)]
    if not 0 < share < 1 or not len(known):
        raise ValueError(f"spreads: expected some finite and a share in (0, 1), found {len(known)} and {share}")
    return float(np.quantile(known, share))


def signals(quantiles: ArrayLike, threshold: float) -> NDArray[np.int64]:
    """Return 1 (long) where the median is above zero, -1 (short) where below, 0 where the spread exceeds a threshold.

    Args:
        quantiles: (..., 7) forecasts of one horizon, levels as `config.LEVELS`.
        threshold: Of `spread_threshold`.

    Raises:
        ValueError: There is another number of levels.
    """
    forecasts = np.sort(np.asarray(quantiles, dtype=np.float64), axis=-1)
    if forecasts.shape[-1] != len(LEVELS):
        raise ValueError(f"quantiles: expected (..., {len(LEVELS)}), found {forecasts.shape}")
    return np.where(spread(forecasts) <= threshold, np.sign(forecasts[..., MEDIAN]), 0.0).astype(np.int64)
