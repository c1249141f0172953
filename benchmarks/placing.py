"""No-op trials through Ray Tune with our study, through bare Ray Tune, and through bare Optuna, in one run.

`python -m benchmarks.placing --trials 100 1000 --rungs 1` prints one line of JSON a size and runner. `ours`: a durable
study with its stopping decisions, placed by `cluster.ray_tune`. `ray_tune`: a class trainable with `reuse_actors`,
random search and no loggers, which keeps nothing. `optuna`: the same trials asked and told in a loop, to a journal
file. `driver_ms` is CPU time of the driving process a trial, which other load changes little; the study is in it.
`first_tenth_ms` and `last_tenth_ms` are the same over the first and last tenth: flat means that these two agree.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from search.settings import ResourcesSection
from search.space import Float, Space
from search.study import Study
from search.trial import Trial, ladder
from trainables.protocol import Assignment, RungReport

SPACE = Space({"x": Float(low=0.0, high=1.0)})
RESOURCES = ResourcesSection(max_concurrent=2, max_failures=0)
"""One trial a processor, two at a time, on a private Ray."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rungs", type=int, default=1, help="reports of a trial")
    parser.add_argument("--runner", nargs="+", choices=RUNNERS, default=list(RUNNERS))
    given = parser.parse_args()
    for n_trials in given.trials:
        for name in given.runner:
            clock = Clock(n_trials)
            RUNNERS[name](n_trials, given.rungs, clock)
            print(json.dumps({"runner": name, "trials": n_trials, "rungs": given.rungs, **clock.figures()}), flush=True)


class Clock:
    """Takes the time at the end of every trial; the first one starts it, so that starting Ray is not in it."""

    def __init__(self, n_trials: int) -> None:
        self._n_trials = n_trials
        self._wall: list[float] = []
        self._cpu: list[float] = []
        self._memory: list[float] = []

    def tick(self) -> None:
        """Tell that a trial ended."""
        self._wall.append(time.perf_counter())
        self._cpu.append(time.process_time())
        self._memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)

    def figures(self) -> dict[str, Any]:
        """Return what was measured; memory is resident MiB after a tenth of the trials and at the end."""
        n, wall, cpu_ms = len(self._wall) - 1, self._wall, 1e3 * np.diff(self._cpu)
        tenth = max(1, n // 10)
        return {
            "ended": n + 1,
            "trials_per_s": round(n / (wall[-1] - wall[0]), 1),
            "driver_ms": round(float(cpu_ms.mean()), 2),
            "first_tenth_ms": round(float(cpu_ms[:tenth].mean()), 2),
            "last_tenth_ms": round(float(cpu_ms[-tenth:].mean()), 2),
            "memory_mib": [round(self._memory[tenth]), round(self._memory[-1])],
        }


def ours(n_trials: int, n_rungs: int, clock: Clock) -> None:
    """Run a study on Ray."""
    from cluster.ray_tune import run_study

    with tempfile.TemporaryDirectory() as folder:
        study = Study.create(
            Path(folder) / "journal.sqlite",
            space=SPACE,
            ladder=ladder(n_rungs),
            n_trials=n_trials,
            optimizer="random",
            stopping="asha" if n_rungs > 1 else "none",
            seed=1,
        )

        def listen(event: Any, trial: Trial | None) -> None:
            if event.kind == "observed" and trial is not None and trial.state.is_finished:
                clock.tick()

        def assignment(trial: Trial) -> Assignment:
            return Assignment(
                trial_id=trial.trial_id,
                family="none",
                config=dict(trial.config),
                data={},
                folds={},
                reach={},
                ladder=tuple((rung.fold, rung.share) for rung in study.charter.ladder),
                seed=trial.seed,
                run_dir=folder,
                options={"runner": "benchmarks.placing:no_op"},
            )

        study.subscribe(listen)
        with study:
            run_study(study, assignment, RESOURCES)


def no_op(assignment: Assignment) -> Iterator[RungReport]:
    """Report every rung at once."""
    for rung, (fold, share) in enumerate(assignment.ladder):
        loss = float(assignment.config["x"])
        yield RungReport(rung=rung, fold=fold, share=share, metrics={"val_loss": loss}, n_scored=1, seconds=0.0)


def ray_tune(n_trials: int, n_rungs: int, clock: Clock) -> None:
    """Run the same trials on Ray Tune alone, as its documentation would have it done fast."""
    from ray import tune
    from ray.tune import Callback

    from cluster.ray_session import environment, ray_session
    from cluster.ray_tune import TUNE_ENVIRONMENT

    class NoOp(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.x, self.rung = config["x"], 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self.rung += 1
            return {"val_loss": self.x, "done": self.rung >= n_rungs}

    class Tick(Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            clock.tick()

    with tempfile.TemporaryDirectory() as folder, environment(TUNE_ENVIRONMENT), ray_session(RESOURCES):
        found = tune.Tuner(
            tune.with_resources(NoOp, {"cpu": 1}),
            param_space={"x": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=n_trials, reuse_actors=True, max_concurrent_trials=2),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[Tick()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        ).fit()
    if found.errors:
        raise RuntimeError(f"bare Ray Tune: {len(found.errors)} trials failed, the first: {found.errors[0]}")


def optuna(n_trials: int, n_rungs: int, clock: Clock) -> None:
    """Ask and tell the same trials in a loop, kept in Optuna's journal file."""
    import optuna as peer
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    peer.logging.set_verbosity(peer.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        storage = JournalStorage(JournalFileBackend(os.path.join(folder, "journal.log")))
        study = peer.create_study(storage=storage, sampler=peer.samplers.RandomSampler(seed=1))
        for _ in range(n_trials):
            trial = study.ask()
            x = trial.suggest_float("x", 0.0, 1.0)
            for rung in range(n_rungs):
                trial.report(x, rung)
            study.tell(trial, x)
            clock.tick()


RUNNERS: dict[str, Callable[[int, int, Clock], None]] = {"ours": ours, "ray_tune": ray_tune, "optuna": optuna}


if __name__ == "__main__":
    main()
