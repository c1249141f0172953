"""Bars as a file has them, before sessions, scaling and volatility."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Arrays (n_bars,): timestamp ns UTC as stamped, prices, volume (NaN: none)."""

    timestamp: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.timestamp)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Bars:
        """Return the given rows, by position or by mask."""
        return Bars(**{name: getattr(self, name)[rows] for name in ("timestamp", *PRICES, "volume")})


def digest(path: str) -> str:
    """Return the SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
