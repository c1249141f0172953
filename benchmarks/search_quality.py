"""How good are optimizers at equal numbers of trials? On real tables of hyperparameter results.

    python benchmarks/search_quality.py --tables FOLDER [--quick] [--optimizers a,b] [--seeds 10] [--trials 100]

FOLDER (or the environment variable HPO_TABLES) holds `tasks.py`: `TASKS`, and `get(name)` with `space`, `eval`,
`stat_worst` and, for surrogates, `eval_many`. `name:flat` searches the space without its conditions, as peers are often
measured; `name@3` takes 3 seeds. Prints one line of JSON; regret is (value - best) / (worst - best) in percent, best
being the least of differential evolution (or of the whole table) and of all searches compared. Progress goes to stderr.
Peers: those of peers.py; `smac` and `hebo` with the packages that peers_ask_tell.py names.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import peers_ask_tell
from benchmarks.peers import SAMPLERS, search_alone
from cluster.simulated import simulate
from search import optimizers
from search.objective import Objective
from search.seeding import generator, seed_for
from search.space import Choice, Float, Int, Space
from search.study import Study
from search.trial import Observation, Rung, Trial, TrialState

BUDGETS = (10, 25, 50, 100, 200, 500, 1000)
FLOOR = 0.1
"""Regrets below this count as this in geometric means, percent."""
PEERS: Mapping[str, Callable[[Any, int, int], tuple[list[float], float]]] = {
    **{name: partial(search_alone, name) for name in SAMPLERS},
    **{name: partial(peers_ask_tell.search_by_turns, name) for name in peers_ask_tell.PEERS},
}
"""Others' searches of a task for some trials with a seed, one trial at a time; returns what `search` returns."""
QUICK = ("lcbench:167168", "rbv2_xgboost:40499", "fcnet:protein_structure")


def space_of(task: Any, *, conditional: bool) -> Space:
    """Return the space of a task, with its conditions or as if every parameter always existed."""
    when = {child: {parent: tuple(values)} for child, parent, values in getattr(task, "cond", ()) if conditional}
    return Space({row[0]: _kind(row, when.get(row[0], {})) for row in task.space})


def _kind(row: Sequence[Any], when: Mapping[str, Any]) -> Choice | Int | Float:
    if row[1] == "cat":
        return Choice(choices=tuple(row[2]), when=when)
    if row[1] == "int":
        return Int(low=int(row[2]), high=int(row[3]), log=bool(row[4]), when=when)
    return Float(low=float(row[2]), high=float(row[3]), log=bool(row[4]), when=when)


def completed(task: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with a value for every parameter; the task ignores those that do not exist."""
    return {row[0]: config.get(row[0], row[2][0] if row[1] == "cat" else row[2]) for row in task.space}


def best_known(task: Any, *, n_runs: int = 3, n_generations: int = 250) -> float:
    """Return the table's own least value, or the least that runs of differential evolution find."""
    if hasattr(task, "optimum"):
        return float(task.optimum)
    if hasattr(task, "sorted"):
        return float(task.sorted[0])
    space, rng = space_of(task, conditional=False), np.random.default_rng(0)
    return min(_evolved(task, space, n_generations, rng) for _ in range(n_runs))


def _evolved(task: Any, space: Space, n_generations: int, rng: np.random.Generator) -> float:
    """Return the least value of a run of differential evolution, every step towards one of the twenty best."""

    def evaluate(genes: np.ndarray) -> np.ndarray:
        return np.asarray(task.eval_many([space.decode(row) for row in genes]))

    genes = rng.random((200, len(space.free)))
    values = evaluate(genes)
    for _ in range(n_generations):
        best = genes[np.argsort(values)[:20][rng.integers(20, size=200)]]
        first, second = (genes[rng.integers(200, size=200)] for _ in range(2))
        factor = rng.uniform(0.3, 1.0, (200, 1))
        moved = np.abs(genes + factor * (best - genes) + factor * (first - second))
        moved = np.clip(np.where(moved > 1, 2 - moved, moved), 0, 1)
        moved = np.where(rng.random(moved.shape) < 0.8, moved, genes)
        found = evaluate(moved)
        better = found <= values
        genes[better], values[better] = moved[better], found[better]
    return float(values.min())


def search(name: str, task: Any, n_trials: int, seed: int, n_workers: int) -> tuple[list[float], float]:
    """Return the best value after each finished trial, and CPU seconds of ask and tell together.

    With several workers as many trials run at a time, on a virtual clock.
    """
    method, _, form = name.partition(":")
    if method in PEERS and n_workers == 1:
        return PEERS[method](task, n_trials, seed)
    space = space_of(task, conditional=form != "flat")
    if n_workers > 1:
        return _searched_together(method, OneRung(task, space), n_trials, seed, n_workers)
    optimizer = optimizers.make(method, space, objectives=(Objective(),), population=16, seed=seed)
    seconds, best, values = 0.0, np.inf, []
    for number in range(n_trials):
        trial, spent = _timed(lambda n=number: _proposed(optimizer, n, seed_for(seed, "ask", n)))
        seconds += spent + _timed(lambda t=trial: optimizer.tell(t))[1]
        done, value = _ended(trial, task)
        seconds += _timed(lambda t=done: optimizer.tell(t))[1]
        best = min(best, value)
        values.append(best)
    return values, seconds


class OneRung:
    """A task as a table of `cluster.simulated`; a trial takes 0.5 to 1.5 seconds, by config."""

    ladder = (Rung(index=0, fold=0, share=1.0),)

    def __init__(self, task: Any, space: Space) -> None:
        self._task = task
        self.space = space

    def report(self, config: Mapping[str, Any], rung: Rung) -> Observation:
        seconds = generator(0, json.dumps(dict(config), sort_keys=True)).uniform(0.5, 1.5)
        metrics = {"val_loss": self.true_loss(config)}
        return Observation(rung=0, fold=0, share=1.0, metrics=metrics, n_scored=1, seconds=float(seconds))

    def true_loss(self, config: Mapping[str, Any]) -> float:
        return float(self._task.eval(completed(self._task, config)))


def _searched_together(
    method: str, table: OneRung, n_trials: int, seed: int, n_workers: int
) -> tuple[list[float], float]:
    """Return what `search` returns; the CPU seconds hold the study and the clock."""
    study = Study.in_memory(
        space=table.space, ladder=table.ladder, n_trials=n_trials, optimizer=method, stopping="none", seed=seed
    )
    steps, seconds = _timed(lambda: simulate(study, table, n_workers=n_workers))
    values = [study.trials[step.trial_id].observations[-1].metrics["val_loss"] for step in steps]
    return np.minimum.accumulate(values).tolist(), seconds


def _ended(trial: Trial, task: Any) -> tuple[Trial, float]:
    value = float(task.eval(completed(task, trial.config)))
    observation = Observation(rung=0, fold=0, share=1.0, metrics={"val_loss": value}, n_scored=1, seconds=0.0)
    return replace(trial.observed(observation), state=TrialState.COMPLETE), value


def _timed(act: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return act(), time.process_time() - start


def _proposed(optimizer: optimizers.Optimizer, number: int, seed: int) -> Trial:
    p = optimizer.ask(number, seed)
    lineage = {"origin": p.origin, "generation": p.generation or 0, "parents": p.parents, "note": p.note}
    return Trial(number=number, trial_id=f"t{number:04d}", config=p.config, seed=seed, **lineage)


def geometric(regrets: np.ndarray) -> np.ndarray:
    """Return (n_tasks, n_seeds, n_budgets) -> (n_budgets,): mean over seeds, geometric mean over tasks."""
    return np.asarray(np.exp(np.log(np.maximum(regrets.mean(axis=1), FLOOR)).mean(axis=0)))


def interval(regrets: np.ndarray, n_draws: int = 1000) -> list[list[float]]:
    """Return the 95 % bootstrap interval of `geometric` over seeds, (n_budgets, 2); tasks are kept."""
    rng, (n_tasks, n_seeds, _) = np.random.default_rng(0), regrets.shape
    rows = np.arange(n_tasks)[:, None]
    drawn = [geometric(regrets[rows, rng.integers(n_seeds, size=(n_tasks, n_seeds))]) for _ in range(n_draws)]
    return np.round(np.quantile(drawn, [0.025, 0.975], axis=0).T, 3).tolist()


def summary(regrets: Mapping[str, np.ndarray], budgets: Sequence[int], ms: Mapping[str, float]) -> dict[str, Any]:
    """Return the table: regret by budget with intervals, median, mean rank over tasks, milliseconds per decision."""
    means = np.array([r.mean(axis=1) for r in regrets.values()])
    ranks = rankdata(np.maximum(means, 1e-9), axis=0).mean(axis=1)
    return {
        name: {
            "seeds": found.shape[1],
            "regret": dict(zip(budgets, np.round(geometric(found), 3).tolist(), strict=True)),
            "interval": dict(zip(budgets, interval(found), strict=True)),
            "median": dict(zip(budgets, np.round(np.median(found, axis=(0, 1)), 3).tolist(), strict=True)),
            "mean_rank": dict(zip(budgets, np.round(rank, 2).tolist(), strict=True)),
            "ms": round(ms[name], 2),
        }
        for (name, found), rank in zip(regrets.items(), ranks, strict=True)
    }


def run(tables: Any, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the result of the whole comparison; searches that lie in the cache are not repeated."""
    names, budgets = chosen.optimizers.split(","), [b for b in BUDGETS if b <= chosen.trials]
    cache = json.loads(chosen.cache.read_text()) if chosen.cache and chosen.cache.exists() else {}
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    spent: dict[str, list[float]] = {name: [] for name in names}
    spans = []
    for task_name in QUICK if chosen.quick else tables.TASKS:
        task = tables.get(task_name)
        low = kept(cache, f"best {task_name}", lambda t=task: best_known(t))
        for name in names:
            values, seconds = _searches(name, task_name, task, chosen, cache)
            found[name].append(values[:, [b - 1 for b in budgets]])
            spent[name] += [s / chosen.trials for s in seconds]
            low = min(low, float(values.min()))
            print(task_name, name, found[name][-1].mean(axis=0), file=sys.stderr, flush=True)
        spans.append((low, task.stat_worst))
        if chosen.cache:
            chosen.cache.write_text(json.dumps(cache))
    regrets = {
        name: np.array([100 * (v - low) / (worst - low) for v, (low, worst) in zip(of_tasks, spans, strict=True)])
        for name, of_tasks in found.items()
    }
    ms = {name: 1e3 * float(np.mean(seconds)) for name, seconds in spent.items()}
    shape = {"trials": chosen.trials, "workers": chosen.workers, "tasks": len(spans), "first_seed": chosen.first_seed}
    return {"benchmark": "search_quality", **shape, "optimizers": summary(regrets, budgets, ms)}


def _searches(
    name: str, task_name: str, task: Any, chosen: argparse.Namespace, cache: dict[str, Any]
) -> tuple[np.ndarray, list[float]]:
    """Return the best values, (n_seeds, n_trials), and the CPU seconds of each search."""
    method, _, own = name.partition("@")
    curves, seconds = [], []
    for seed in range(chosen.first_seed, chosen.first_seed + int(own or chosen.seeds)):
        at = f"{method} {task_name} {seed} {chosen.trials} {chosen.workers}"
        curve, spent = kept(cache, at, lambda s=seed: search(method, task, chosen.trials, s, chosen.workers))
        curves.append(curve)
        seconds.append(spent)
    return np.array(curves), seconds


def tables_of(folder: Path | None) -> Any:
    """Return the module `tasks` of a folder, or `benchmarks.mixint`; None where there is none."""
    if folder is not None and str(folder) == "bbob-mixint":
        return importlib.import_module("benchmarks.mixint")
    if folder is None or not (Path(folder) / "tasks.py").exists():
        return None
    spec = importlib.util.spec_from_file_location("tasks", Path(folder) / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    return tables


def kept(cache: dict[str, Any], name: str, compute: Callable[[], Any]) -> Any:
    """Return what the cache has under a name, computed where it has nothing."""
    if name not in cache:
        cache[name] = compute()
    return cache[name]


def main() -> int:
    parser = argparse.ArgumentParser(description="Regret of optimizers on real tables at equal numbers of trials.")
    parser.add_argument(
        "--tables", type=Path, default=os.environ.get("HPO_TABLES"), help="folder with tasks.py, or bbob-mixint"
    )
    parser.add_argument("--optimizers", default="evolutionary_bayesian,tpe:flat,random", help="name[:flat][@seeds],...")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1, help="trials that run at a time")
    parser.add_argument("--quick", action="store_true", help="three tasks, two seeds, 50 trials")
    parser.add_argument("--cache", type=Path, help="JSON file that keeps finished searches")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.trials = 2, 50
    tables = tables_of(chosen.tables)
    if tables is None:
        print(f"search_quality: skipped: expected a folder with tasks.py, found {chosen.tables}; give --tables")
        return 0
    try:
        print(json.dumps(run(tables, chosen)))
    except peers_ask_tell.PeerMissing as missing:
        print(f"search_quality: skipped: {missing}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
