"""Stopping rules side by side in simulated searches: folds needed, regret, and how often the best trial was dropped.

`python benchmarks/racing.py --seeds 20 --world plain noisy --optimizer tpe` prints one line of JSON per world and rule.
All rules get the same budget of folds, that of full evaluations of `--trials` trials, on W = 8 virtual workers.
Regret is the true loss of the best complete trial above the optimum of the table. `folds_needed` is the smallest number
of folds after which the mean regret is that of full evaluation at its end, as a share of what full evaluation used.
`dropped_best` counts searches that stopped the truly best of all trials that they proposed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from cluster.simulated import simulate
from cluster.synthetic_tables import SyntheticTable, World
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
    "fold_racing_margin": {"name": "fold_racing", "margin": 1.0},
    "asha": "asha",
    "hyperband": "hyperband",
    "wilcoxon": "benchmarks.wilcoxon_rule:wilcoxon",
}
N_WORKERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--world", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--optimizer", default="tpe")
    parser.add_argument("--trials", type=int, default=60, help="full evaluations whose folds are the budget")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    for world in given.world:
        budget = given.trials * WORLDS[world].n_folds
        goal = None
        for rule in given.rule:
            runs = [search(WORLDS[world], RULES[rule], given.optimizer, seed, budget) for seed in seeds]
            curve = np.mean([run["regret"] for run in runs], axis=0)
            goal = float(curve[-1]) if goal is None else goal
            print(json.dumps({"world": world, "rule": rule, **figures(runs, curve, goal, budget)}), flush=True)


def search(world: World, rule: Any, optimizer: str, seed: int, budget: int) -> dict[str, Any]:
    """Run one search; return its regret after each fold of the budget and what it did to the best trial."""
    table = SyntheticTable(seed, world)
    study = Study.in_memory(
        space=table.space, ladder=table.ladder, n_trials=100 * budget, optimizer=optimizer, stopping=rule, seed=seed
    )
    steps = simulate(study, table, n_workers=N_WORKERS, most_folds=budget)
    worth = {trial.trial_id: table.true_loss(trial.config) for trial in study.trials.values()}
    regret: NDArray[np.float64] = np.full(budget, max(worth.values()))
    for step in steps:
        if step.best_id is not None:
            regret[int(step.folds) - 1 :] = worth[step.best_id]
    best = study.trials[min(worth, key=lambda trial_id: worth[trial_id])]
    return {"regret": regret, "n_trials": len(worth), "dropped": best.state is TrialState.STOPPED}


def figures(runs: list[dict[str, Any]], curve: NDArray[np.float64], goal: float, budget: int) -> dict[str, Any]:
    """Return the line of one rule."""
    dropped = sum(run["dropped"] for run in runs)
    interval = binomtest(dropped, len(runs)).proportion_ci()
    reached = np.flatnonzero(curve <= goal)
    final = np.array([run["regret"][-1] for run in runs])
    return {
        "seeds": len(runs),
        "trials": round(float(np.mean([run["n_trials"] for run in runs])), 1),
        "folds_a_trial": round(budget / float(np.mean([run["n_trials"] for run in runs])), 2),
        "regret": [round(float(curve[int(share * budget) - 1]), 4) for share in (0.1, 0.2, 1 / 3, 0.5, 1.0)],
        "regret_median": round(float(np.median(final)), 4),
        "folds_needed": round(float(reached[0] + 1) / budget, 3) if len(reached) else None,
        "dropped_best": f"{dropped}/{len(runs)}",
        "dropped_best_95": [round(float(interval.low), 3), round(float(interval.high), 3)],
    }


if __name__ == "__main__":
    main()
