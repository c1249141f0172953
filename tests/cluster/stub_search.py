"""A driver for tests: run stub trials on Ray from the command line, so that a test may kill it."""

import argparse
import json
import logging
import sys
from pathlib import Path

from fake_study import LADDER, FakeStudy, Resources, assignments

from cluster.errors import ClusterError
from cluster.ray_tune import run_study
from search.space import Fixed, Float, Space
from search.study import Study


def real_study(folder: Path) -> Study:
    """Begin or resume a TPE search under ASHA over the stub's `x`."""
    arguments = {
        "space": Space({"x": Float(low=0.0, high=1.0), "seconds": Fixed(value=0.1)}),
        "ladder": LADDER,
        "optimizer": {"name": "tpe"},
        "stopping": {"name": "asha", "eta": 2},
        "seed": 5,
        "n_trials": 16,
    }
    journal = folder / "journal.sqlite"
    return Study.resume(journal, **arguments) if journal.exists() else Study.create(journal, **arguments)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--configs", type=json.loads, help="of a fake study; without it, a real one")
    parser.add_argument("--resources", type=json.loads, default={})
    parser.add_argument("--toy", action="store_true", help="train the toy family on the workers of the resources")
    arguments = parser.parse_args()
    logging.basicConfig(filename=arguments.folder / "log.txt", level=logging.INFO)
    if arguments.configs:
        study = FakeStudy(arguments.configs, path=arguments.folder / "events.jsonl", stop_above=2.0)
    else:
        study = real_study(arguments.folder)
    resources = Resources(**arguments.resources)
    make = assignments(arguments.folder)
    if arguments.toy:
        from toy_trials import toy_assignment

        def make(trial):
            n_workers = resources.workers_per_trial
            runner = "toy_trials:run"
            return toy_assignment(
                arguments.folder, trial.trial_id, dict(trial.config), n_workers=n_workers, runner=runner
            )

    try:
        ending = run_study(study, make, resources)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 4
    print(ending)
    return 130 if ending == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
