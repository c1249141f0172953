"""Train one configuration over the folds: `python -m trainables.train --config best_config.yaml`.

The same walk as in a trial of a search, without ray, optuna or mlflow. Exit codes: 0 done, 1 training failed or
diverged, 2 wrong input, 3 unusable data, 4 environment or storage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trainables import catalogue
from trainables.config import StrictModel
from trainables.data.config import DataConfig, FoldsConfig
from trainables.errors import DataError
from trainables.protocol import Assignment, RungReport, TrialDiverged, is_out_of_memory

TRIAL_ID = "final"
"""Names the files of the trained configuration below the output folder."""
GENE_FLAGS = {
    "--d-model": ("d_model", int),
    "--layers": ("n_layers", int),
    "--epochs": ("epochs", int),
    "--batch-size": ("batch_size", int),
    "--accum-steps": ("accum_steps", int),
    "--lr": ("lr", float),
    "--lookback": ("lookback", int),
}
"""Flag -> field of the config and type (TRAIN-5)."""
SWITCHES = {
    "--composite-loss": ("loss", "composite"),
    "--vol-gated-attn": ("vol_gated_attn", True),
    "--topk-moe": ("moe", "topk"),
    "--grad-checkpoint": ("grad_checkpoint", True),
}
"""Switch -> field of the config and what it is set to (CONDOR-23)."""


class Ancestor(StrictModel):
    """A trial that a configuration has its first weights from, or that such a trial has them from."""

    config: dict[str, Any]
    """Fields of the family's config."""
    seed: int = Field(ge=0)
    """Seed of its training."""
    inherit: tuple[tuple[int, int], ...] = ()
    """Pairs (fold, fold of the ancestor before whose weights it begins with)."""


class TrainFile(StrictModel):
    """What `best_config.yaml` holds: one configuration and all that it was trained on."""

    family: str = "condor"
    """Key of the catalogue: condor, mlp."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the family's config; what is absent has its default."""
    data: DataConfig = DataConfig()
    """Where the market comes from."""
    folds: FoldsConfig = FoldsConfig()
    """Walk-forward folds."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training."""
    reach: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values that the search allowed, so that the same timestamps are scored; empty: those of this configuration."""
    n_folds: int | None = Field(default=None, ge=1)
    """Train this many folds, the first ones; none: all."""
    lineage: tuple[Ancestor, ...] = ()
    """Population-based training: whose weights came before, oldest first; they are trained first."""
    inherit: tuple[tuple[int, int], ...] = ()
    """Pairs (fold, fold of the last of the lineage whose weights it begins with)."""


class InputError(ValueError):
    """A flag or the file is wrong; one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = _parser().parse_args(arguments)
    console, problems = Console(), Console(stderr=True)
    try:
        wanted = read_request(given)
        reports = train(wanted, given, console)
    except (InputError, DataError, ImportError, OSError, ValueError, TrialDiverged) as error:
        problems.print(f"{_one_line(error)}", style="red", markup=False, highlight=False)
        return _exit_code(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        text = f"out of memory, with half the micro-batch too: {reason}; lower --batch-size"
        problems.print(text, style="red", markup=False, highlight=False)
        return 1
    console.print(_summary(reports, wanted.family))
    print(given.out)
    return 0


def read_request(given: argparse.Namespace) -> TrainFile:
    """Return the file of `--config` with the flags over it, completely validated.

    Raises:
        InputError: The file cannot be read, or a field, flag or family is wrong.
    """
    values = _read_yaml(given.config) if given.config else {}
    where = given.config or "command line"
    if given.family:
        values["family"] = given.family
    genes = {field: getattr(given, field) for field, _ in GENE_FLAGS.values() if getattr(given, field) is not None}
    switched = {field: value for flag, (field, value) in SWITCHES.items() if getattr(given, _name(flag))}
    if genes or switched:
        values["config"] = {**(values.get("config") or {}), **genes, **switched}
    if given.local_data:
        values["data"] = {**(values.get("data") or {}), "source": "files", "bars": given.local_data}
    if given.seed is not None:
        values["seed"] = given.seed
    try:
        wanted = TrainFile.model_validate_json(json.dumps(values))
        config = catalogue.config_class(wanted.family).model_validate_json(json.dumps(wanted.config))
    except ValidationError as error:
        raise InputError("\n".join(_problem(where, problem) for problem in error.errors())) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: {error}") from error
    return wanted.model_copy(update={"config": config.model_dump(mode="json")})


def train(wanted: TrainFile, given: argparse.Namespace, console: Console) -> list[RungReport]:
    """Train over the folds with a display of progress; return the reports of complete folds, resumed ones included."""
    from trainables.training.artifact import load_training_metrics
    from trainables.training.display import TrainingDisplay
    from trainables.training.walk import run_trial

    final = assignment(wanted, given)
    for ancestor in ancestors(wanted, final):
        console.print(f"{ancestor.trial_id}: trained for its weights")
        for _ in run_trial(ancestor):
            pass
    last_fold = max(fold for fold, _ in final.ladder)
    lookback = catalogue.config_class(final.family).model_validate_json(json.dumps(final.config)).lookback
    with TrainingDisplay(console, last_fold=last_fold, lookback=lookback) as display:
        for report in run_trial(final, display.stepped):
            display.reported(report)
    return load_training_metrics(given.out / "checkpoints" / TRIAL_ID)


def assignment(wanted: TrainFile, given: argparse.Namespace) -> Assignment:
    """Return what the walk is given: every fold, with one rung, or one after every epoch."""
    from trainables.data.loader import outline

    n_planned = len(outline(wanted.data, wanted.folds).plan.windows)
    n_folds = min(n_planned, given.n_folds or wanted.n_folds or n_planned)
    n_rungs = wanted.config["epochs"] if given.by_epoch else 1
    options = {name: getattr(given, name) for name in ("engine", "device", "threads") if getattr(given, name)}
    return Assignment(
        trial_id=TRIAL_ID,
        family=wanted.family,
        config=wanted.config,
        data=wanted.data.model_dump(mode="json"),
        folds=wanted.folds.model_dump(mode="json"),
        reach=wanted.reach,
        ladder=tuple((fold, (k + 1) / n_rungs) for fold in range(n_folds) for k in range(n_rungs)),
        seed=wanted.seed,
        run_dir=str(given.out),
        options={**options, "deterministic": given.deterministic, "curves": True},
        inherit=_inherit(len(wanted.lineage) - 1, wanted.inherit),
    )


def ancestors(wanted: TrainFile, final: Assignment) -> list[Assignment]:
    """Return what the walk is given for each ancestor, oldest first: all folds, with their weights kept."""
    return [
        replace(
            final,
            trial_id=f"{TRIAL_ID}-{generation}",
            config=ancestor.config,
            seed=ancestor.seed,
            inherit=_inherit(generation - 1, ancestor.inherit),
            options={**final.options, "keep_fold_weights": True},
        )
        for generation, ancestor in enumerate(wanted.lineage)
    ]


def _inherit(generation: int, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"trial_id": f"{TRIAL_ID}-{generation}", "folds": [list(pair) for pair in pairs]} if pairs else {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainables.train", description="Train one configuration over the folds."
    )
    parser.add_argument(
        "--config", type=Path, help="YAML with family, config, data, folds, seed (a search's best_config.yaml)"
    )
    parser.add_argument("--family", help="family, where no file says it (default condor)")
    parser.add_argument("--local-data", help="Parquet or CSV file of bars")
    for flag, (field, kind) in GENE_FLAGS.items():
        parser.add_argument(flag, dest=field, type=kind, help=f"field {field} of the config")
    for flag, (field, value) in SWITCHES.items():
        parser.add_argument(flag, action="store_true", help=f"set {field} to {json.dumps(value)}")
    parser.add_argument("--seed", type=int, help="seed of the training")
    parser.add_argument("--n-folds", type=int, help="train the first so many folds only")
    parser.add_argument("--by-epoch", action="store_true", help="score the validation rows after every epoch")
    parser.add_argument("--engine", choices=("auto", "deepspeed", "plain"), help="default: deepspeed where installed")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--deterministic", action="store_true", help="refuse operations that depend on thread order")
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="output folder (default runs/train)")
    return parser


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: expected a readable YAML file, found {error.strerror}; correct --config") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected YAML 1.2, found {' '.join(str(error).split())}; correct the file"
        ) from error
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: expected sections family, config, data, folds, seed, found {type(values).__name__}")
    return dict(values)


def _problem(where: object, problem: Any) -> str:
    """Return one line of a validation error; a rule over several fields names what it found itself."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return f"{where}: {message}"
    return f"{where}: {'.'.join(map(str, problem['loc']))}: {message}, found {problem['input']!r}; correct it"


def _one_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "\n".join(_problem("options", problem) for problem in error.errors())
    return str(error)


def _exit_code(error: BaseException) -> int:
    """Return 3 for data, 2 for other wrong input, 4 for storage and missing packages, 1 for a training that failed."""
    if isinstance(error, DataError):
        return 3
    if isinstance(error, ValueError):
        return 2
    return 4 if isinstance(error, (OSError, ImportError)) else 1


def _summary(reports: Sequence[RungReport], family: str) -> Table:
    names = [n for n in ("val_loss", "train_loss", "ic", "crps", "flatness") if any(n in r.metrics for r in reports)]
    table = Table("fold", "scored", *names, "s", title=f"{family}: {len(reports)} folds")
    for report in reports:
        values = [f"{report.metrics[n]:.5f}" if n in report.metrics else "-" for n in names]
        table.add_row(str(report.fold), str(report.n_scored), *values, f"{report.seconds:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
