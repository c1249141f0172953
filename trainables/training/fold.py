"""One fold of one trial: scaled rows, a fresh model in its engine, and the place in the plan of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.config import FamilyConfig
from trainables.data.dataset import Dataset
from trainables.data.folds import FoldRows, thinned
from trainables.features.normalisers import Normaliser, fit_normaliser, instance_normalise
from trainables.protocol import TrialDiverged
from trainables.training.batches import StepPlan, Windows
from trainables.training.checkpoint import Checkpoint
from trainables.training.early_stopping import EarlyStopping, hold_out
from trainables.training.engine import open_engine
from trainables.training.evaluation import (
    flatness_rows,
    latency_ms,
    sample_rows,
    score_metrics,
    score_rows,
    training_metrics,
)
from trainables.training.family import Family, Score
from trainables.training.loop import HeadLosses, OnStep, train_steps
from trainables.training.options import RunOptions
from trainables.training.randomness import derive_seed, random_state, restore_random_state, seed_all, undisturbed
from trainables.training.schedule import effective_warmup
from trainables.training.stability import Stability
from trainables.training.workers import ALONE, Workers, gather_states, own_state


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
        workers: Workers = ALONE,
        on_step: OnStep | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Scale the rows, seed every generator from (seed, fold), and build the model (WF-5, REPRO-1).

        Processes that train together begin with the same weights and draw different numbers from then on.

        Args:
            family: Builds and scores the model.
            config: Of the family.
            dataset: Features, targets, label ends.
            rows: Of the fold.
            fold: Its number.
            seed: Of the trial.
            options: How to run.
            device: Where.
            workers: The processes that train together.
            on_step: Called after every optimiser step.
            weights: Weights to begin with; None: the model's own initial ones. The optimiser begins afresh.

        Raises:
            ValueError: The weights are of another shape.
        """
        self.fold = fold
        self.step = 0
        rows, held_out = hold_out(config, dataset, rows)
        self.config = config = family.statistics(config, np.asarray(dataset.targets[rows.train]))
        self._family, self._config, self._options, self._device = family, config, options, device
        self._workers, self._on_step = workers, on_step
        self.normaliser = fit_on_training_rows(config, dataset, rows)
        self._windows, first = _scaled_windows(config, dataset, rows, held_out, self.normaliser, device)
        rows = thinned_rows(rows, config)
        targets = np.asarray(dataset.targets[rows.train])
        self._train, self._validation = rows.train - first, rows.validation - first
        self._held_out = held_out - first
        self._stopping = None if config.patience is None else EarlyStopping(patience=config.patience)
        self.scored_time = dataset.known_time[rows.validation]
        fold_seed = derive_seed(seed, fold)
        self.plan = StepPlan(
            self._train[family.draws(config, targets)],
            batch_size=config.batch_size,
            accum_steps=config.accum_steps,
            epochs=config.epochs,
            seed=fold_seed,
            run_length=config.consecutive_rows,
            split=options.split,
            workers=workers,
        )
        self._limit_warmup(family.warmup_rows(config, dataset, rows.train), first, fold_seed)
        seed_all(fold_seed)
        self._judge = family.build_model(config, dataset.feature_names).to(device).eval()
        seed_all(fold_seed)
        model = family.build_model(config, dataset.feature_names)
        if weights is not None:
            _begin_with(model, weights, fold)
        self._heads = HeadLosses(family, config) if options.curves else None
        loss = self._heads or partial(family.loss, config)
        self._engine = open_engine(options.engine, model, loss, config, device, split=options.split, workers=workers)
        if not workers.is_first:
            seed_all(derive_seed(fold_seed, workers.rank))
        self._stability = Stability()

    def _limit_warmup(self, rows: NDArray[np.int64] | None, first: int, seed: int) -> None:
        """Let the steps of learning-rate warm-up train on these rows only (TRAIN-2); None: on all."""
        if rows is None:
            return
        n_steps = effective_warmup(self._config.warmup_steps, self.plan.n_steps)
        easy = StepPlan(
            rows - first,
            batch_size=self._config.batch_size,
            accum_steps=self._config.accum_steps,
            epochs=1,
            seed=derive_seed(seed, 1),
            split=self._options.split,
            workers=self._workers,
        )
        self.plan.begin_with(easy, n_steps)

    def train_to(self, share: float) -> dict[str, float]:
        """Train until `share` of the fold's steps is done; return the mean objective of the steps now taken.

        With early stopping the loss of the held-out rows is heard after every epoch; once it is over, the steps that
        are left are skipped (TRAIN-3).
        """
        target, total, n_steps = round(share * self.plan.n_steps), 0.0, 0
        while self.step < target:
            if self._stopping is not None and self._stopping.is_over:
                self.step = target
                break
            end = target if self._stopping is None else min(target, self._epoch_end())
            objective = self._train_steps(range(self.step, end))
            if objective is not None:
                total, n_steps = total + objective * (end - self.step), n_steps + end - self.step
            self.step = end
            if self._stopping is not None and self.step % self.plan.steps_per_epoch == 0:
                self._stopping.hear(self._held_out_loss(), self._engine.weights())
        return {"train_objective": total / n_steps} if n_steps else {}

    def _epoch_end(self) -> int:
        return (self.step // self.plan.steps_per_epoch + 1) * self.plan.steps_per_epoch

    def _train_steps(self, steps: range) -> float | None:
        return train_steps(
            self._engine,
            self._windows,
            self.plan,
            self._config,
            steps=steps,
            stability=self._stability,
            fold=self.fold,
            limits=self._options,
            on_step=self._on_step,
            heads=self._heads,
        )

    def _held_out_loss(self) -> float:
        """Return the mean reference loss of the held-out rows with the present weights."""
        self._judge.load_state_dict(self._engine.weights())
        with undisturbed(self._device):
            score = score_rows(
                self._family, self._config, self._judge, self._windows, self._held_out, self._device, self._batch_size
            )
        return float(np.mean(score.loss, dtype=np.float64))

    def assess(self) -> Assessment:
        """Score the validation rows and measure curvature on training rows, without disturbing the random generators.

        A separate float32 model is scored, so that neither ZeRO's partitions nor half-precision weights are in the way.

        Raises:
            TrialDiverged: The validation loss is not finite.
        """
        judge = self.judge()
        with undisturbed(self._device):
            score = score_rows(
                self._family, self._config, judge, self._windows, self._validation, self._device, self._batch_size
            )
            metrics = score_metrics(score)
            if not np.isfinite(metrics["val_loss"]):
                raise TrialDiverged(
                    f"fold {self.fold}, step {self.step}: validation loss is {metrics['val_loss']}; "
                    "lower lr, or look at the inputs"
                )
            is_complete = self.step >= self.plan.n_steps
            if is_complete:
                metrics["latency_ms"] = latency_ms(judge, self._windows, self._validation[-1:], self._device)
            has_curvature = is_complete and self._config.has_curvature
            n_asked = flatness_rows(len(self._train), self._options)
            curvature = training_metrics(
                self._family,
                self._config,
                judge,
                self._windows,
                sample_rows(self._train, min(n_asked, self._config.measured_rows or n_asked), self.fold),
                flatness_steps=self._options.flatness_steps if has_curvature else 0,
            )
        telemetry = {**self._stability.metrics(), "micro_batches": float(self.plan.n_micro_batches)}
        telemetry |= {} if self._stopping is None else self._stopping.metrics()
        return Assessment(metrics={**metrics, **curvature, **telemetry}, score=score)

    def judge(self) -> nn.Module:
        """Return the evaluation model with the engine's present weights, or the best ones of early stopping so far."""
        best = {} if self._stopping is None else self._stopping.best
        self._judge.load_state_dict(best or self._engine.weights())
        return self._judge

    def capture(self) -> dict[str, Any]:
        """Return the fields of a `Checkpoint` that say where this fold stands.

        Where the fold is complete its weights are those that were assessed.
        """
        engine, stopping = self._engine.state(), self._stopping
        if stopping is not None and stopping.best and self.step >= self.plan.n_steps:
            engine = replace(engine, weights=stopping.best)
        return {
            "step": self.step,
            "engine": engine,
            "random": gather_states(self._workers, random_state(self._device)),
            "stability": self._stability.to_json(),
            "split": self._options.split,
            "stopping": {} if stopping is None else stopping.to_json(),
            "best": {} if stopping is None else stopping.best,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this fold, bit for bit (TRAIN-15)."""
        self._engine.load(checkpoint.engine)
        self._stability = Stability.from_json(checkpoint.stability)
        if self._stopping is not None:
            self._stopping.restore(checkpoint.stopping, checkpoint.best)
        self.step = checkpoint.step
        restore_random_state(own_state(self._workers, checkpoint.random), self._device)

    @property
    def _batch_size(self) -> int:
        """Windows that are scored at a time: as many as a micro-batch of training has."""
        return max(1, self._config.batch_size // self._options.split)

    def close(self) -> None:
        self._engine.close()


def thinned_rows(rows: FoldRows, config: FamilyConfig) -> FoldRows:
    """Return the rows that are trained on and scored, by the strides of the config (DATA-5)."""
    return FoldRows(
        train=thinned(rows.train, config.training_stride), validation=rows.validation[:: config.scoring_stride]
    )


def _begin_with(model: nn.Module, weights: Mapping[str, Tensor], fold: int) -> None:
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(
            f"fold {fold}: expected inherited weights of this model's shapes, found others; "
            f"a child may differ from its parent in how it is trained only ({' '.join(str(error).split())[:120]})"
        ) from error


def fit_on_training_rows(config: FamilyConfig, dataset: Dataset, rows: FoldRows) -> Normaliser:
    """Fit the config's scaling on the training rows alone (WF-5, NORM-6).

    `norm_scope: global_documented` takes every row of the data set instead, which leaks (C-5); the run is marked.
    """
    is_leaky = config.norm_scope == "global_documented"
    sample = dataset.features if is_leaky else dataset.features[rows.train]
    normaliser = fit_normaliser(
        config.normalizer, sample, dataset.feature_names, config.clip_value, config.price_normalizer
    )
    if not config.unscaled_columns:
        return normaliser
    return replace(normaliser, exempt=normaliser.exempt | np.isin(dataset.feature_names, config.unscaled_columns))


def _scaled_windows(
    config: Any,
    dataset: Dataset,
    rows: FoldRows,
    held_out: NDArray[np.int64],
    normaliser: Normaliser,
    device: torch.device,
) -> tuple[Windows, int]:
    """Scale the rows that the fold can touch, once; return them and the position of the first."""
    first = int(min(rows.train[0], rows.validation[0])) - config.lookback + 1
    used: slice = slice(first, int(max(part[-1] for part in (rows.train, rows.validation, held_out) if len(part))) + 1)
    normalise = None
    if config.normalizer == "instance":
        normalise = partial(instance_normalise, names=dataset.feature_names, clip=config.clip_value)
    features: NDArray[np.float32] = normaliser.apply(dataset.features[used])
    targets = np.array(dataset.targets[used], dtype=np.float32)
    windows = Windows(features, targets, lookback=config.lookback, device=device, normalise=normalise)
    return windows, first
