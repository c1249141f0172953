"""The front door: `python search/run.py --space spaces/condor.yaml`, alone or under `ray job submit`.

Here all parts meet, each imported where it is used: `--help` and `--dry-run` load neither torch nor ray. Results go to
standard output and end with the run folder; everything else goes to standard error.
Exit codes: 0 done, 1 no trial could be ranked, 2 configuration, 3 data, 4 environment and storage, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if Path(sys.path[0] or ".").resolve() == ROOT / "search":
    sys.path[0] = str(ROOT)  # `python search/run.py` would otherwise hide the packages behind the files of search/

import argparse  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import secrets  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import asdict, dataclass  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from typing import TYPE_CHECKING, Any, cast  # noqa: E402

if TYPE_CHECKING:
    from analysis.tracking import Tracker
    from search.settings import SearchSection, SpaceFile
    from search.space_file import Document
    from search.study import Study
    from search.trial import Config, Rung, Trial
    from trainables.data.config import DataConfig, FoldsConfig
    from trainables.data.dataset import Dataset
    from trainables.data.loader import MarketOutline
    from trainables.protocol import Assignment

RUNS = Path("runs")
"""Where run folders go by default, below the working directory."""
MOST_DIFFERENCES = 5
"""Lines about what keeps a run from being resumed; the first say enough."""
FLUSH_S = 20.0
"""Seconds that the end of a search waits for a slow tracking server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A search that was checked completely and has not begun."""

    spec: SpaceFile
    data: DataConfig
    folds: FoldsConfig
    document: Document
    config_class: Any
    market: MarketOutline
    ladder: tuple[Rung, ...]
    warnings: tuple[str, ...]
    name: str
    seed: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    chosen = _parser().parse_args(arguments)
    from cluster.errors import ClusterError
    from search.errors import JournalError, SpaceError
    from trainables.errors import DataChanged, DataError

    try:
        return _search(chosen)
    except SpaceError as error:
        return _refuse(2, error)
    except (JournalError, ClusterError, DataChanged, OSError) as error:
        return _refuse(4, error)
    except DataError as error:
        return _refuse(3, error)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="search/run.py",
        description="Search the configurations of a market model over walk-forward folds.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--space", type=Path, metavar="FILE", help="space file, such as spaces/condor.yaml")
    add("--profile", metavar="NAME", help="profile of the space file, such as laptop or smoke")
    add("--seed", type=_seed, metavar="N", help="seed of the search; without it one is drawn and recorded")
    add("--num-samples", type=_count, metavar="N", help="number of trials, instead of budget.trials")
    add("--out", type=Path, metavar="DIR", help="run folder; default runs/SPACE-PROFILE-TIME")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change one value of the space file, such as budget.trials=12; may be repeated")  # fmt: skip
    add("--mlflow-uri", metavar="URI", help="tracking server; default: mlflow.db in the run folder")
    add("--resume", type=Path, metavar="DIR", help="go on with the search of this run folder")
    add("--final-eval", metavar="CHOICE",
        help="open the vault of the run of --resume: for the leader, the confidence_set, or trials as t0007,t0012",
    )  # fmt: skip
    add("--reopen", action="store_true", help="with --final-eval: open a vault that was opened before")
    add("--dry-run", action="store_true", help="print the resolved plan and stop")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^63 - 1, found {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000000, found {text!r}")
    return int(text)


def _refuse(code: int, error: Exception) -> int:
    print(error, file=sys.stderr)
    return code


def _search(chosen: argparse.Namespace) -> int:
    _check_flags(chosen)
    setup = _set_up(chosen)
    for warning in setup.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if chosen.dry_run:
        return _show_plan(setup)
    run_dir = chosen.resume or _new_folder(chosen.out or RUNS / f"{setup.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        dataset = _check_data(setup, run_dir)
    except BaseException:
        if chosen.resume is None:
            shutil.rmtree(run_dir, ignore_errors=True)
        raise
    with _log(run_dir / "log.txt"), _open_study(setup, run_dir, dataset, is_resumed=bool(chosen.resume)) as study:
        plan = _plan_file(setup, run_dir, study, dataset)
        tracker = _track(setup, run_dir, study)
        begun = time.monotonic()
        if chosen.final_eval:
            code = _open_vault(setup, run_dir, study, chosen)
        else:
            ending = _run(setup, run_dir, study)
            wall_s = plan["wall_s"] + time.monotonic() - begun
            code = _conclude(setup, run_dir, study, {**plan, "wall_s": wall_s}, ending)
        tracker.finish(FLUSH_S)
    print(run_dir)
    return code


def _check_flags(chosen: argparse.Namespace) -> None:
    from search.errors import SpaceError

    if chosen.final_eval and chosen.resume is None:
        raise SpaceError("--final-eval: expected --resume DIR, the run whose vault is opened, found none; give it too")
    if chosen.reopen and not chosen.final_eval:
        raise SpaceError("--reopen: expected --final-eval CHOICE beside it, found none; give it too")


def _set_up(chosen: argparse.Namespace) -> Setup:
    """Check the space file, the flags and the times of the data; nothing is written and nothing starts."""
    from search.errors import SpaceError
    from search.trial import ladder
    from search.validity import check_space
    from trainables.catalogue import config_class
    from trainables.data.loader import outline

    spec, document, name = _read_space(chosen)
    family = config_class(spec.family)
    problems, warnings = check_space(
        spec.space(), family, spec.search.enqueue, document,
        optimizer=spec.search.optimizer, trials=spec.budget.trials, allow_partial=spec.search.allow_partial,
    )  # fmt: skip
    if problems:
        raise SpaceError(problems)
    data, folds = cast("DataConfig", spec.data), cast("FoldsConfig", spec.folds)
    market = outline(data, folds)
    return Setup(
        spec=spec,
        data=data,
        folds=folds,
        document=document,
        config_class=family,
        market=market,
        ladder=ladder(len(market.plan.windows), spec.fidelity.rungs_per_fold),
        warnings=warnings,
        name=name,
        seed=spec.search.seed or 0,
    )


def _read_space(chosen: argparse.Namespace) -> tuple[SpaceFile, Document, str]:
    """Read the space file with profile and flags; on a resume that of the run folder, compared with any given."""
    from search.errors import SpaceError
    from search.settings import differences, space_file_model
    from search.space_file import load
    from trainables.catalogue import CONFIGS
    from trainables.data.config import DataConfig, FoldsConfig

    model = space_file_model(DataConfig, FoldsConfig, tuple(CONFIGS))
    flags = [f"search.seed={chosen.seed}"] * (chosen.seed is not None)
    flags += [f"budget.trials={chosen.num_samples}"] * (chosen.num_samples is not None)
    flags += [f"tracking.uri={json.dumps(chosen.mlflow_uri)}"] * (chosen.mlflow_uri is not None)
    if chosen.resume is None:
        if chosen.space is None:
            raise SpaceError(
                "--space: expected a space file, found none; try --space spaces/condor.yaml --profile laptop"
            )
        overrides = [*chosen.overrides, *flags]
        spec, document = load(chosen.space, model=model, profile=chosen.profile, overrides=overrides)
        if spec.search.seed is None:
            overrides.append(f"search.seed={secrets.randbelow(2**31)}")
            spec, document = load(chosen.space, model=model, profile=chosen.profile, overrides=overrides)
        return spec, document, "-".join(filter(None, (chosen.space.stem, chosen.profile)))
    kept = chosen.resume / "space.yaml"
    if not kept.is_file() or not (chosen.resume / "journal.sqlite").is_file():
        raise SpaceError(
            f"--resume {chosen.resume}: expected a run folder with space.yaml and journal.sqlite, found none; "
            "give the last line that a search printed"
        )
    overrides = [*chosen.overrides, *flags]
    spec, document = load(kept, model=model, overrides=overrides)
    saved, given = load(kept, model=model)[1].content, document.content
    if chosen.space is not None:
        _, fresh = load(chosen.space, model=model, profile=chosen.profile, overrides=overrides)
        search = fresh.content["search"]
        seed = saved["search"]["seed"] if search["seed"] is None else search["seed"]
        given = fresh.content | {"search": search | {"seed": seed}}
    if found := differences(saved, given):
        more = [f"and {len(found) - MOST_DIFFERENCES} more values differ"] if len(found) > MOST_DIFFERENCES else []
        raise SpaceError(tuple(f"--resume {chosen.resume}: {line}" for line in [*found[:MOST_DIFFERENCES], *more]))
    return spec, document, chosen.resume.name


def _show_plan(setup: Setup) -> int:
    from rich.console import Console

    from search.plan import gather, show

    plan = gather(setup.spec, setup.config_class, setup.market, setup.ladder, setup.seed)
    show(Console(width=None if sys.stdout.isatty() else 120), plan)
    return 0


def _new_folder(path: Path) -> Path:
    """Make the run folder; refuse one that holds something."""
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"--out {path}: expected a new or empty folder, found files in it; "
                              f"go on with it by --resume {path}, or choose another")  # fmt: skip
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "log.txt").touch()
    except OSError as error:
        raise OSError(f"--out {path}: cannot write there: {error.strerror or error}; choose another folder") from error
    return path


def _check_data(setup: Setup, run_dir: Path) -> Dataset:
    """Build the default config's data set and lay the folds over it, so that data errors come before any trial."""
    from trainables.catalogue import family
    from trainables.data.folds import check_folds

    spec, space = setup.spec, setup.spec.space()
    config = _full_config(setup, space.complete({}))
    dataset: Dataset = family(spec.family).dataset(config, setup.data, setup.folds, space.reach(), run_dir / "store")
    lookback = setup.config_class.scored_lookback(space.reach())
    check_folds(
        setup.market.plan.windows, dataset,
        lookback=lookback, scored_lookback=lookback, embargo=setup.folds.embargo_days,
    )  # fmt: skip
    return dataset


def _open_study(setup: Setup, run_dir: Path, dataset: Dataset, is_resumed: bool) -> Study:
    from search.objective import Objective
    from search.study import Study
    from search.validity import infeasible_reason

    spec, search = setup.spec, setup.spec.search
    header = {
        "family": spec.family,
        "data_snapshot": dataset.snapshot,
        "data": spec.data.model_dump(mode="json"),
        "folds": spec.folds.model_dump(mode="json"),
        "marks": dict(dataset.marks),
        **_provenance(),
    }
    charter = {
        "space": spec.space(),
        "ladder": setup.ladder,
        "n_trials": spec.budget.trials,
        "objectives": [Objective(o.metric, "min" if o.direction == "minimize" else "max") for o in spec.objectives],
        "optimizer": {
            "name": search.optimizer,
            **({"n_startup": search.n_startup} if search.optimizer == "tpe" else {}),
        },
        "stopping": {"name": search.stopping.rule, **search.stopping.model_dump(exclude={"rule"})},
        "seed": setup.seed,
        "enqueue": search.enqueue,
        "population": search.population,
        "synchronous": search.synchronous,
        "limits": spec.limits(),
    }
    if not is_resumed:
        (run_dir / "space.yaml").write_text(setup.document.resolved_yaml(), encoding="utf-8")
    make = Study.resume if is_resumed else Study.create

    def infeasible(config: Config) -> str | None:
        return infeasible_reason(config, setup.config_class)

    return make(run_dir / "journal.sqlite", header=header, infeasible=infeasible, **charter)


def _optimizer_settings(search: SearchSection) -> dict[str, Any]:
    has_startup = search.optimizer in ("tpe", "gp", "evolutionary_bayesian")
    return {"n_startup": search.n_startup} if has_startup and search.n_startup is not None else {}


def _provenance() -> dict[str, Any]:
    """Return commit (with `+` where the tree was changed), versions and the lock file's hash (REPRO-2)."""
    import hashlib
    import importlib.metadata
    import platform
    import subprocess

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    packages = ("torch", "deepspeed", "ray", "optuna", "mlflow", "numpy", "pyarrow", "arch")
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else ""),
        "versions": {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in packages},
        "constraints_sha256": hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()[:16],
    }


def _run(setup: Setup, run_dir: Path, study: Study) -> str:
    """Run the study's trials; return why it came back: finished, deadline or interrupted."""
    from cluster.ray_tune import run_study
    from search.progress import Progress

    spec = setup.spec
    wall_s = spec.budget.wall_minutes and spec.budget.wall_minutes * 60
    end = time.monotonic() + wall_s if wall_s else None
    metric = spec.objectives[0].metric
    with Progress(study, metric=metric, n_rungs=len(setup.ladder), wall_s=wall_s) as progress:
        return run_study(
            study,
            lambda trial: _assignment(setup, run_dir, trial),
            spec.resources,
            on_tick=progress.tick,
            deadline=lambda: end is not None and time.monotonic() > end,
        )


def _full_config(setup: Setup, config: Config) -> Any:
    """Return the family's config: what the space leaves out takes its default."""
    return setup.config_class.model_validate_json(json.dumps(dict(config)))


def _assignment(setup: Setup, run_dir: Path, trial: Trial) -> Assignment:
    from trainables.protocol import Assignment

    spec = setup.spec
    return Assignment(
        trial_id=trial.trial_id,
        family=spec.family,
        config=_full_config(setup, trial.config).model_dump(mode="json"),
        data=spec.data.model_dump(mode="json"),
        folds=spec.folds.model_dump(mode="json"),
        reach=spec.space().reach(),
        ladder=tuple((rung.fold, rung.share) for rung in setup.ladder),
        seed=trial.seed,
        run_dir=str(run_dir.resolve()),
        options={"engine": spec.resources.engine, "threads": spec.resources.threads},
    )


def _plan_file(setup: Setup, run_dir: Path, study: Study, dataset: Dataset) -> dict[str, Any]:
    """Write `plan.json`, what the reports read beside the tables; a resumed run keeps its start and its wall time."""
    from analysis.run_folder import write_plan
    from analysis.vault import write_ledger
    from search.final_evaluation import ledger_rows
    from search.plan import day, fold_dates

    file = run_dir / "plan.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    header, spec = study.history.header, setup.spec
    plan = {
        "family": spec.family,
        "seed": setup.seed,
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in study.charter.objectives],
        "folds": [asdict(fold) for fold in fold_dates(setup.market)],
        "ladder": [[rung.fold, rung.share] for rung in setup.ladder],
        "marks": dict(dataset.marks),
        "data_snapshot": dataset.snapshot,
        "commit": header["commit"],
        "versions": header["versions"],
        "started_utc": before.get("started_utc", datetime.now(UTC).isoformat(timespec="seconds")),
        "ended_utc": before.get("ended_utc") if study.is_done else None,
        "wall_s": before.get("wall_s") or 0.0,
        "vault": {
            "start": day(setup.market.plan.vault_start),
            "end": day(setup.market.plan.vault_end - 1),
        },
        "optimizer": spec.search.optimizer,
        "stopping": spec.search.stopping.rule,
        "n_trials": spec.budget.trials,
        "data": setup.data.source,
        "experiment": spec.tracking.experiment,
        "constraints_sha256": header["constraints_sha256"],
    }
    write_plan(run_dir, plan)
    if study.history.openings:
        write_ledger(run_dir, ledger_rows(study.history.openings))
    return plan


def _track(setup: Setup, run_dir: Path, study: Study) -> Tracker:
    """Start the mirror in MLflow on what the journal holds, and keep it told."""
    from analysis.tracking import NoTracker, start

    tracking = setup.spec.tracking
    tracker = start(run_dir, uri=tracking.uri) if tracking.enabled else NoTracker()
    tracker.replay(asdict(event) for event in study.events())
    study.subscribe(lambda event, _: tracker.submit(asdict(event)))
    return tracker


def _conclude(setup: Setup, run_dir: Path, study: Study, plan: dict[str, Any], ending: str) -> int:
    """Write tables, ranking, report and best config; print the ranking and what to type next; return the exit code."""
    from analysis.reports import console, page
    from analysis.run_folder import RunFolder, write_plan, write_tables
    from search.outcome import fold_rows, trial_rows

    trials = list(study.trials.values())
    ended = datetime.now(UTC).isoformat(timespec="seconds") if ending == "finished" else None
    write_plan(run_dir, {**plan, "ended_utc": ended})
    write_tables(run_dir, trial_rows(trials), fold_rows(trials))
    board, said = page.write(RunFolder(run_dir))
    if board.leader is not None:
        _write_best(setup, run_dir, study.trials[board.leader.trial_id])
    console.show(board, run_dir, said)
    if ending != "finished":
        print(f"{ending}: go on with   python search/run.py --resume {run_dir}")
    if study.stop_reason:
        print(f"the search stopped: {study.stop_reason}")
    return 130 if ending == "interrupted" else 0 if board.ranked else 1


def _open_vault(setup: Setup, run_dir: Path, study: Study, chosen: argparse.Namespace) -> int:
    """Score a choice of trials on the vault, write the ledger and the report; return the exit code."""
    from analysis import vault
    from analysis.reports import console, page
    from analysis.run_folder import RunFolder
    from cluster.ray_tune import run_study
    from search.errors import SpaceError
    from search.final_evaluation import FinalEvaluation, ledger_rows
    from search.progress import Progress

    try:
        trial_ids = vault.choose(RunFolder(run_dir), chosen.final_eval)
    except ValueError as error:
        raise SpaceError(f"--final-eval {chosen.final_eval}: {error}") from error
    evaluation = FinalEvaluation(study, trial_ids, choice=chosen.final_eval, again=chosen.reopen)
    vault.write_ledger(run_dir, ledger_rows(study.history.openings))
    metric = setup.spec.objectives[0].metric
    with Progress(evaluation, metric=metric, n_rungs=1) as progress:
        run_study(
            evaluation,
            lambda trial: _final_assignment(setup, run_dir, trial, evaluation.opening.number),
            setup.spec.resources,
            on_tick=progress.tick,
        )
    vault.write_ledger(run_dir, ledger_rows(study.history.openings))
    run = RunFolder(run_dir)
    page.write(run)
    console.show_final(run, vault.read_ledger(run_dir), vault.scores(run))
    for line in evaluation.failures():
        print(f"not scored: {line}", file=sys.stderr)
    return 0 if evaluation.opening.is_complete else 1


def _final_assignment(setup: Setup, run_dir: Path, trial: Trial, opening: int) -> Assignment:
    """Return what a worker needs to train a trial up to the vault and score it there, in a folder of its own."""
    from dataclasses import replace

    from analysis.vault import folder
    from search.final_evaluation import LADDER

    given = _assignment(setup, run_dir, trial)
    return replace(
        given,
        folds={**given.folds, "opening": opening},
        ladder=tuple((rung.fold, rung.share) for rung in LADDER),
        run_dir=str(folder(run_dir, opening).resolve()),
    )


def _write_best(setup: Setup, run_dir: Path, trial: Trial) -> None:
    """Write `best_config.yaml`, which `python -m trainables.train --config` trains again."""
    from search.yaml_writer import write_yaml

    assignment = _assignment(setup, run_dir, trial)
    text = write_yaml(
        {
            "family": assignment.family,
            "config": dict(assignment.config),
            "data": dict(assignment.data),
            "folds": dict(assignment.folds),
            "seed": assignment.seed,
            "reach": {name: list(values) for name, values in assignment.reach.items()},
        }
    )
    (run_dir / "best_config.yaml").write_text(text, encoding="utf-8")


@contextmanager
def _log(path: Path) -> Iterator[None]:
    """Send log records and Python's warnings to the run's log file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    sys.exit(main())
