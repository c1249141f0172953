"""What workers are given: a trial of the search, one for the vault, and the best one to be trained again by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.command.setup import Setup

if TYPE_CHECKING:
    from search.trial import Trial
    from trainables.protocol import Assignment


def trial_assignment(setup: Setup, run_dir: Path, trial: Trial) -> Assignment:
    """Return what a worker needs to train a trial over the folds of the search."""
    from trainables.protocol import Assignment

    spec = setup.spec
    return Assignment(
        trial_id=trial.trial_id,
        family=spec.family,
        config=setup.full_config(trial.config).model_dump(mode="json"),
        data=spec.data.model_dump(mode="json"),
        folds=spec.folds.model_dump(mode="json"),
        reach=spec.space().reach(),
        ladder=tuple((rung.fold, rung.share) for rung in setup.ladder),
        seed=trial.seed,
        run_dir=str(run_dir.resolve()),
        options={
            "engine": spec.resources.engine,
            "threads": spec.resources.threads,
            "reuse_dir": str(results_folder(setup, run_dir)) if spec.search.reuse else None,
            "keep_fold_weights": spec.search.optimizer == "population_based",
        },
        n_workers=spec.resources.workers_per_trial,
        fidelity=setup.fidelity,
        inherit=trial.inherit,
    )


def results_folder(setup: Setup, run_dir: Path) -> Path:
    """Return where results of folds are kept for later searches."""
    chosen = setup.spec.search.reuse_dir
    return Path(chosen).resolve() if chosen else run_dir.resolve().parent / "results"


def final_assignment(setup: Setup, run_dir: Path, trial: Trial, opening: int) -> Assignment:
    """Return what a worker needs to train a trial up to the vault and score it there, in a folder of its own."""
    from analysis.vault import folder
    from search.errors import SpaceError
    from search.final_evaluation import LADDER

    if trial.inherit:
        raise SpaceError(
            f"--final-eval: {trial.trial_id} began with weights of {trial.inherit['trial_id']}, so its config alone "
            "is not what was chosen; choose trials that began afresh"
        )
    given = trial_assignment(setup, run_dir, trial)
    return replace(
        given,
        options={**given.options, "reuse_dir": None},  # what the vault says stays with its ledger
        folds={**given.folds, "opening": opening},
        ladder=tuple((rung.fold, rung.share) for rung in LADDER),
        run_dir=str(folder(run_dir, opening).resolve()),
    )


def write_best(setup: Setup, run_dir: Path, trials: Mapping[str, Trial], trial_id: str) -> None:
    """Write `best_config.yaml`, which `python -m trainables.train --config` trains again, its lineage included."""
    from search.lineage import ancestors
    from search.yaml_writer import write_yaml

    assignment = trial_assignment(setup, run_dir, trials[trial_id])
    accum_steps = assignment.config["accum_steps"] * assignment.n_workers  # one process, the same effective batch
    lineage = [trial_assignment(setup, run_dir, trial) for trial in ancestors(trials, trial_id)]
    inherited = {
        "lineage": [{"config": dict(a.config), "seed": a.seed, "inherit": a.inherit.get("folds", [])} for a in lineage],
        "inherit": assignment.inherit.get("folds", []),
    }
    text = write_yaml(
        {
            "family": assignment.family,
            "config": {**assignment.config, "accum_steps": accum_steps},
            "data": dict(assignment.data),
            "folds": dict(assignment.folds),
            "seed": assignment.seed,
            "reach": {name: list(values) for name, values in assignment.reach.items()},
            **(inherited if lineage else {}),
        }
    )
    (run_dir / "best_config.yaml").write_text(text, encoding="utf-8")
