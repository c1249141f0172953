"""CPU milliseconds of a proposal and of a stopping decision after so many results, one thread.

`python benchmarks/decision_time.py --results 100 1000 10000` prints one line of JSON. Results are those of a mixed,
conditional space of eight parameters under noise (`cluster.synthetic_tables`) with four rungs in one fold; three in
four trials were stopped at a rung. A proposal is ask and tell; a decision of the rule `predicted` is decide and tell.
Means hold the fits of kernels, which are made when the number of results passes a mark; medians do not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.synthetic_tables import SyntheticTable, World
from search import optimizers, stopping
from search.objective import Objective
from search.trial import Trial, TrialState

N_MEASURED = 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=int, nargs="+", default=[100, 300, 1000, 3000, 10_000])
    given = parser.parse_args()
    table = SyntheticTable(0, World(n_folds=1, rungs_per_fold=4))
    optimizer = optimizers.make("evolutionary_bayesian", table.space, objectives=(Objective(),), population=16, seed=0)
    rule = stopping.make("predicted", space=table.space, objectives=(Objective(),), ladder=table.ladder)
    rng, number, found = np.random.default_rng(0), 0, {}
    for wanted in sorted(given.results):
        while number < wanted:
            trial = _trial(number, table.space.sample(rng))
            for one in (trial, _ended(trial, table, number)):
                optimizer.tell(one)
                rule.tell(one)
            number += 1
        found[wanted] = measured(optimizer, rule, table, number)
        number += N_MEASURED
    print(json.dumps({"benchmark": "decision_time", "unit": "CPU ms, mean (median)", "results": found}))
    return 0


def measured(optimizer: Any, rule: Any, table: SyntheticTable, first: int) -> dict[str, list[float]]:
    """Return mean and median milliseconds of proposals and decisions."""
    optimizer.ask(first, 0)
    proposals, decisions = [], []
    for number in range(first, first + N_MEASURED):
        start = time.process_time()
        trial = _trial(number, optimizer.ask(number, number).config)
        optimizer.tell(trial)
        middle = time.process_time()
        rule.tell(trial)
        heard = trial.observed(table.report(trial.config, table.ladder[0]))
        decided = _timed(lambda heard=heard: rule.decide(heard))
        ended = _ended(trial, table, number)
        decisions.append(decided + _timed(lambda ended=ended: rule.tell(ended)))
        proposals.append(middle - start + _timed(lambda ended=ended: optimizer.tell(ended)))
    pairs = {"proposal": proposals, "decision": decisions}
    return {name: [round(1e3 * float(f(times)), 1) for f in (np.mean, np.median)] for name, times in pairs.items()}


def _timed(act: Callable[[], Any]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


def _trial(number: int, config: Any) -> Trial:
    return Trial(number=number, trial_id=f"t{number}", config=config, origin="", generation=1, parents=(), seed=number)


def _ended(trial: Trial, table: SyntheticTable, number: int) -> Trial:
    n_rungs = 4 if number % 4 == 0 else number % 4
    for rung in table.ladder[:n_rungs]:
        trial = trial.observed(table.report(trial.config, rung))
    return replace(trial, state=TrialState.COMPLETE if n_rungs == 4 else TrialState.STOPPED)


if __name__ == "__main__":
    raise SystemExit(main())
