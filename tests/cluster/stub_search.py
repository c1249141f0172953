"""A driver for tests: run stub trials on Ray from the command line, so that a test may kill it."""

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from fake_study import FakeStudy, assignments

from cluster.errors import ClusterError
from cluster.ray_tune import run_study


@dataclass(frozen=True, kw_only=True)
class Resources:
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    max_failures: int = 2
    ray_address: str | None = None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--configs", type=json.loads, required=True)
    parser.add_argument("--resources", type=json.loads, default={})
    parser.add_argument("--stop-above", type=float, default=2.0)
    arguments = parser.parse_args()
    logging.basicConfig(filename=arguments.folder / "log.txt", level=logging.INFO)
    study = FakeStudy(arguments.configs, path=arguments.folder / "events.jsonl", stop_above=arguments.stop_above)
    try:
        ending = run_study(study, assignments(arguments.folder), Resources(**arguments.resources))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 4
    print(ending)
    return 130 if ending == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
