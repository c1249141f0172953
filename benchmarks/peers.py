"""Optuna's own samplers as their users run them: one study, one sampler object, the space without its conditions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler

SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "optuna_gp": lambda seed: GPSampler(seed=seed),
    "optuna_tpe": lambda seed: TPESampler(seed=seed),
    "optuna_cma_es": lambda seed: CmaEsSampler(seed=seed, with_margin=True, warn_independent_sampling=False),
    "optuna_nsga2": lambda seed: NSGAIISampler(seed=seed),
}


def suggested(trial: optuna.Trial, task: Any) -> dict[str, Any]:
    """Return a value for every parameter of a task."""
    config: dict[str, Any] = {}
    for name, kind, *rest in task.space:
        if kind == "cat":
            config[name] = trial.suggest_categorical(name, rest[0])
        elif kind == "int":
            config[name] = trial.suggest_int(name, int(rest[0]), int(rest[1]), log=bool(rest[2]))
        else:
            config[name] = trial.suggest_float(name, float(rest[0]), float(rest[1]), log=bool(rest[2]))
    return config


def search_alone(name: str, task: Any, n_trials: int, seed: int) -> tuple[list[float], float]:
    """Return the best value after each trial, one at a time, and CPU seconds of the sampler."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=SAMPLERS[name](seed))
    best, curve, seconds = float("inf"), [], 0.0
    for _ in range(n_trials):
        start = time.process_time()
        trial = study.ask()
        config = suggested(trial, task)
        seconds += time.process_time() - start
        value = float(task.eval(config))
        start = time.process_time()
        study.tell(trial, value)
        seconds += time.process_time() - start
        best = min(best, value)
        curve.append(best)
    return curve, seconds
