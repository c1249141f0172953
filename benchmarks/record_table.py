"""Record a real table: a grid of small mlp configs on walk-forward folds of daily index data that ships with `arch`.

`python -m benchmarks.record_table --out FOLDER [--source arch_nasdaq] [--lrs N]` trains every config of the grid by the
walk that trials use, and writes `FOLDER/SOURCE.parquet` for `cluster.recorded_table` and `benchmarks/racing.py`. Keep
the folder out of git. What is trained is kept below FOLDER and not trained again where the command is repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cluster.recorded_table import write_table
from search.history import observation_from
from search.parameters import Ordered
from search.space import Space
from search.trial import Config, Observation
from trainables.catalogue import config_class
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.loader import outline
from trainables.protocol import Assignment
from trainables.training.walk import run_trial

SPACE = Space(
    {
        "lr": Ordered(choices=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
        "hidden": Ordered(choices=("32-16", "64-32-16", "128-64-32")),
        "dropout": Ordered(choices=(0.0, 0.2, 0.5)),
        "epochs": Ordered(choices=(2, 6)),
        "batch_size": Ordered(choices=(256, 1024)),
    }
)
"""216 configs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", default="arch_sp500", help="key `source` of the data section")
    parser.add_argument("--set", default="{}", help="JSON of further keys of the data section")
    parser.add_argument("--folds", default='{"max_folds": 12}', help="JSON of the folds section")
    parser.add_argument(
        "--lrs", type=int, default=6, help="learning rates of the grid from the lowest on, fewer for a small table"
    )
    given = parser.parse_args()
    data = DataConfig.model_validate_json(json.dumps({"source": given.source, **json.loads(given.set)}))
    folds = FoldsConfig.model_validate_json(given.folds)
    lr = Ordered(choices=SPACE.parameters["lr"].choices[: given.lrs])
    space = Space({**SPACE.parameters, "lr": lr})
    given.out.mkdir(parents=True, exist_ok=True)
    write_table(given.out / f"{given.source}.parquet", space, reports(space, data, folds, given.out))


def reports(space: Space, data: DataConfig, folds: FoldsConfig, out: Path) -> Iterator[tuple[Config, Observation]]:
    """Yield every report of every config; one line of progress a config."""
    n_folds = len(outline(data, folds).plan.windows)
    for number, config in enumerate(space.points()):
        began = time.monotonic()
        kept = out / "trained" / f"{number:04d}.json"
        if not kept.is_file():
            kept.parent.mkdir(exist_ok=True)
            found = [asdict(r) for r in run_trial(assignment(number, config, space, data, folds, n_folds, out))]
            kept.write_text(json.dumps({"config": config, "reports": found}))
            for folder in ("checkpoints", "evidence"):
                shutil.rmtree(out / folder / f"t{number:04d}", ignore_errors=True)
        body = json.loads(kept.read_text())
        if body["config"] != config or len(body["reports"]) != n_folds:
            raise ValueError(f"{kept}: expected {config} on {n_folds} folds, found another; use an empty --out")
        yield from ((config, observation_from(report)) for report in body["reports"])
        print(f"{number + 1} of {space.n_points()}: {time.monotonic() - began:.1f} s", flush=True)


def assignment(
    number: int, config: Config, space: Space, data: DataConfig, folds: FoldsConfig, n_folds: int, out: Path
) -> Assignment:
    """Return what the walk is given: plain engine, one thread, no curvature."""
    full = config_class("mlp").model_validate_json(json.dumps(dict(config)))
    return Assignment(
        trial_id=f"t{number:04d}",
        family="mlp",
        config=full.model_dump(mode="json"),
        data=data.model_dump(mode="json"),
        folds=folds.model_dump(mode="json"),
        reach=space.reach(),
        ladder=tuple((fold, 1.0) for fold in range(n_folds)),
        seed=number,
        run_dir=str(out),
        options={"engine": "plain", "threads": 1, "flatness_steps": 0},
    )


if __name__ == "__main__":
    main()
