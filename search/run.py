"""The front door: `python search/run.py --space spaces/condor.yaml`, alone or under `ray job submit`.

Here and in `search/command/` all parts meet, each imported where it is used: `--help` and `--dry-run` load neither
torch nor ray. Results go to standard output and end with the run folder; everything else goes to standard error.
Exit codes: 0 done, 1 no trial could be ranked, 2 configuration, 3 data, 4 environment and storage, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if Path(sys.path[0] or ".").resolve() == ROOT / "search":
    sys.path[0] = str(ROOT)  # `python search/run.py` would otherwise hide the packages behind the files of search/

import argparse  # noqa: E402
import logging  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import asdict  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from search.command.assignments import final_assignment, trial_assignment  # noqa: E402
from search.command.opening import check_data, open_study, taken_over  # noqa: E402
from search.command.records import conclude, plan_file  # noqa: E402
from search.command.setup import Setup, set_up  # noqa: E402

if TYPE_CHECKING:
    from analysis.tracking import Tracker
    from search.study import Study

RUNS = Path("runs")
"""Where run folders go by default, below the working directory."""
FLUSH_S = 20.0
"""Seconds that the end of a search waits for a slow tracking server."""


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
    add("--warm-start", metavar="SOURCE",
        help="begin from an earlier search: a run folder, mlflow:URI#EXPERIMENT or optuna:URL#STUDY")  # fmt: skip
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
    setup = set_up(chosen)
    for warning in setup.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if chosen.dry_run:
        return _show_plan(setup)
    run_dir = chosen.resume or _new_folder(chosen.out or RUNS / f"{setup.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        dataset, scored = check_data(setup, run_dir)
        warm = taken_over(setup, run_dir, scored, is_resumed=bool(chosen.resume))
    except BaseException:
        if chosen.resume is None:
            shutil.rmtree(run_dir, ignore_errors=True)
        raise
    is_resumed = bool(chosen.resume)
    with _log(run_dir / "log.txt"), open_study(setup, run_dir, dataset, scored, warm, is_resumed) as study:
        plan = plan_file(setup, run_dir, study, dataset)
        tracker = _track(setup, run_dir, study)
        begun = time.monotonic()
        if chosen.final_eval:
            code = _open_vault(setup, run_dir, study, chosen)
        else:
            ending = _run(setup, run_dir, study)
            wall_s = plan["wall_s"] + time.monotonic() - begun
            code = conclude(setup, run_dir, study, {**plan, "wall_s": wall_s}, ending)
        tracker.finish(FLUSH_S)
    print(run_dir)
    return code


def _check_flags(chosen: argparse.Namespace) -> None:
    from search.errors import SpaceError

    if chosen.final_eval and chosen.resume is None:
        raise SpaceError("--final-eval: expected --resume DIR, the run whose vault is opened, found none; give it too")
    if chosen.warm_start is not None and chosen.resume is not None:
        raise SpaceError("--warm-start: expected a new search, found --resume beside it; what a run took over it keeps")
    if chosen.reopen and not chosen.final_eval:
        raise SpaceError("--reopen: expected --final-eval CHOICE beside it, found none; give it too")


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
            lambda trial: trial_assignment(setup, run_dir, trial),
            spec.resources,
            on_tick=progress.tick,
            deadline=lambda: end is not None and time.monotonic() > end,
        )


def _track(setup: Setup, run_dir: Path, study: Study) -> Tracker:
    """Start the mirror in MLflow on what the journal holds, and keep it told."""
    from analysis.tracking import NoTracker, start

    tracking = setup.spec.tracking
    tracker = start(run_dir, uri=tracking.uri) if tracking.enabled else NoTracker()
    tracker.replay(asdict(event) for event in study.events())
    study.subscribe(lambda event, _: tracker.submit(asdict(event)))
    return tracker


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
            lambda trial: final_assignment(setup, run_dir, trial, evaluation.opening.number),
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
