"""Score raw bars with trained models: `python -m trainables.serve MODEL BARS`, and what MLflow loads as a `pyfunc`.

A model is the folder that a trial leaves (`checkpoints/<trial>`), or a folder of such folders: then it is the average
of its members. Bars are what a space file calls `data.bars`; the rest of the data section is that of the training.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from trainables import catalogue
from trainables.data.config import DataConfig, Unfolded
from trainables.data.dataset import Dataset
from trainables.data.windows import history_length
from trainables.errors import DataError
from trainables.features.normalisers import instance_normalise
from trainables.training.artifact import DESCRIPTION, TrainedModel, load_model
from trainables.training.batches import Windows
from trainables.training.evaluation import score_rows

NOT_OF_THE_FILE = ("synthetic", "start", "end", "bar_seconds")
"""Fields of the data section that speak of the training's own source."""


@dataclass(frozen=True, slots=True)
class BarScorer:
    """One model, or several of one family whose predictions are averaged."""

    members: tuple[TrainedModel, ...]

    def predict(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return what the models say at every bar for which they know enough.

        Args:
            bars: Columns timestamp (with a zone, or naive UTC), open, high, low, close, volume; in time order, as many
                before the first row of interest as features and window need.

        Returns:
            `timestamp`, the moment from which the prediction can be known (UTC), and the columns of the evidence that
            the model says: `prediction_<horizon>`, `scale_<horizon>`, probabilities, quantiles. Empty where history is
            too short.

        Raises:
            DataError: The bars cannot be used, or the model needs data besides bars.
        """
        with tempfile.TemporaryDirectory(prefix="bars-") as folder:
            path = Path(folder) / "bars.parquet"
            bars.reset_index(drop=True).to_parquet(path)
            is_naive = getattr(bars["timestamp"].dtype, "tz", None) is None
            said = [self._said(member, path, is_naive) for member in self.members]
        merged = pd.concat(said).groupby("timestamp", sort=True)
        complete = merged.size() == len(self.members)
        return merged.mean()[complete].reset_index()

    @staticmethod
    def _said(member: TrainedModel, path: Path, is_naive: bool) -> pd.DataFrame:
        config, family = member.config, catalogue.family(member.description["family"])
        data = _data(member.description["data"], path, is_naive)
        dataset: Dataset = family.dataset(config, data, Unfolded(), {}, path.parent / "store")
        if dataset.feature_names != member.feature_names:
            expected, found = (", ".join(names) for names in (member.feature_names, dataset.feature_names))
            raise DataError(f"bars: expected the features {expected}, found {found}")
        rows = np.flatnonzero(history_length(dataset) >= config.lookback)
        if dataset.scored is not None:
            rows = rows[dataset.scored[rows]]
        columns: dict[str, Any] = {"timestamp": pd.to_datetime(dataset.known_time[rows], utc=True)}
        if len(rows):
            columns |= _predictions(family, member, dataset, rows)
        return pd.DataFrame(columns)


def load(path: Path) -> BarScorer:
    """Return the model of a folder.

    Raises:
        FileNotFoundError: There is no trained model in it.
    """
    folders = [path] if (path / DESCRIPTION).is_file() else sorted(p.parent for p in path.glob(f"*/{DESCRIPTION}"))
    if not folders:
        raise FileNotFoundError(
            f"{path}: expected {DESCRIPTION} of a trained model, or folders with one, found none; "
            "give the folder checkpoints/TRIAL of a run"
        )
    return BarScorer(tuple(load_model(folder) for folder in folders))


def _load_pyfunc(path: str) -> BarScorer:
    """Return the model of a folder: what MLflow calls on a model that was saved with this module as its loader."""
    return load(Path(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0 done, 2 wrong input, 3 unusable data."""
    parser = argparse.ArgumentParser(prog="python -m trainables.serve", description="Score bars with a trained model.")
    parser.add_argument("model", type=Path, help="folder of a trained model, such as runs/mine/checkpoints/t0007")
    parser.add_argument("bars", type=Path, help="Parquet file: timestamp, open, high, low, close, volume")
    parser.add_argument("--out", type=Path, help="Parquet file to write; default: print the newest rows")
    given = parser.parse_args(arguments)
    try:
        said = load(given.model).predict(pd.read_parquet(given.bars))
    except DataError as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError, KeyError) as error:
        print(f"serve: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if given.out:
        said.to_parquet(given.out)
        print(given.out)
    else:
        print(said.tail(10).to_string(index=False))
    return 0


def _data(section: dict[str, Any], path: Path, is_naive: bool) -> DataConfig:
    """Return the data section of the training with these bars in the place of its source."""
    kept = {name: value for name, value in section.items() if name not in NOT_OF_THE_FILE and value is not None}
    zone = {"timezone": "UTC"} if is_naive else {}
    return DataConfig.model_validate_json(json.dumps({**kept, "source": "files", "bars": str(path), **zone}))


def _predictions(
    family: Any, member: TrainedModel, dataset: Dataset, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float32]]:
    """Score the rows as validation rows are scored; what happened after them is not known, and not looked at."""
    config = member.config
    normalise = None
    if config.normalizer == "instance":
        normalise = partial(instance_normalise, names=dataset.feature_names, clip=config.clip_value)
    unknown = np.zeros(dataset.targets.shape, dtype=np.float32)
    windows = Windows(
        member.normaliser.apply(np.asarray(dataset.features)),
        unknown,
        lookback=config.lookback,
        device=torch.device("cpu"),
        normalise=normalise,
    )
    score = score_rows(family, config, member.model, windows, rows, torch.device("cpu"))
    return score.predictions()


if __name__ == "__main__":
    sys.exit(main())
