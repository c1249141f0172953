"""What users write today, as a peer of `racing.py`: Ray Tune, OptunaSearch and ASHA in one script, on the same tables.

A class trainable reports the mean loss over its folds so far; OptunaSearch (TPE) proposes from a space with conditions,
ASHAScheduler compares after 1, 3 and 9 folds: a grace period of one fold, and one in three goes on. Workers are real
processes, eight at a time: they begin together, and a fold sleeps by its seconds in the table. The order of results, so
the search too, differs a little from run to run.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from cluster.ray_session import environment, ray_session
from cluster.ray_tune import TUNE_ENVIRONMENT
from cluster.simulated import Table
from search.parameters import Choice, Float, Int, Ordered
from search.settings import ResourcesSection
from search.space import Space
from search.trial import Config

SECONDS = 0.1
"""Real seconds that a fold of one virtual second takes."""
Report = tuple[Config, int, float, bool]
"""Config, folds so far, mean loss over them, and whether ASHA stopped it there."""


def search(table: Table, seed: int, most_folds: int, n_workers: int) -> list[Report]:
    """Run the script until so many folds are trained; return every report in the order in which they came."""
    with tempfile.TemporaryDirectory() as folder:
        return _searched(table, seed, most_folds, n_workers, folder)


def _searched(table: Table, seed: int, most_folds: int, n_workers: int, folder: str) -> list[Report]:
    reports: list[Report] = []
    n_folds = len(table.ladder)

    class Trainable(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)
            Path(folder, f"worker-{os.getpid()}").touch()
            while len(list(Path(folder).glob("worker-*"))) < n_workers:
                time.sleep(SECONDS / 10)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.own, self.total, self.n = new_config, 0.0, 0
            return True

        def step(self) -> dict[str, Any]:
            report = table.report(self.own, table.ladder[self.n])
            time.sleep(SECONDS * report.seconds)
            self.n += 1
            self.total += report.metrics["val_loss"]
            return {"loss": self.total / self.n, "done": self.n == n_folds}

    class Listen(Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            reports.append((trial.config, result["training_iteration"], result["loss"], False))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            if len(reports) < most_folds:
                at = max(n for n, report in enumerate(reports) if report[0] is trial.config)
                config, n, loss, _ = reports[at]
                reports[at] = config, n, loss, n < n_folds

    class Budget(Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return len(reports) >= most_folds

    _start_ray(n_workers)
    tune.Tuner(
        tune.with_resources(Trainable, {"cpu": 0.1}),
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=most_folds,
            reuse_actors=True,
            max_concurrent_trials=n_workers,
            search_alg=OptunaSearch(DefineByRun(table.space), metric="loss", mode="min", seed=seed),
            scheduler=ASHAScheduler(max_t=n_folds, grace_period=1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(
            storage_path=folder,
            verbose=0,
            callbacks=[Listen()],
            stop=Budget(),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    ).fit()
    return reports[:most_folds]


@cache
def _start_ray(n_workers: int) -> None:
    """Start a private Ray until this process ends: its idle processes serve the next search."""
    stack = ExitStack()
    atexit.register(stack.close)
    stack.enter_context(environment(TUNE_ENVIRONMENT))
    stack.enter_context(ray_session(ResourcesSection(max_concurrent=n_workers, max_failures=0)))


@dataclass(frozen=True)
class DefineByRun:
    """A space as OptunaSearch has it, with conditions: a function that asks a trial for every parameter that exists."""

    space: Space

    def __call__(self, trial: Any) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for name, kind in self.space.parameters.items():
            if not self.space.is_active(name, config):
                continue
            if isinstance(kind, Float):
                config[name] = trial.suggest_float(name, kind.low, kind.high, log=kind.log)
            elif isinstance(kind, Int):
                config[name] = trial.suggest_int(name, kind.low, kind.high, log=kind.log)
            elif isinstance(kind, Choice | Ordered):
                config[name] = trial.suggest_categorical(name, kind.choices)
            else:
                config[name] = kind.value_at(0)
        return {name: value for name, value in config.items() if name not in trial.params}
