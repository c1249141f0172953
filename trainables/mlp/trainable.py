"""The mlp family: scaling features, direction labels, cross-entropy (chapter 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.measures.classification import accuracy, confusion, directional_accuracy, directional_gain, majority_rate
from analysis.measures.crps import brier
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import Dataset
from trainables.data.market import Market
from trainables.data.shared import opened
from trainables.data.store import content_key
from trainables.features.columns import columns_of
from trainables.features.registry import compute, fingerprint, rows_of
from trainables.features.settings import FeatureSettings
from trainables.mlp.config import STAGE_INPUTS, MlpConfig
from trainables.mlp.labels import direction_labels
from trainables.mlp.losses import cross_entropy
from trainables.mlp.model import Mlp
from trainables.training.family import Batch, Family, Score

STAGE_SCHEMAS = {"10": "scaling10", "20": "scaling20", "30+": "scaling30", "50+": "scaling50"}
LABEL_VERSION = 1
"""Part of the store's key; raised when labels or the rule of usable rows change."""


class MlpFamily(Family):
    """See `trainables.training.family.Family`."""

    name = "mlp"

    def dataset(
        self,
        config: MlpConfig,
        data: DataConfig,
        folds: FoldsConfig,
        reach: Mapping[str, tuple[Any, ...]],
        store: Path,
    ) -> Dataset:
        """Return features of the config's stage; usable are rows where every stage and horizon of the reach has values.

        So all trials of a search are scored on the same timestamps (SEARCH-14), whatever stage or horizon they have.

        Raises:
            DataError: A stage needs a series that is not there (`MlpConfig.check_data`).
        """
        MlpConfig.check_data({"feature_stage": (config.feature_stage, *reach.get("feature_stage", ()))}, data)
        market, entries = opened(data, folds, store)
        stages = sorted({config.feature_stage, *reach.get("feature_stage", ())}, key=STAGE_INPUTS.__getitem__)
        horizons = sorted({config.label_horizon, *reach.get("label_horizon", ())})
        settings = FeatureSettings(levels_mode=config.levels_mode)
        schema = STAGE_SCHEMAS[stages[-1]]
        key = content_key(
            family=self.name,
            market=market.snapshot,
            features=fingerprint(schema, settings),
            stage=config.feature_stage,
            horizon=config.label_horizon,
            horizons=horizons,
            version=LABEL_VERSION,
        )

        def build() -> Dataset:
            features, names = compute(schema, market, settings, market.series)
            return _dataset(market, features, names[: config.n_inputs], config.label_horizon, horizons, key)

        seen = tuple(row.name for row in rows_of(schema, market.series))[: config.n_inputs]
        columns = columns_of(schema, seen, settings, market.bars_per_session)
        return entries.dataset(key, build, {"columns": columns})

    def build_model(self, config: MlpConfig, feature_names: tuple[str, ...]) -> nn.Module:
        return Mlp(config, len(feature_names))

    def statistics(self, config: MlpConfig, targets_train: NDArray[np.float32]) -> MlpConfig:
        """Return the config with the share of rises, which a naive forecast says (ANALYSIS-4)."""
        return config.model_copy(update={"rise_share": float(targets_train[:, 0].mean(dtype=np.float64))})

    def loss(self, config: MlpConfig, outputs: Tensor, batch: Batch) -> Tensor:
        return self.reference_loss(config, outputs, batch).mean()

    def reference_loss(self, config: MlpConfig, outputs: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(outputs, batch.targets[:, 0])

    def score(self, config: MlpConfig, outputs: Tensor, targets: Tensor) -> Score:
        """Score probabilities of a rise: cross-entropy, Brier score, and accuracy beside that of a constant (C-33)."""
        rises, forward_return = targets.numpy().T
        p_up = torch.sigmoid(outputs).numpy()
        signal = p_up - np.float32(0.5)
        counts = confusion(rises.astype(np.int64), (p_up > 0.5).astype(np.int64), n_classes=2)
        measures = {
            "accuracy": accuracy(counts),
            "majority_rate": majority_rate(counts),
            "directional_accuracy": directional_accuracy(signal, forward_return),
            "directional_gain": directional_gain(signal, forward_return),
        }
        return Score(
            loss=cross_entropy(outputs, targets[:, 0]).numpy(),
            crps=brier(rises, p_up).astype(np.float32),
            forecasts={f"{config.label_horizon}b": (signal, forward_return)},
            columns={"p_up": p_up},
            outcomes={"up": rises, **_naive(config, rises)},
            metrics={name: value for name, value in measures.items() if value is not None},
        )


def _naive(config: MlpConfig, rises: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return the scores of the training rows' share of rises; none without it."""
    if config.rise_share is None:
        return {}
    p = np.float32(np.clip(config.rise_share, 1e-6, 1 - 1e-6))
    loss = -np.where(rises > 0.5, np.log(p), np.log1p(-p))
    score = brier(rises, np.full_like(rises, p))
    return {"baseline_loss": loss.astype(np.float32), "baseline_crps": score.astype(np.float32)}


def _dataset(
    market: Market, features: np.ndarray, names: tuple[str, ...], horizon: int, horizons: list[int], key: str
) -> Dataset:
    """Join features and labels; `features` has the columns of the largest stage, `names` those that are kept."""
    usable = np.isfinite(features).all(axis=1)
    for other in horizons:
        usable &= np.isfinite(direction_labels(market, other)[0]).all(axis=1)
    targets, target_names, label_end = direction_labels(market, horizon)
    return Dataset(
        known_time=market.known_time,
        features=np.ascontiguousarray(features[:, : len(names)]),
        feature_names=names,
        targets=targets,
        target_names=target_names,
        label_end=label_end,
        usable=usable,
        segment=market.segment,
        marks=market.marks,
        snapshot=key,
    )


FAMILY = MlpFamily()
