"""Trials of the toy family that workers find by name, for searches whose trials have several workers."""

from dataclasses import replace
from pathlib import Path

from fake_study import LADDER

from trainables import catalogue
from trainables.protocol import Assignment
from trainables.training.walk import run_trial

DATA = {"source": "arch_sp500", "start": "2016-01-01", "end": "2018-01-01"}
FOLDS = {"train_months": 16, "validation_months": 2, "test_months": 2}
OPTIONS = {"deterministic": True, "flatness_steps": 0, "threads": 1}


def run(assignment):
    """Run the shared walk on the toy family, which the catalogue does not know."""
    catalogue.CONFIGS["toy"] = "tests.trainables.training.toy:ToyConfig"
    catalogue.FAMILIES["toy"] = "tests.trainables.training.toy:FAMILY"
    options = {name: value for name, value in assignment.options.items() if name != "runner"}
    return run_trial(replace(assignment, options=options))


def toy_assignment(folder: Path, trial_id: str, config: dict, *, n_workers: int, **options) -> Assignment:
    return Assignment(
        trial_id=trial_id,
        family="toy",
        config={"dropout": 0.0, "epochs": 1, "accum_steps": 2, **config},
        data=DATA,
        folds=FOLDS,
        reach={},
        ladder=tuple((rung.fold, rung.share) for rung in LADDER),
        seed=5,
        run_dir=str(folder),
        options={**OPTIONS, **options},
        n_workers=n_workers,
    )
