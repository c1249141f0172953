"""How good are searches at equal numbers of trained epochs? On learning curves, where a trial may be stopped early.

    python benchmarks/epoch_quality.py --tables FOLDER [--searches a,b] [--seeds 10] [--budget 40]

FOLDER holds `tasks.py` (see search_quality.py). Six LCBench surrogates; a full training is 52 epochs and costs 1, a
trial that goes on pays what it adds. The incumbent is the best value at 52 epochs among trials that were trained so
far; before there is one it is the worst value of the task. `name@3` takes 3 seeds. Prints one line of JSON; regrets as
in search_quality.py. `dehb` and `smac_multifidelity` need the packages that peers_ask_tell.py names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import peers_ask_tell, peers_by_epochs
from benchmarks.peers import suggested
from benchmarks.search_quality import best_known, kept, space_of, summary, tables_of
from cluster.simulated import simulate
from search.study import Study
from search.trial import Config, Observation, Rung

TASKS = tuple(f"lcbench:{task}" for task in (167168, 189873, 189906, 3945, 7593, 126026))
BUDGETS = (2, 5, 10, 20, 40)
N_EPOCHS = 52
RUNGS_OF_OURS = tuple(range(4, N_EPOCHS + 1, 4))
"""Epochs at which our trials report: `rungs_per_fold: 13`."""
RUNGS_OF_PEERS = (2, 6, 18, N_EPOCHS)
"""Epochs at which successive halving with one in three compares."""
Curve = list[tuple[float, float]]
"""Full trainings spent so far, best value at 52 epochs so far."""

OURS: Mapping[str, tuple[str, str]] = {
    "ours": ("evolutionary_bayesian", "predicted"),
    "ours_full": ("evolutionary_bayesian", "none"),
    "tpe_predicted": ("tpe", "predicted"),
}
PEERS: Mapping[str, tuple[Callable[[int], BaseSampler], Callable[[], BasePruner]]] = {
    "random_halving": (lambda seed: RandomSampler(seed), lambda: _halving()),
    "tpe_halving": (lambda seed: TPESampler(seed=seed), lambda: _halving()),
    "tpe_hyperband": (
        lambda seed: TPESampler(seed=seed),
        lambda: HyperbandPruner(min_resource=2, max_resource=N_EPOCHS, reduction_factor=3),
    ),
    "gp_halving": (lambda seed: GPSampler(seed=seed), lambda: _halving()),
    "gp_full": (lambda seed: GPSampler(seed=seed), NopPruner),
    "tpe_full": (lambda seed: TPESampler(seed=seed), NopPruner),
    "random_full": (lambda seed: RandomSampler(seed), NopPruner),
}


def _halving() -> BasePruner:
    return SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)


class EpochTable:
    """A task as a table of `cluster.simulated`: one fold, rungs after some of its epochs.

    Args:
        task: With `space` and `eval`.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self.space = space_of(task, conditional=False)
        self.ladder = tuple(Rung(index=k, fold=0, share=e / N_EPOCHS) for k, e in enumerate(RUNGS_OF_OURS))

    def report(self, config: Config, rung: Rung) -> Observation:
        value = float(self._task.eval(config, RUNGS_OF_OURS[rung.index]))
        return Observation(
            rung=rung.index, fold=0, share=rung.share, metrics={"val_loss": value}, n_scored=1, seconds=4.0
        )

    def true_loss(self, config: Config) -> float:
        return float(self._task.eval(config, N_EPOCHS))


def search(name: str, task: Any, budget: float, seed: int) -> tuple[Curve, float]:
    """Return the curve of a search and CPU seconds a decision."""
    if name in OURS:
        return search_of_ours(name, task, budget, seed)
    if name in peers_by_epochs.PEERS:
        return peers_by_epochs.search_by_turns(name, task, budget, seed)
    return search_of_peer(name, task, budget, seed)


def search_of_ours(name: str, task: Any, budget: float, seed: int) -> tuple[Curve, float]:
    """Return the curve of a search and CPU seconds a decision; a decision is a proposal or what follows a rung."""
    optimizer, rule = OURS[name]
    table = EpochTable(task)
    study = Study.in_memory(
        space=table.space, ladder=table.ladder, n_trials=100_000, optimizer=optimizer, stopping=rule, seed=seed
    )
    start = time.process_time()
    steps = simulate(study, table, n_workers=1, most_folds=budget)
    seconds = (time.process_time() - start) / (len(steps) + len(study.trials))
    done = [(s.folds, s.best_id) for s in steps if s.best_id is not None]
    return [(folds, table.true_loss(study.trials[best].config)) for folds, best in done], seconds


def search_of_peer(name: str, task: Any, budget: float, seed: int) -> tuple[Curve, float]:
    """Return the curve of an Optuna study and CPU seconds a decision."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler, pruner = PEERS[name]
    study = optuna.create_study(sampler=sampler(seed), pruner=pruner())
    spent, best, n_decisions, start = 0.0, np.inf, 0, time.process_time()
    curve: Curve = []
    while spent < budget:
        trial = study.ask()
        config = suggested(trial, task)
        state = optuna.trial.TrialState.COMPLETE
        for value, epochs, added in _training(task, config):
            spent += added / N_EPOCHS
            n_decisions += 1
            trial.report(value, epochs)
            if epochs < N_EPOCHS and trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        if state is optuna.trial.TrialState.COMPLETE:
            best = min(best, value)
            curve.append((spent, best))
            study.tell(trial, value)
        else:
            study.tell(trial, state=state)
    return curve, (time.process_time() - start) / (n_decisions + len(study.trials))


def _training(task: Any, config: Config) -> Iterator[tuple[float, int, int]]:
    """Yield value, epochs and epochs added at each rung."""
    before = 0
    for epochs in RUNGS_OF_PEERS:
        yield float(task.eval(config, epochs)), epochs, epochs - before
        before = epochs


def at_budgets(curve: Curve, worst: float, budgets: tuple[int, ...]) -> list[float]:
    """Return the incumbent's value when each budget is spent."""
    return [min((value for spent, value in curve if spent <= budget + 1e-9), default=worst) for budget in budgets]


def run(tables: Any, chosen: argparse.Namespace) -> dict[str, Any]:
    names, budgets = chosen.searches.split(","), tuple(b for b in BUDGETS if b <= chosen.budget)
    cache = json.loads(chosen.cache.read_text()) if chosen.cache and chosen.cache.exists() else {}
    found: dict[str, list[list[list[float]]]] = {name: [] for name in names}
    spent: dict[str, list[float]] = {name: [] for name in names}
    for task_name in TASKS:
        task = tables.get(task_name)
        low, worst = kept(cache, f"best {task_name}", lambda t=task: best_known(t)), task.stat_worst
        for name in names:
            method, _, own = name.partition("@")
            rows = []
            for seed in range(chosen.first_seed, chosen.first_seed + int(own or chosen.seeds)):
                at = f"{method} {task_name} {seed} {chosen.budget}"
                curve, seconds = kept(cache, at, lambda t=task, s=seed: search(method, t, chosen.budget, s))  # noqa: B023
                rows.append([100 * (v - low) / (worst - low) for v in at_budgets(curve, worst, budgets)])
                spent[name].append(seconds)
            found[name].append(rows)
            print(task_name, name, np.round(np.mean(rows, axis=0), 2), file=sys.stderr, flush=True)
            if chosen.cache:
                chosen.cache.write_text(json.dumps(cache))
    ms = {name: 1e3 * float(np.mean(seconds)) for name, seconds in spent.items()}
    shape = {"budget": chosen.budget, "tasks": len(TASKS), "first_seed": chosen.first_seed}
    regrets = {name: np.array(rows) for name, rows in found.items()}
    return {"benchmark": "epoch_quality", **shape, "searches": summary(regrets, budgets, ms)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Regret of searches on learning curves at equal numbers of epochs.")
    parser.add_argument("--tables", type=Path, default=os.environ.get("HPO_TABLES"), help="folder with tasks.py")
    parser.add_argument("--searches", default="ours,tpe_halving,tpe_hyperband,random_halving,gp_full@3")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=40, help="full trainings")
    parser.add_argument("--cache", type=Path, help="JSON file that keeps finished searches")
    chosen = parser.parse_args()
    tables = tables_of(chosen.tables)
    if tables is None:
        print(f"epoch_quality: skipped: expected a folder with tasks.py, found {chosen.tables}; give --tables")
        return 0
    try:
        print(json.dumps(run(tables, chosen)))
    except peers_ask_tell.PeerMissing as missing:
        print(f"epoch_quality: skipped: {missing}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
