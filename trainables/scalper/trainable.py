"""The scalper family: one-second features, direction, volatility and exits, scores on a fixed reference (chapter 3.3).

What is scored must be the same for all trials of a search (SEARCH-14). So a second counts only where the features that
any trial within the search's reach sees have values, where every horizon within reach has a label, and in regular hours
where a trial within reach keeps to them. A second that the regular grid filled in (DATA-10) is seen by windows, but no
decision is made at it: else silent hours would weigh more than busy ones, and the grid would say which seconds count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.measures.classification import (
    accuracy,
    balanced_accuracy,
    confusion,
    directional_accuracy,
    directional_gain,
    majority_rate,
)
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import NO_LABEL, Dataset
from trainables.data.market import Market
from trainables.data.sessions import schedule
from trainables.data.shared import opened
from trainables.data.store import content_key
from trainables.errors import DataError
from trainables.features.columns import columns_of
from trainables.features.registry import compute, fingerprint
from trainables.features.schemas import MES_HIGHER
from trainables.features.settings import FeatureSettings
from trainables.scalper.artifact import export
from trainables.scalper.config import CLASSES, ScalperConfig
from trainables.scalper.labels import NAMES, ScalperLabels, label_window, scalper_labels
from trainables.scalper.losses import (
    DIRECTION,
    EXITS,
    MOVE,
    VOLATILITY,
    class_probabilities,
    reference_loss,
    training_loss,
)
from trainables.scalper.model import Outputs, ScalperModel
from trainables.scalper.predictions import Predictions, predictions
from trainables.training.family import Batch, Family, Score

Reach = Mapping[str, tuple[Any, ...]]
SCHEMA, SETTINGS = "scalper", FeatureSettings()
VERSION = 2
"""Part of the store's keys; raised when labels or the rule of usable rows change."""


class ScalperFamily(Family):
    """See `trainables.training.family.Family`."""

    name = "scalper"

    def dataset(
        self, config: ScalperConfig, data: DataConfig, folds: FoldsConfig, reach: Reach, store: Path
    ) -> Dataset:
        """Return the features that the config sees, and the targets of its horizon, band and barriers.

        Raises:
            ValueError: Hours outside of the regular ones are asked for, and the `data` section leaves them out.
            DataError: All rows are of one class: `tick` or `ticks_x` does not fit the market.
        """
        if "rth_plus_eth" in _values("session", config, reach) and data.session == "rth":
            raise ValueError("session: rth_plus_eth needs data.session: all, found rth, which keeps regular hours only")
        market, entries = opened(data, folds, store)
        has_higher = any(_values("htf", config, reach))
        horizons = sorted(set(_values("horizon_s", config, reach)))
        labels = label_settings(config)
        features_key = content_key(
            kind="features",
            market=market.snapshot,
            features=fingerprint(SCHEMA, SETTINGS),
            columns=config.seen_features(),
            higher=has_higher,
            version=VERSION,
        )
        labels_key = content_key(
            kind="labels",
            market=market.snapshot,
            settings=labels.model_dump(mode="json"),
            horizons=horizons,
            version=VERSION,
        )
        columns = columns_of(SCHEMA, config.seen_features(), SETTINGS, market.bars_per_session)
        known = entries.get(features_key, lambda: _features(config, market, has_higher), {"columns": columns})
        labelled = entries.get(labels_key, lambda: _labels(market, labels, horizons))
        is_regular = regular_hours(market)
        usable = known["is_known"] & labelled["is_labelled"] & ~market.is_filled
        _check_classes(config, labelled["targets"][usable, DIRECTION])
        return Dataset(
            known_time=market.known_time,
            features=known["features"],
            feature_names=config.seen_features(),
            targets=labelled["targets"],
            target_names=NAMES,
            label_end=labelled["label_end"],
            usable=usable & is_regular if config.session == "rth" else usable,
            scored=usable & is_regular if "rth" in _values("session", config, reach) else None,
            segment=market.segment,
            marks=market.marks,
            snapshot=content_key(features=features_key, labels=labels_key, session=config.session),
        )

    def build_model(self, config: ScalperConfig, feature_names: tuple[str, ...]) -> nn.Module:
        return ScalperModel(config, len(feature_names))

    def statistics(self, config: ScalperConfig, targets_train: NDArray[np.float32]) -> ScalperConfig:
        """Return the config with class counts and scales of the training rows (LOSS-10, DATA-25)."""
        counts = np.bincount(targets_train[:, DIRECTION].astype(np.int64), minlength=len(CLASSES))
        scales = targets_train[:, MOVE].std(dtype=np.float64), targets_train[:, VOLATILITY].mean(dtype=np.float64)
        return config.model_copy(
            update={
                "class_counts": tuple(int(n) for n in counts),
                "move_scale_ticks": float(scales[0]) or None,
                "volatility_scale_ticks": float(scales[1]) or None,
            }
        )

    def draws(self, config: ScalperConfig, targets_train: NDArray[np.float32]) -> NDArray[np.int64] | slice:
        """Return all rows; with oversampling, rows of rare classes again until all classes are as many."""
        rows = np.arange(len(targets_train))
        if config.imbalance != "oversample" or config.approach not in ("classification", "hybrid"):
            return rows
        direction = targets_train[rows, DIRECTION]
        of_class = [rows[direction == c] for c in range(len(CLASSES))]
        most = max(map(len, of_class))
        return np.sort(np.concatenate([np.resize(each, most) for each in of_class if len(each)]))

    def loss(self, config: ScalperConfig, outputs: Outputs, batch: Batch) -> Tensor:
        return training_loss(config, outputs, batch.targets)

    def reference_loss(self, config: ScalperConfig, outputs: Outputs, batch: Batch) -> Tensor:
        return reference_loss(config, outputs, batch.targets)

    def score(self, config: ScalperConfig, outputs: Outputs, targets: Tensor) -> Score:
        """Score class probabilities: cross-entropy, ranked probability score, accuracies beside constants (C-33).

        The pair of the information coefficient is the predicted and the realised move in ticks.
        """
        said, actual = predictions(config, outputs), targets.numpy()
        p_n3 = class_probabilities(config, outputs).numpy()
        move = actual[:, MOVE]
        columns = {f"p_{name}": p for name, p in zip(CLASSES, p_n3.T, strict=True)}
        columns |= {"confidence": said.confidence}
        direction = actual[:, DIRECTION]
        has_volatility, horizon = "volatility" in outputs, f"{config.horizon_s}s"
        if "exit" in outputs:
            columns |= {"p_exit_long": said.exit_long, "p_exit_short": said.exit_short}
        return Score(
            loss=reference_loss(config, outputs, targets).numpy(),
            crps=ranked_probability_score(p_n3, actual[:, DIRECTION]).astype(np.float32),
            forecasts={horizon: (said.predicted_move, move)},
            scales={horizon: said.volatility} if has_volatility else {},
            columns=columns,
            outcomes={"direction": direction, **_naive(config, direction.astype(np.int64))},
            metrics=_metrics(config, said, actual, outputs),
        )

    def export(self, folder: Path) -> None:
        export(folder)


FAMILY = ScalperFamily()


def label_settings(config: ScalperConfig) -> ScalperLabels:
    """Return how the targets of a config are made."""
    return ScalperLabels(
        horizon_s=config.horizon_s,
        band_ticks=float(config.ticks_x),
        tick=config.tick,
        flat_inclusive=config.flat_inclusive,
        take_profit_ticks=float(config.exit_tp_ticks),
        stop_ticks=float(config.exit_sl_ticks),
        cost_ticks=config.cost_ticks,
    )


def regular_hours(market: Market) -> NDArray[np.bool_]:
    """Return which bars start in the regular hours of New York, half days and holidays included (DATA-9)."""
    event = market.event_time
    plan = schedule(DataConfig(session="rth"), int(event[0]), int(event[-1]))
    number = np.searchsorted(plan.open, event, side="right") - 1
    return (number >= 0) & (event < plan.close[np.maximum(number, 0)])


def ranked_probability_score(p_nK: NDArray[np.floating], class_n: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the CRPS of ordered classes one apart, (n,): squared errors of cumulated probabilities (Epstein 1969)."""
    below = np.cumsum(p_nK, axis=1, dtype=np.float64)[:, :-1]
    is_below = class_n[:, None] <= np.arange(p_nK.shape[1] - 1)
    return ((below - is_below) ** 2).sum(axis=1)


def class_shares(config: ScalperConfig) -> NDArray[np.float64]:
    """Return the shares of the classes among the training rows, (3,), with one more row in each: a naive forecast."""
    counts = np.array(config.class_counts or (1, 1, 1), dtype=np.float64) + 1.0
    return counts / counts.sum()


def prior_loss(config: ScalperConfig, direction: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy in nats of a forecast that says the class shares of the training rows."""
    return float(-np.log(class_shares(config))[direction].mean())


def _naive(config: ScalperConfig, direction: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Return the scores of a forecast that says the class shares of the training rows (ANALYSIS-4)."""
    shares = class_shares(config)
    score = ranked_probability_score(np.broadcast_to(shares, (len(direction), len(shares))), direction)
    return {
        "baseline_loss": (-np.log(shares)[direction]).astype(np.float32),
        "baseline_crps": score.astype(np.float32),
    }


def _metrics(
    config: ScalperConfig, said: Predictions, actual: NDArray[np.float32], outputs: Outputs
) -> dict[str, float]:
    """Return accuracies and what a constant reaches, class counts, and what following the direction earns net.

    `directional_accuracy` counts rows whose class is not flat (ACC-1); `net_ticks` is the mean over all rows of the
    move in the predicted direction less the cost, 0 where that is flat; moves of neighbouring rows overlap.
    """
    direction, move = actual[:, DIRECTION].astype(np.int64), actual[:, MOVE]
    counts = confusion(direction, said.direction.astype(np.int64) + 1, n_classes=len(CLASSES))
    has_moved = direction != 1
    prior = prior_loss(config, direction)
    loss = float(reference_loss(config, outputs, torch.from_numpy(actual)).double().mean())
    entered = said.direction != 0
    measures = {
        "accuracy": accuracy(counts),
        "majority_rate": majority_rate(counts),
        "balanced_accuracy": balanced_accuracy(counts),
        "directional_accuracy": directional_accuracy(said.predicted_move[has_moved], move[has_moved]),
        "directional_gain": directional_gain(said.predicted_move[has_moved], move[has_moved]),
        "prior_loss": prior,
        "loss_gain": prior - loss,
        "entry_rate": float(entered.mean()),
        "net_ticks": float((said.direction * move - config.cost_ticks * entered).mean()),
    }
    measures |= {f"scored_{name}": float(n) for name, n in zip(CLASSES, counts.sum(axis=1), strict=True)}
    measures |= {f"trained_{name}": float(n) for name, n in zip(CLASSES, config.class_counts or (), strict=False)}
    if "volatility" in outputs:
        measures["mae_volatility_ticks"] = float(np.abs(said.volatility - actual[:, VOLATILITY]).mean())
        usual = config.volatility_scale_ticks or 0.0
        measures["mae_volatility_ticks_of_mean"] = float(np.abs(usual - actual[:, VOLATILITY]).mean())
    if "exit" in outputs:
        leave = actual[:, EXITS] > 0.5
        p_leave = np.stack([said.exit_long, said.exit_short], axis=1)
        measures["exit_accuracy"] = float(((p_leave > 0.5) == leave).mean())
        share = leave.mean(axis=0)
        measures["exit_majority_rate"] = float(np.maximum(share, 1 - share).mean())
    return {name: value for name, value in measures.items() if value is not None}


def _check_classes(config: ScalperConfig, direction: NDArray[np.float32]) -> None:
    """Refuse a task without alternatives, which every model would solve."""
    found = np.unique(direction)
    if len(found) == 1:
        raise DataError(
            f"ticks_x: expected moves of {config.ticks_x} ticks of {config.tick:g} in some of {len(direction)} seconds "
            f"and smaller ones in others, found all {CLASSES[int(found[0])]}; correct tick, ticks_x or horizon_s"
        )


def _values(name: str, config: ScalperConfig, reach: Reach) -> tuple[Any, ...]:
    return (*reach.get(name, ()), getattr(config, name))


def _features(config: ScalperConfig, market: Market, has_higher: bool) -> dict[str, NDArray[Any]]:
    """Return the columns that the config sees, NaN in rows that another trial within reach lacks, and which it has."""
    every, names = compute(SCHEMA, market, SETTINGS)
    needed = [i for i, name in enumerate(names) if has_higher or name not in MES_HIGHER]
    is_known = np.isfinite(every[:, needed]).all(axis=1)
    features = np.ascontiguousarray(every[:, [names.index(name) for name in config.seen_features()]])
    features[~is_known] = np.nan
    return {"features": features, "is_known": is_known}


def _labels(market: Market, settings: ScalperLabels, horizons: list[int]) -> dict[str, NDArray[Any]]:
    """Return targets and label ends, and the rows that have a label of every horizon within reach."""
    targets, _, label_end = scalper_labels(market, settings)
    is_labelled = label_end != NO_LABEL
    for horizon_s in horizons:
        is_labelled &= label_window(market, horizon_s)[2]
    return {"targets": targets, "label_end": label_end, "is_labelled": is_labelled}
