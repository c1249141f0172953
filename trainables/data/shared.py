"""What the trials of one process share: a market is loaded once, a store checks an entry when it first meets it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.loader import load_market
from trainables.data.market import Market
from trainables.data.store import FeatureStore, keep_to_market


def opened(data: DataConfig, folds: FoldsConfig, folder: Path) -> tuple[Market, FeatureStore]:
    """Return the market of the sections and the store below `folder`, which must be one of this very market.

    Raises:
        DataError: The market cannot be used, or is not the one that the store was made from.
    """
    found, entries = market(data, folds), store(folder)
    keep_to_market(entries, found, data=data, folds=folds)
    return found, entries


@lru_cache(maxsize=2)
def market(data: DataConfig, folds: FoldsConfig) -> Market:
    """Return the market, without its vault; loaded once per process."""
    return load_market(data, folds)


@lru_cache(maxsize=4)
def store(folder: Path) -> FeatureStore:
    """Return the store of a folder, one object per process."""
    return FeatureStore(folder)
