"""The grok family: nq24 features of minute bars, six forward returns, quantile losses and scores (chapter 3.1).

What is scored must be the same for all trials of a search (SEARCH-14). So a row counts only where the slowest averages
within the search's reach have values and at least one horizon has a target; which horizons do is the market's alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.measures import crps
from analysis.measures.classification import tail_accuracy
from analysis.measures.ic import spearman
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import NO_LABEL, Dataset
from trainables.data.market import Market
from trainables.data.shared import opened
from trainables.data.store import content_key
from trainables.features.registry import fingerprint
from trainables.grok import rows
from trainables.grok.config import HORIZON_MINUTES, LEVELS, MEDIAN, GrokConfig
from trainables.grok.inference import ensemble
from trainables.grok.labels import horizon_labels
from trainables.grok.losses import reference_loss, training_loss
from trainables.grok.model import GrokModel, Outputs
from trainables.grok.rows import Reach
from trainables.training.family import Batch, Family, Score

LABELS = tuple(f"{minutes}m" for minutes in HORIZON_MINUTES)
"""Horizons as evidence and measures name them."""
N_HORIZONS = len(HORIZON_MINUTES)
NORMAL_LEVELS = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64)).numpy()
VERSION = 1
"""Part of the store's key; raised when columns, targets or the rule of usable rows change."""
TASK = ("eval_stride", "max_pause_minutes", "baseline_span_bars")
"""Fields that decide what is scored and against what."""

Array = NDArray[np.float64]


class GrokFamily(Family):
    """See `trainables.training.family.Family`."""

    name = "grok"

    def dataset(
        self,
        config: GrokConfig,
        data: DataConfig,
        folds: FoldsConfig,
        reach: Reach,
        store: Path,
    ) -> Dataset:
        """Return features, context and targets of minute bars.

        Targets are the six returns, NaN where masked, and the moving volatility that a naive forecast uses.

        Raises:
            ValueError: The reach lets something vary that defines the task itself.
            DataError: The market is not one of minutes, or lacks the volume that features need.
        """
        _check_task(reach)
        market, entries = opened(data, folds, store)
        market = rows.checked_market(market, config, reach)
        key = content_key(
            family=self.name,
            market=market.snapshot,
            features=fingerprint(rows.SCHEMA, rows.feature_settings(config)),
            slowest=fingerprint(rows.SCHEMA, rows.slowest_settings(config, reach)),
            max_pause_minutes=config.max_pause_minutes,
            baseline_span_bars=config.baseline_span_bars,
            version=VERSION,
        )
        columns = rows.described_columns(market, config)
        return entries.dataset(key, lambda: _dataset(market, config, reach, key), {"columns": columns})

    def statistics(self, config: GrokConfig, targets_train: NDArray[np.float32]) -> GrokConfig:
        """Return the config with the spread and the quantiles of the training targets.

        Raises:
            ValueError: A horizon has fewer than two different returns in the training rows.
        """
        returns = np.asarray(targets_train[:, :N_HORIZONS], dtype=np.float64)
        known = [column[np.isfinite(column)] for column in returns.T]
        deviation = [float(column.std()) if len(column) else 0.0 for column in known]
        if not min(deviation) > 0:
            lacking = ", ".join(label for label, spread in zip(LABELS, deviation, strict=True) if not spread > 0)
            raise ValueError(
                f"targets: expected different returns at every horizon in the training rows, found none at {lacking}; "
                "lengthen the training window, or the sessions of the data"
            )
        quantiles = tuple(tuple(map(float, np.quantile(column, LEVELS))) for column in known)
        return config.model_copy(update={"target_deviation": tuple(deviation), "target_quantiles": quantiles})

    def warmup_rows(self, config: GrokConfig, dataset: Dataset, train: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the training rows whose window has no more than the median volatility (TRAIN-2)."""
        if not config.lowvol_curriculum:
            return None
        volatility = rows.window_volatility(dataset.features, dataset.feature_names, config.window_bars)[train]
        return train[volatility <= np.median(volatility)]

    def build_model(self, config: GrokConfig, feature_names: tuple[str, ...]) -> nn.Module:
        return GrokModel(config, feature_names)

    def loss(self, config: GrokConfig, outputs: Outputs, batch: Batch) -> Tensor:
        return training_loss(config, outputs, batch.targets[:, :N_HORIZONS])

    def reference_loss(self, config: GrokConfig, outputs: Outputs, batch: Batch) -> Tensor:
        return _reference(config, outputs["quantiles"], batch.targets[:, :N_HORIZONS])

    def forecast(self, config: GrokConfig, model: nn.Module, windows: Tensor) -> Outputs:
        return ensemble(model, windows, config.mc_samples if config.dropout > 0 else 1)

    def score(self, config: GrokConfig, outputs: Outputs, targets: Tensor) -> Score:
        """Score every row; see `Score`.

        `crps` and `baseline_crps` are means over known horizons, each in deviations of the training rows. The naive
        forecast is the better one of the training rows' quantiles and a normal with the moving volatility, judged on
        these rows: a help to it (ANALYSIS-4). Median, spread and quantiles are those of the sorted forecast.
        """
        deviation, fixed = _facts(config)
        quantiles = outputs["quantiles"].sort(-1).values
        returns = targets[:, :N_HORIZONS].numpy().astype(np.float64)
        forecasts = quantiles.numpy().astype(np.float64)
        own = _crps(forecasts, returns)
        spread = forecasts[..., -1] - forecasts[..., 0]
        columns = {
            f"q{round(100 * level):02d}_{label}": forecasts[:, h, q]
            for h, label in enumerate(LABELS)
            for q, level in enumerate(LEVELS)
            if q != MEDIAN
        }
        naive = _naive_crps(deviation, fixed, returns, targets[:, N_HORIZONS].numpy().astype(np.float64))
        return Score(
            loss=_array(_reference(config, quantiles, targets[:, :N_HORIZONS]).numpy()),
            crps=_array(np.nanmean(own / deviation, axis=1)),
            forecasts={
                label: (_array(forecasts[:, h, MEDIAN]), _array(returns[:, h])) for h, label in enumerate(LABELS)
            },
            scales={label: _array(spread[:, h] / np.ptp(NORMAL_LEVELS)) for h, label in enumerate(LABELS)},
            columns={name: _array(values) for name, values in columns.items()},
            outcomes={"baseline_crps": _array(naive)},
            metrics=_metrics(deviation, fixed, forecasts, returns, own),
        )


FAMILY: Family = GrokFamily()


def _check_task(reach: Reach) -> None:
    """Refuse a search over what is scored: its trials could not be compared."""
    for name in TASK:
        if len(set(reach.get(name, ()))) > 1:
            raise ValueError(f"{name}: expected one value, found {len(set(reach[name]))} in the space; fix it")


def _facts(config: GrokConfig) -> tuple[Array, Array]:
    """Return (H,) deviations and (H, Q) quantiles of the training targets."""
    if config.target_deviation is None or config.target_quantiles is None:
        raise ValueError("config: expected one with the statistics of a fold's training rows, found none")
    return np.array(config.target_deviation), np.array(config.target_quantiles)


def _reference(config: GrokConfig, quantiles: Tensor, returns: Tensor) -> Tensor:
    deviation = torch.tensor(_facts(config)[0], dtype=quantiles.dtype, device=quantiles.device)
    return reference_loss(quantiles, returns, deviation)


def _dataset(market: Market, config: GrokConfig, reach: Reach, key: str) -> Dataset:
    features, names = rows.columns(market, config)
    returns, target_names, label_end = horizon_labels(market, HORIZON_MINUTES, config.max_pause_minutes)
    known = rows.known_rows(market, config, reach)
    lacking = known & (features[:, names.index("valid")] == 0)
    if lacking.any():
        raise ValueError(
            f"features: expected values in all {int(known.sum())} rows that the search scores, found none in "
            f"{int(lacking.sum())}; the rule of usable rows is wrong"
        )
    moving = rows.moving_volatility(features, names, config.baseline_span_bars)
    return Dataset(
        known_time=market.known_time,
        features=features,
        feature_names=names,
        targets=np.column_stack([returns, moving]).astype(np.float32),
        target_names=(*target_names, "moving_volatility"),
        label_end=label_end,
        usable=known & (label_end != NO_LABEL),
        segment=market.segment,
        marks=market.marks,
        snapshot=key,
    )


def _crps(forecasts: Array, returns: Array) -> Array:
    """Return the quantile form of the score, (n, H); NaN where a horizon is masked."""
    by_horizon = [crps.quantile(returns[:, h], forecasts[:, h], LEVELS) for h in range(N_HORIZONS)]
    return np.stack(by_horizon, axis=1)


def _naive_crps(deviation: Array, quantiles: Array, returns: Array, moving: Array) -> Array:
    """Return the score of the better naive forecast, (n,), as `GrokFamily.score` says."""
    fixed = np.broadcast_to(quantiles, (len(returns), *quantiles.shape))
    normal = moving[:, None, None] * np.sqrt(HORIZON_MINUTES)[:, None] * NORMAL_LEVELS
    scores = [np.nanmean(_crps(each, returns) / deviation, axis=1) for each in (fixed, normal)]
    return min(scores, key=lambda score: float(np.mean(score)))


def _metrics(deviation: Array, quantiles: Array, forecasts: Array, returns: Array, own: Array) -> dict[str, float]:
    """Return the score of each horizon, coverage of the 90 % interval, tail accuracy, and how spreads rank moves."""
    is_known = np.isfinite(returns)
    is_inside = (returns >= forecasts[..., 0]) & (returns <= forecasts[..., -1])
    spread = forecasts[..., -1] - forecasts[..., 0]
    found: dict[str, float | None] = {"coverage_90": float(is_inside[is_known].mean())}
    ranks, tails = [], []
    for h, label in enumerate(LABELS):
        known, low, high = is_known[:, h], quantiles[h, 0], quantiles[h, -1]
        if not known.any():
            continue
        found[f"crps_{label}"] = float(own[known, h].mean() / deviation[h])
        ranks.append(spearman(spread[known, h], np.abs(returns[known, h])))
        tails.append(tail_accuracy(forecasts[known, h, MEDIAN], returns[known, h], low=low, high=high)[0])
    for name, values in (("spread_ic", ranks), ("tail_accuracy", tails)):
        defined = [value for value in values if value is not None]
        found[name] = float(np.mean(defined)) if defined else None
    return {name: value for name, value in found.items() if value is not None}


def _array(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)
