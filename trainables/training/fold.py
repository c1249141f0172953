"""One fold of one trial: scaled rows, a fresh model in its engine, and the place in the plan of steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainables.config import FamilyConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldRows
from trainables.features.normalisers import Normaliser, fit_normaliser, instance_normalise
from trainables.protocol import TrialDiverged
from trainables.training.batches import StepPlan, Windows
from trainables.training.checkpoint import Checkpoint
from trainables.training.engine import open_engine
from trainables.training.evaluation import flatness_rows, sample_rows, score_metrics, score_rows, training_metrics
from trainables.training.family import Family, Score
from trainables.training.loop import train_steps
from trainables.training.options import RunOptions
from trainables.training.randomness import derive_seed, random_state, restore_random_state, seed_all, undisturbed
from trainables.training.stability import Stability


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Metrics of a fold at a rung, and the score that they come from."""

    metrics: dict[str, float]
    score: Score


class FoldTraining:
    """Trains and assesses one fold. Whoever makes it closes it."""

    def __init__(
        self,
        family: Family,
        config: Any,
        dataset: Dataset,
        rows: FoldRows,
        *,
        fold: int,
        seed: int,
        options: RunOptions,
        device: torch.device,
    ) -> None:
        """Scale the rows, seed every generator from (seed, fold), and build the model (WF-5, REPRO-1)."""
        self.fold = fold
        self.step = 0
        self._family, self._config, self._options, self._device = family, config, options, device
        self.normaliser = fit_on_training_rows(config, dataset, rows)
        self._windows, first = _scaled_windows(config, dataset, rows, self.normaliser, device)
        self._train, self._validation = rows.train - first, rows.validation - first
        self.scored_time = dataset.known_time[rows.validation]
        fold_seed = derive_seed(seed, fold)
        self.plan = StepPlan(
            self._train,
            batch_size=config.batch_size,
            accum_steps=config.accum_steps,
            epochs=config.epochs,
            seed=fold_seed,
            run_length=config.consecutive_rows,
        )
        seed_all(fold_seed)
        self._judge = family.build_model(config, dataset.feature_names).to(device).eval()
        seed_all(fold_seed)
        model = family.build_model(config, dataset.feature_names)
        self._engine = open_engine(options.engine, model, partial(family.loss, config), config, device)
        self._stability = Stability()

    def train_to(self, share: float) -> dict[str, float]:
        """Train until `share` of the fold's steps is done; return the mean objective of the steps now taken."""
        target = round(share * self.plan.n_steps)
        objective = train_steps(
            self._engine,
            self._windows,
            self.plan,
            self._config,
            steps=range(self.step, target),
            stability=self._stability,
            fold=self.fold,
            limits=self._options,
        )
        self.step = max(self.step, target)
        return {} if objective is None else {"train_objective": objective}

    def assess(self) -> Assessment:
        """Score the validation rows and measure curvature on training rows, without disturbing the random generators.

        A separate float32 model is scored, so that neither ZeRO's partitions nor half-precision weights are in the way.

        Raises:
            TrialDiverged: The validation loss is not finite.
        """
        judge = self.judge()
        with undisturbed(self._device):
            score = score_rows(self._family, self._config, judge, self._windows, self._validation, self._device)
            metrics = score_metrics(score)
            if not np.isfinite(metrics["val_loss"]):
                raise TrialDiverged(
                    f"fold {self.fold}, step {self.step}: validation loss is {metrics['val_loss']}; "
                    "lower lr, or look at the inputs"
                )
            is_complete = self.step >= self.plan.n_steps
            curvature = training_metrics(
                self._family,
                self._config,
                judge,
                self._windows,
                sample_rows(self._train, flatness_rows(len(self._train), self._options), self.fold),
                flatness_steps=self._options.flatness_steps if is_complete else 0,
            )
        return Assessment(metrics={**metrics, **curvature, **self._stability.metrics()}, score=score)

    def judge(self) -> nn.Module:
        """Return the evaluation model with the engine's present weights."""
        self._judge.load_state_dict(self._engine.weights())
        return self._judge

    def capture(self) -> dict[str, Any]:
        """Return the fields of a `Checkpoint` that say where this fold stands."""
        return {
            "step": self.step,
            "engine": self._engine.state(),
            "random": random_state(self._device),
            "stability": self._stability.to_json(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this fold, bit for bit (TRAIN-15)."""
        self._engine.load(checkpoint.engine)
        self._stability = Stability.from_json(checkpoint.stability)
        self.step = checkpoint.step
        restore_random_state(checkpoint.random, self._device)

    def close(self) -> None:
        self._engine.close()


def fit_on_training_rows(config: FamilyConfig, dataset: Dataset, rows: FoldRows) -> Normaliser:
    """Fit the config's scaling on the training rows alone (WF-5, NORM-6).

    `norm_scope: global_documented` takes every row of the data set instead, which leaks (C-5); the run is marked.
    """
    is_leaky = config.norm_scope == "global_documented"
    sample = dataset.features if is_leaky else dataset.features[rows.train]
    return fit_normaliser(config.normalizer, sample, dataset.feature_names, config.clip_value)


def _scaled_windows(
    config: Any, dataset: Dataset, rows: FoldRows, normaliser: Normaliser, device: torch.device
) -> tuple[Windows, int]:
    """Scale the rows that the fold can touch, once; return them and the position of the first."""
    first = int(min(rows.train[0], rows.validation[0])) - config.lookback + 1
    used: slice = slice(first, int(max(rows.train[-1], rows.validation[-1])) + 1)
    normalise = None
    if config.normalizer == "instance":
        normalise = partial(instance_normalise, names=dataset.feature_names, clip=config.clip_value)
    features: NDArray[np.float32] = normaliser.apply(dataset.features[used])
    targets = np.array(dataset.targets[used], dtype=np.float32)
    windows = Windows(features, targets, lookback=config.lookback, device=device, normalise=normalise)
    return windows, first
