"""The files that the scalper document names, beside those of `trainables.training.artifact` (ART-1).

Below the folder of a trained model: `models/scalper_v1.pt` the weights, `scalper_v1_config.json` the config with the
statistics of the last fold and the names of the features, `feature_scaler.json` the scaling, `feature_scaler.pkl` the
same as a pickled dictionary of plain values, and `training_metrics.json`, which `artifact` wrote. Nothing here reads
the pickled scaling; the weights are read as tensors only.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch

from trainables.durable import write_durably, write_json
from trainables.features.normalisers import Normaliser
from trainables.scalper.config import ScalperConfig
from trainables.scalper.model import ScalperModel
from trainables.training.artifact import TrainedModel, load_model

WEIGHTS, CONFIG = "models/scalper_v1.pt", "scalper_v1_config.json"
SCALER, PICKLED_SCALER = "feature_scaler.json", "feature_scaler.pkl"


def export(folder: Path) -> None:
    """Write the files beside the trained model in `folder`, each whole or not at all.

    Raises:
        FileNotFoundError: The folder holds no finished model.
    """
    trained = load_model(folder)
    scaler = json.loads(trained.normaliser.to_json())
    write_durably(folder / WEIGHTS, lambda temporary: torch.save(trained.model.state_dict(), temporary))
    config = {"config": trained.config.model_dump(mode="json"), "feature_names": list(trained.feature_names)}
    write_json(folder / CONFIG, config)
    write_durably(folder / PICKLED_SCALER, lambda temporary: temporary.write_bytes(pickle.dumps(scaler)))
    write_json(folder / SCALER, scaler)


def load(folder: Path) -> TrainedModel:
    """Rebuild the model from the files that `export` wrote, the pickle left alone.

    Raises:
        FileNotFoundError: A file is missing.
        pickle.UnpicklingError: The weights hold something other than tensors.
    """
    described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config = ScalperConfig.model_validate_json(json.dumps(described["config"]))
    names = tuple(described["feature_names"])
    model = ScalperModel(config, len(names))
    model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    return TrainedModel(
        model=model.eval(),
        config=config,
        feature_names=names,
        normaliser=Normaliser.from_json((folder / SCALER).read_text(encoding="utf-8")),
        description=described,
    )
