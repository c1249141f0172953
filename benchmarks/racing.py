"""Stopping rules side by side in simulated searches: folds needed, regret, and how often the best trial was dropped.

`python -m benchmarks.racing --seeds 20 --world plain noisy >> lines.jsonl` prints one line of JSON a search, seed by
seed, so that it may be cut short; `python -m benchmarks.racing --summary lines.jsonl` prints one line a world and arm.
An arm is an optimizer and a stopping rule, such as `tpe/asha`, or `ray_loop`, the script of ray_loop.py. All arms get
the same budget of folds, that of full evaluations of `--trials` trials, on W = 8 virtual workers. A world is one of
`WORLDS`, or a table of `record_table.py`.

`regret` is the true loss of the best complete trial above the optimum of the table, in deviations between random
configs, as a mean over seeds with a 95 % bootstrap interval. `folds_needed` is the smallest number of folds after which
it is that of the first arm at its end, as a share of the budget. `dropped_best` counts searches that stopped the truly
best of all trials that they proposed; `lost` is by how much the best one that was kept is worse than it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from cluster.recorded_table import RecordedTable
from cluster.simulated import Table, simulate
from cluster.synthetic_tables import SyntheticTable, World
from search.seeding import generator
from search.study import Study
from search.trial import TrialState

WORLDS = {
    "plain": World(),
    "calm": World(noise=0.5, interaction=0.1),
    "noisy": World(noise=3.0, interaction=0.6),
    "wild": World(unrest=1.0, tail=2.5, memory=0.8),
}
RULES: dict[str, Any] = {
    "full": "none",
    "fold_racing": "fold_racing",
    "fold_racing_in_order": {"name": "fold_racing", "best_first": False},
    "fold_racing_close": {"name": "fold_racing", "margin": 1.0},
    "fold_racing_wide": {"name": "fold_racing", "margin": 2.0},
    "asha": "asha",
    "hyperband": "hyperband",
    "wilcoxon": "benchmarks.wilcoxon_rule:wilcoxon",
}
ARMS = ("tpe/full", "tpe/asha", "tpe/hyperband", "tpe/wilcoxon", "tpe/fold_racing", "evolutionary_bayesian/fold_racing")
N_WORKERS = 8
N_POINTS = 60
"""Points of a curve of regret over the budget."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--world", nargs="+", default=list(WORLDS), help="names, or files of recorded tables")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="OPTIMIZER/RULE; the first sets the goal")
    parser.add_argument("--trials", type=int, default=60, help="full evaluations whose folds are the budget")
    parser.add_argument("--summary", type=Path, help="print the figures of these lines instead")
    given = parser.parse_args()
    if given.summary is not None:
        summarise(given.summary)
        return
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for world in given.world:
            table = SyntheticTable(seed, WORLDS[world]) if world in WORLDS else RecordedTable(Path(world))
            for arm in given.arms:
                found = search(table, arm, seed, given.trials)
                print(json.dumps({"world": Path(world).stem, "arm": arm, "seed": seed, **found}), flush=True)


def search(table: Table, arm: str, seed: int, trials: int) -> dict[str, Any]:
    """Run one search; return its regret along the budget and what it did to the best trial."""
    budget = trials * (table.ladder[-1].fold + 1)
    if arm == "ray_loop":
        return of_ray_loop(table, seed, budget)
    optimizer, rule = arm.split("/")
    study = Study.in_memory(
        space=table.space,
        ladder=table.ladder,
        n_trials=100 * budget,
        optimizer=optimizer,
        stopping=RULES[rule],
        seed=seed,
    )
    steps = simulate(study, table, n_workers=N_WORKERS, most_folds=budget)
    lowest, unit = scale(table)
    worth = {t.trial_id: (table.true_loss(t.config) - lowest) / unit for t in study.trials.values()}
    regret: NDArray[np.float64] = np.full(budget, max(worth.values()))
    for step in steps:
        if step.best_id is not None:
            regret[int(step.folds) - 1 :] = worth[step.best_id]
    kept = [w for t, w in worth.items() if study.trials[t].state is not TrialState.STOPPED]
    return _line(regret, worth, kept)


def of_ray_loop(table: Table, seed: int, budget: int) -> dict[str, Any]:
    """Return what `search` returns, of the script that users write."""
    from benchmarks import ray_loop

    lowest, unit = scale(table)
    reports = ray_loop.search(table, seed, budget, N_WORKERS)
    worth = {str(c): (table.true_loss(c) - lowest) / unit for c, *_ in reports}
    stopped = {str(c) for c, *_, is_stopped in reports if is_stopped}
    regret: NDArray[np.float64] = np.full(budget, max(worth.values()))
    best = np.inf
    for n, (config, folds, loss, _) in enumerate(reports):
        if folds == len(table.ladder) and loss < best:
            best = loss
            regret[n:] = worth[str(config)]
    return _line(regret, worth, [w for config, w in worth.items() if config not in stopped])


def _line(regret: NDArray[np.float64], worth: Mapping[str, float], kept: Sequence[float]) -> dict[str, Any]:
    budget = len(regret)
    at = np.ceil(np.arange(1, N_POINTS + 1) / N_POINTS * budget).astype(int) - 1
    return {
        "regret": regret[at].round(5).tolist(),
        "trials": len(worth),
        "folds_a_trial": round(budget / len(worth), 2),
        "lost": round(min(kept) - min(worth.values()), 5),
    }


def scale(table: Table) -> tuple[float, float]:
    """Return the lowest true loss of a table and the deviation between its random configs."""
    if isinstance(table, SyntheticTable):
        return 0.0, 1.0
    n = table.space.n_points()
    assert n is not None
    losses = [table.true_loss(config) for config in table.space.points()]
    return min(losses), float(np.std(losses))


def summarise(path: Path) -> None:
    """Print one line a world and arm."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        run = json.loads(line)
        runs[run["world"], run["arm"]].append(run)
    goals: dict[str, float] = {}
    for (world, arm), found in runs.items():
        curve = np.array([run["regret"] for run in found])
        goal = goals.setdefault(world, float(curve[:, -1].mean()))
        print(json.dumps({"world": world, "arm": arm, **figures(found, curve, goal)}))


def figures(runs: list[dict[str, Any]], curve: NDArray[np.float64], goal: float) -> dict[str, Any]:
    """Return the line of one arm."""
    dropped, n = sum(run["lost"] > 0 for run in runs), len(runs)
    reached = np.flatnonzero(curve.mean(axis=0) <= goal)
    draws = generator(0, "racing").integers(0, n, (2000, n))
    low, high = np.quantile(curve[draws, -1].mean(axis=1), [0.025, 0.975])
    interval = binomtest(dropped, n).proportion_ci()
    return {
        "seeds": n,
        "trials": round(float(np.mean([run["trials"] for run in runs])), 1),
        "folds_a_trial": round(float(np.mean([run["folds_a_trial"] for run in runs])), 2),
        "regret": {s: round(float(curve[:, int(s * N_POINTS) - 1].mean()), 3) for s in (0.1, 0.2, 0.35, 0.5, 1.0)},
        "regret_95": [round(float(low), 3), round(float(high), 3)],
        "regret_median": round(float(np.median(curve[:, -1])), 3),
        "folds_needed": round(float(reached[0] + 1) / N_POINTS, 3) if len(reached) else None,
        "dropped_best": f"{dropped}/{n}",
        "dropped_best_95": [round(float(interval.low), 3), round(float(interval.high), 3)],
        "lost": [round(float(np.mean([r["lost"] for r in runs])), 4), round(max(r["lost"] for r in runs), 3)],
    }


if __name__ == "__main__":
    main()
