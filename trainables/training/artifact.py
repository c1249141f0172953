"""The trained model as files: weights in safetensors, everything else as JSON. Reloads to the same outputs (ART-3)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor, nn

from trainables import catalogue
from trainables.durable import write_durably, write_json
from trainables.features.normalisers import Normaliser
from trainables.protocol import RungReport

WEIGHTS, DESCRIPTION, METRICS = "model.safetensors", "model.json", "training_metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A reloaded model.

    Attributes:
        model: In evaluation mode, on the CPU.
        config: The family's config.
        feature_names: Columns that it expects, in order.
        normaliser: Scaling of the rows, fitted on the training rows of the last fold.
        description: All of `model.json`.
    """

    model: nn.Module
    config: Any
    feature_names: tuple[str, ...]
    normaliser: Normaliser
    description: Mapping[str, Any]


def save_model(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    family: str,
    config: Mapping[str, Any],
    normaliser: Normaliser,
    about: Mapping[str, Any],
) -> None:
    """Write `model.safetensors`, then `model.json`, each whole or not at all.

    Args:
        folder: Where; made where it does not exist.
        weights: Parameters and buffers by name.
        family: Key of the catalogue.
        config: The config as JSON values.
        normaliser: What scales the model's rows.
        about: Further facts: seed, marks, fold, data section. JSON values.
    """
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    write_durably(folder / WEIGHTS, lambda temporary: safetensors.torch.save_file(tensors, temporary))
    description = {
        "family": family,
        "config": dict(config),
        "feature_names": list(normaliser.names),
        "normaliser": json.loads(normaliser.to_json()),
        **about,
    }
    write_json(folder / DESCRIPTION, description)


def rename_model(folder: Path, trial_id: str) -> None:
    """Say whose model this is, after its files were linked here from another trial of equal content."""
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    write_json(folder / DESCRIPTION, {**described, "trial_id": trial_id})


def load_model(folder: Path) -> TrainedModel:
    """Rebuild a model from its files.

    Raises:
        FileNotFoundError: The folder holds no finished model.
    """
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    config = catalogue.config_class(description["family"]).model_validate_json(json.dumps(description["config"]))
    feature_names = tuple(description["feature_names"])
    model = catalogue.family(description["family"]).build_model(config, feature_names)
    model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    return TrainedModel(
        model=model.eval(),
        config=config,
        feature_names=feature_names,
        normaliser=Normaliser.from_json(json.dumps(description["normaliser"])),
        description=description,
    )


def save_training_metrics(folder: Path, reports: Sequence[RungReport]) -> None:
    """Write the metrics of complete folds and their mean, standard deviation and extremes over folds (WF-6)."""
    names = sorted({name for report in reports for name in report.metrics})
    aggregates = {}
    for name in names:
        values = [report.metrics[name] for report in reports if name in report.metrics]
        aggregates[name] = {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "min": min(values),
            "max": max(values),
            "n_folds": len(values),
        }
    write_json(folder / METRICS, {"folds": [asdict(report) for report in reports], "aggregates": aggregates})


def load_training_metrics(folder: Path) -> list[RungReport]:
    """Return the reports of complete folds that `save_training_metrics` wrote."""
    stored = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return [RungReport(**report) for report in stored["folds"]]
