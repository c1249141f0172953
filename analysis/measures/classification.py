"""Measures of class and direction forecasts (ANALYSIS-5, ANALYSIS-7, ANALYSIS-8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def confusion(label: ArrayLike, predicted: ArrayLike, *, n_classes: int) -> NDArray[np.int64]:
    """Return the (n_classes, n_classes) counts, rows true labels, columns predictions.

    Args:
        label: (n,) integers 0..n_classes - 1.
        predicted: (n,) the same.
        n_classes: Number of classes.

    Raises:
        ValueError: Shapes differ, or a class is out of range.
    """
    y, p = np.asarray(label), np.asarray(predicted)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"label, predicted: expected equal shapes (n,), found {y.shape} and {p.shape}")
    for name, classes in (("label", y), ("predicted", p)):
        if not np.isin(classes, np.arange(n_classes)).all():
            raise ValueError(f"{name}: expected integers 0 to {n_classes - 1}, found {np.unique(classes).tolist()}")
    flat = np.bincount(y.astype(np.int64) * n_classes + p.astype(np.int64), minlength=n_classes**2)
    return flat.reshape(n_classes, n_classes)


def accuracy(matrix: ArrayLike) -> float | None:
    """Return the share of the confusion matrix on its diagonal, as for regimes (ANALYSIS-7); None without rows."""
    counts = np.asarray(matrix)
    return float(np.trace(counts) / counts.sum()) if counts.sum() else None


def majority_rate(matrix: ArrayLike) -> float | None:
    """Return the share of the most frequent true class: what a constant forecast reaches. None without rows."""
    counts = np.asarray(matrix)
    return float(counts.sum(axis=1).max() / counts.sum()) if counts.sum() else None


def balanced_accuracy(matrix: ArrayLike) -> float | None:
    """Return the mean recall over classes that occur; None without rows."""
    counts = np.asarray(matrix)
    support = counts.sum(axis=1)
    occurs = support > 0
    return float((np.diag(counts)[occurs] / support[occurs]).mean()) if occurs.any() else None


def directional_accuracy(prediction: ArrayLike, target: ArrayLike) -> float | None:
    """Return the share of rows with a move (target not zero) whose sign is predicted; a prediction of zero is wrong.

    Args:
        prediction: (n,) signed forecasts.
        target: (n,) realised moves; rows with NaN are left out.

    Returns:
        None where nothing moved.

    Raises:
        ValueError: Shapes differ.
    """
    p, y = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if p.shape != y.shape:
        raise ValueError(f"prediction, target: expected equal shapes, found {p.shape} and {y.shape}")
    moved = (y != 0) & ~np.isnan(y) & ~np.isnan(p)
    return float((np.sign(p[moved]) == np.sign(y[moved])).mean()) if moved.any() else None


def directional_gain(prediction: ArrayLike, target: ArrayLike) -> float | None:
    """Return directional accuracy minus what the better constant side reaches; zero for a constant forecast of it.

    Returns:
        None where nothing moved. Raises as `directional_accuracy`.
    """
    hit = directional_accuracy(prediction, target)
    if hit is None:
        return None
    p, y = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    up = float((y[(y != 0) & ~np.isnan(y) & ~np.isnan(p)] > 0).mean())
    return hit - max(up, 1 - up)


def tail_accuracy(prediction: ArrayLike, target: ArrayLike, *, low: float, high: float) -> tuple[float | None, int]:
    """Return the share of tail rows whose side is predicted, and their number (ANALYSIS-5); below 100 it says little.

    Args:
        prediction: (n,) predicted medians.
        target: (n,) realised values.
        low: The 5 % quantile of the target on the training rows of the fold.
        high: The 95 % quantile of the same.

    Raises:
        ValueError: `low` is not below `high`, or shapes differ.
    """
    if not low < high:
        raise ValueError(f"low, high: expected low below high, found {low} and {high}")
    p, y = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    tail = (y < low) | (y > high)
    return directional_accuracy(p[tail], y[tail]), int(tail.sum())
