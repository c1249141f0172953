"""Controller seconds per trial: no-op trials through the study, with its stopping decisions and its durable journal.

`python benchmarks/overhead.py --trials 100 1000 10000 --rule asha --optimizer random` prints one line of JSON a size:
mean milliseconds of controller time per trial over the whole search and over its first and last tenth (flat means that
these two agree), events committed, durable trials a second, and the growth of this process' memory. No trial trains
anything; `--batch` reports come in at once, as from a worker that trains several trials together.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from search.space import Choice, Float, Int, Space
from search.study import Study
from search.trial import Decision, Observation, Trial, ladder

SPACE = Space(
    {
        "lr": Float(low=1e-5, high=1e-1, log=True),
        "width": Int(low=4, high=1024, log=True),
        "depth": Int(low=1, high=8),
        "kind": Choice(choices=("ssm", "attention", "mlp")),
        "heads": Int(low=1, high=8, when={"kind": "attention"}),
    }
)
N_FOLDS, N_BLOCKS = 9, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--rule", default="asha")
    parser.add_argument("--optimizer", default="random")
    parser.add_argument("--folder", type=Path, default=None, help="where the journal goes; default: a temporary folder")
    given = parser.parse_args()
    for n_trials in given.trials:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            print(json.dumps(measure(Path(folder), n_trials, given.rule, given.optimizer)), flush=True)


def measure(folder: Path, n_trials: int, rule: str, optimizer: str) -> dict[str, Any]:
    """Run one search of no-op trials and return its figures."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, n_reports = [], 0
    study = Study.create(
        folder / "journal.sqlite",
        space=SPACE,
        ladder=ladder(N_FOLDS),
        n_trials=n_trials,
        optimizer=optimizer,
        stopping=rule,
        seed=1,
    )
    with study:
        began = time.perf_counter()
        while True:
            before = time.perf_counter()
            trial = study.next()
            if trial is None:
                break
            n_reports += run(study, trial)
            study.best()
            seconds.append(time.perf_counter() - before)
        wall = time.perf_counter() - began
    tenth = max(1, n_trials // 10)
    return {
        "rule": rule,
        "optimizer": optimizer,
        "trials": n_trials,
        "ms_per_trial": round(1e3 * wall / n_trials, 3),
        "ms_first_tenth": round(1e3 * float(np.mean(seconds[:tenth])), 3),
        "ms_last_tenth": round(1e3 * float(np.mean(seconds[-tenth:])), 3),
        "events": 2 * n_trials + n_reports,
        "trials_per_second": round(n_trials / wall, 1),
        "memory_grown_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024, 1),
    }


def run(study: Study, trial: Trial) -> int:
    """Report a loss in closed form until the study says stop; return the number of reports."""
    attempt = study.started(trial.trial_id)
    rng = np.random.default_rng(trial.seed)
    quality = (math.log10(trial.config["lr"]) + 3) ** 2
    for rung in range(N_FOLDS):
        loss = quality + float(rng.normal())
        seen = Observation(
            rung=rung, fold=rung, share=1.0, metrics={"val_loss": loss}, n_scored=250, seconds=0.0, **blocks_of(loss)
        )
        if study.observe(trial.trial_id, seen, attempt) is Decision.STOP:
            return rung + 1
    return N_FOLDS


def blocks_of(loss: float) -> dict[str, Any]:
    """Return the block means of a report, where observations have them."""
    return {"blocks": (loss,) * N_BLOCKS} if "blocks" in Observation.__slots__ else {}


if __name__ == "__main__":
    main()
