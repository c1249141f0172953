"""Controller seconds per trial: no-op trials through the study, with its stopping decisions and its durable journal.

`python -m benchmarks.overhead --trials 100 1000 10000 --rule asha --optimizer random` prints one line of JSON a size:
mean milliseconds of controller time per trial over the whole search and over its first and last tenth (flat means that
these two agree), the same in CPU time, which other load changes little, events committed, durable trials a second, and
the growth of this process' memory. `--rule` is a name, or JSON such as `{"name": "fold_racing", "best_first": false}`.
No trial trains anything, and a complete one makes `--reports` reports; what it costs to make them (0.01 ms each) is in
the figures. With `--batch N`, N trials run side by side and report together, as from workers that train several trials
at once: `Study.together` then waits once for the disk.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from contextlib import nullcontext
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
N_BLOCKS = 16
NOISE = np.random.default_rng(1).normal(size=(1021, N_BLOCKS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--rule", type=rule, default="asha")
    parser.add_argument("--optimizer", default="random")
    parser.add_argument("--folder", type=Path, default=None, help="where the journal goes; default: a temporary folder")
    parser.add_argument("--batch", type=int, default=1, help="trials that report together")
    parser.add_argument("--reports", type=int, default=9, help="folds of the ladder")
    given = parser.parse_args()
    for n_trials in given.trials:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found = measure(Path(folder), n_trials, given.rule, given.optimizer, given.batch, given.reports)
            print(json.dumps(found), flush=True)


def rule(text: str) -> str | dict[str, Any]:
    """Return the name of a rule, or its name and settings where they are given as JSON."""
    return dict(json.loads(text)) if text.startswith("{") else text


def measure(
    folder: Path, n_trials: int, rule: str | dict[str, Any], optimizer: str, batch: int, n_reports: int
) -> dict[str, Any]:
    """Run one search of no-op trials and return its figures."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: list[float] = []
    cpu_s: list[float] = []
    study = Study.create(
        folder / "journal.sqlite",
        space=SPACE,
        ladder=ladder(n_reports),
        n_trials=n_trials,
        optimizer=optimizer,
        stopping=rule,
        seed=1,
    )
    with study:
        began, cpu_began = time.perf_counter(), time.process_time()
        while not study.is_done:
            before, cpu_before = time.perf_counter(), time.process_time()
            n_done = run(study, batch)
            study.best()
            seconds += [(time.perf_counter() - before) / n_done] * n_done
            cpu_s += [(time.process_time() - cpu_before) / n_done] * n_done
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        n_events = sum(1 for _ in study.events())
    tenth = max(1, n_trials // 10)
    return {
        "rule": rule,
        "optimizer": optimizer,
        "trials": n_trials,
        "batch": batch,
        "reports": n_reports,
        "ms_per_trial": round(1e3 * wall / n_trials, 3),
        "ms_first_tenth": round(1e3 * float(np.mean(seconds[:tenth])), 3),
        "ms_last_tenth": round(1e3 * float(np.mean(seconds[-tenth:])), 3),
        "cpu_ms_per_trial": round(1e3 * cpu / n_trials, 3),
        "cpu_ms_first_and_last_tenth": [
            round(1e3 * float(np.mean(part)), 3) for part in (cpu_s[:tenth], cpu_s[-tenth:])
        ],
        "events": n_events,
        "trials_per_second": round(n_trials / wall, 1),
        "memory_grown_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024, 1),
    }


def run(study: Study, batch: int) -> int:
    """Run up to `batch` trials side by side until the study has stopped or paused each of them; return their number."""
    with study.together() if batch > 1 else nullcontext():
        trials = [trial for _ in range(batch) if (trial := study.next()) is not None]
        running = [(trial, study.started(trial.trial_id)) for trial in trials]
    n_told = 0
    while running:
        with study.together() if batch > 1 else nullcontext():
            running = [
                (trial, attempt)
                for trial, attempt in running
                if study.observe(trial.trial_id, report(trial, len(trial.observations) + n_told), attempt)
                is Decision.CONTINUE
            ]
        n_told += 1
    return len(trials)


def report(trial: Trial, rung: int) -> Observation:
    """Return a report of one fold: a loss in closed form with noise."""
    noise = NOISE[(17 * trial.number + rung) % len(NOISE)]
    blocks = (math.log10(trial.config["lr"]) + 3) ** 2 + 0.5 * noise + 0.5 * noise.mean()
    return Observation(
        rung=rung,
        fold=rung,
        share=1.0,
        metrics={"val_loss": float(blocks.mean())},
        n_scored=250,
        seconds=0.0,
        blocks=tuple(blocks.tolist()),
    )


if __name__ == "__main__":
    main()
