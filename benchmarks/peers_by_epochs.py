"""DEHB and SMAC's Hyperband as their users run them, asked and told, where a trial may be trained for a part only.

They say for how many epochs, and keep one in three at each of four rungs; `peers_ask_tell.py` says what to install.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers_ask_tell import configuration_space, require
from benchmarks.search_quality import space_of

Turns = Generator[tuple[dict[str, Any], int], float | None, None]
"""A search as a dialogue: yields a config with its epochs and is sent the value after them."""
ETA = 3


def least_epochs(task: Any) -> float:
    """Return the first rung: of 52 epochs a little under 2, from which both peers step to 5.8, 17.3 and 52."""
    return float(task.max_fid / ETA**3.001)


def dehb(task: Any, budget: float, seed: int) -> Turns:
    """Run DEHB on the unit cube."""
    from dehb import DEHB
    from loguru import logger

    space = space_of(task, conditional=False)
    with TemporaryDirectory() as folder:
        optimizer = DEHB(
            dimensions=len(space.free),
            min_fidelity=least_epochs(task),
            max_fidelity=task.max_fid,
            eta=ETA,
            n_workers=1,
            seed=seed,
            save_freq="end",
            output_path=folder,
        )
        logger.remove()
        while True:
            job = optimizer.ask()
            value = yield space.decode(job["config"]), round(job["fidelity"])
            optimizer.tell(job, {"fitness": value, "cost": job["fidelity"]})


def smac_multifidelity(task: Any, budget: float, seed: int) -> Turns:
    """Run SMAC's facade for several fidelities: Hyperband, and a random forest where it would draw at random.

    SMAC takes a quarter of its trials at random first; a budget of full trainings is about five times as many trials.
    """
    from smac import MultiFidelityFacade, Scenario
    from smac.runhistory.dataclasses import TrialValue

    with TemporaryDirectory() as folder:
        scenario = Scenario(
            configuration_space(task, seed),
            deterministic=True,
            n_trials=round(5 * budget),
            min_budget=least_epochs(task),
            max_budget=task.max_fid,
            seed=seed,
            output_directory=folder,
        )
        facade = MultiFidelityFacade(scenario, logging_level=False, overwrite=True)
        while True:
            trial = facade.ask()
            value = yield dict(trial.config), round(trial.budget)
            facade.tell(trial, TrialValue(cost=value), save=False)


PEERS: Mapping[str, Callable[[Any, float, int], Turns]] = {"dehb": dehb, "smac_multifidelity": smac_multifidelity}


def search_by_turns(name: str, task: Any, budget: float, seed: int) -> tuple[list[tuple[float, float]], float]:
    """Return (full trainings spent, best value of a full training) after each of these, and CPU seconds a decision.

    A config that was trained before pays what it adds.
    """
    require(name)
    turns = PEERS[name](task, budget, seed)
    trained: dict[frozenset[tuple[str, Any]], int] = {}
    spent, best, curve, n_decisions, value = 0.0, float("inf"), [], 0, None
    start = time.process_time()
    while spent < budget:
        with redirect_stdout(sys.stderr):
            config, epochs = turns.send(value)
        n_decisions += 1
        before = trained.get(frozenset(config.items()), 0)
        trained[frozenset(config.items())] = max(epochs, before)
        spent += max(epochs - before, 0) / task.max_fid
        value = float(task.eval(config, epochs))
        if epochs == task.max_fid:
            best = min(best, value)
            curve.append((spent, best))
    turns.close()
    return curve, (time.process_time() - start) / n_decisions
