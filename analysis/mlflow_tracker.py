"""MLflow as a sink of `analysis.tracking`; this file and `analysis.mlflow_registry` alone import mlflow.

One run for the search, a child for each trial, made when the trial has ended.
`python -m analysis.mlflow_tracker RUN_DIR [--uri URI]` sends what the journal holds and the server does not know yet.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import math
import os
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

# Read by MLflow at import: what is searched for here is nobody else's business.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

with warnings.catch_warnings():  # MLflow's models use a loader that SQLAlchemy 2.1 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking import MlflowClient

from analysis import mlflow_registry as registry
from analysis.run_folder import FIDELITY, Plan, RunFolder, RunFolderError, fidelity, read_plan
from analysis.tracking import DATABASE, Rejected, TrialRecord, start, target_name

ARTIFACTS = "mlartifacts"
FILES = ("report.html", "ranking.csv", "trials.parquet", "folds.parquet", "plan.json", "space.yaml", "best_config.yaml")
"""Files of the run folder that become artifacts of the search's run; evidence is too large and stays in the folder."""
MOST_METRICS, MOST_PARAMETERS, LONGEST_TEXT = 60, 100, 500
FIRST_METRICS = ("val_loss", "ic", "crps", "flatness", "regime_accuracy", "train_loss")
REQUEST_SECONDS = "10"
STATUS = {"complete": "FINISHED", "stopped": "KILLED", "paused": "KILLED"}
_log = logging.getLogger(__name__)
_SEARCH, _TRIAL = "condor.search", "condor.trial"
_INVALID = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")


class MlflowSink:
    """Sends trials to a tracking server.

    Args:
        run_dir: Run folder with `plan.json`.
        uri: Tracking URI; none: `mlflow.db` in the run folder, made here if needed, artifacts in `mlartifacts`.

    Raises:
        MlflowException: The server does not answer.
        RunFolderError: There is no plan.
    """

    def __init__(self, run_dir: Path, uri: str | None = None) -> None:
        self._run_dir = run_dir.resolve()
        self._plan = read_plan(run_dir)
        if uri is None:
            _create_database(self._run_dir)
        elif uri.startswith("http"):
            # MLflow takes these from the environment only. Its own defaults wait for minutes; the mirror tries again.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", REQUEST_SECONDS)
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{self._run_dir / DATABASE}")
        self._experiment_id = self._experiment(is_local=uri is None)
        self._key = search_key(self._plan)
        self._parent = self._find_or_create(
            f"tags.`{_SEARCH}` = '{self._key}' and tags.`{_TRIAL}` = ''", self._search_run
        )

    def send(self, trial: TrialRecord) -> None:
        """Make the trial's child run, or complete the one that an interrupted attempt left.

        Raises:
            Rejected: The server calls the record invalid.
            MlflowException: The server does not answer.
        """
        query = f"tags.`{_SEARCH}` = '{self._key}' and tags.`{_TRIAL}` = '{trial.trial_id}'"
        run_id = self._find_or_create(query, lambda: self._trial_run(trial)).info.run_id
        try:
            self._client.log_batch(run_id, metrics=metrics_of(trial), params=parameters_of(trial))
        except MlflowException as error:
            if error.error_code in _INVALID:
                raise Rejected(str(error)) from error
            raise
        self._client.set_terminated(run_id, status=STATUS.get(trial.state, "FAILED"), end_time=trial.ended_ms)

    def close(self) -> None:
        """Send the files of the run folder, folds and model of the finalists, and end the run of the search."""
        run_id = self._parent.info.run_id
        for name in FILES:
            if (self._run_dir / name).is_file():
                self._client.log_artifact(run_id, str(self._run_dir / name))
        if (self._run_dir / "trials.parquet").is_file():
            try:
                self._send_finalists(RunFolder(self._run_dir))
            except (MlflowException, RunFolderError) as error:
                if isinstance(error, MlflowException) and error.error_code not in _INVALID:
                    raise  # no answer: it is tried again
                _log.warning("mlflow: no model is registered: %s", " ".join(str(error).split())[:LONGEST_TEXT])
        self._client.set_terminated(run_id, status="FINISHED")

    def _send_finalists(self, run: RunFolder) -> None:
        for trial_id in registry.finalists(run):
            query = f"tags.`{_SEARCH}` = '{self._key}' and tags.`{_TRIAL}` = '{trial_id}'"
            for child in self._client.search_runs([self._experiment_id], filter_string=query, max_results=1):
                registry.log_folds(self._client, run, trial_id, child)
        name = str(self._plan.more.get("experiment") or f"condor-search-{self._plan.family}").replace("/", "-")
        version = registry.register(self._client, run, self._parent, name)
        if version is not None:
            self._client.set_tag(self._parent.info.run_id, "registered_model", f"{name} version {version}")

    def _experiment(self, *, is_local: bool) -> str:
        name = str(self._plan.more.get("experiment") or f"condor-search/{self._plan.family}")
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (self._run_dir / ARTIFACTS).as_uri() if is_local else None
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException as error:  # another search of this family made it in the meantime
            found = self._client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def _find_or_create(self, query: str, create: Any) -> Run:
        found = self._client.search_runs([self._experiment_id], filter_string=query, max_results=1)
        return found[0] if found else create()

    def _search_run(self) -> Run:
        tags = {_SEARCH: self._key, _TRIAL: "", **_plan_tags(self._plan)}
        run = self._client.create_run(self._experiment_id, tags=tags, run_name=self._run_dir.name)
        facts = {"seed": self._plan.seed, "n_folds": len(self._plan.folds), "order": self._plan.order}
        facts |= {k: v for k, v in self._plan.more.items() if isinstance(v, (str, int, float))}
        self._client.log_batch(run.info.run_id, params=_parameters(facts))
        self._client.log_inputs(run.info.run_id, datasets=[_dataset(self._plan)])
        return run

    def _trial_run(self, trial: TrialRecord) -> Run:
        tags = {
            _SEARCH: self._key,
            _TRIAL: trial.trial_id,
            "mlflow.parentRunId": self._parent.info.run_id,
            "state": trial.state,
            "origin": trial.origin,
            "generation": str(trial.generation),
            "parents": ",".join(trial.parents),
            "seed": str(trial.seed),
            "reason": trial.reason[:LONGEST_TEXT],
            **_plan_tags(self._plan),
        }
        return self._client.create_run(
            self._experiment_id, start_time=trial.started_ms, tags=tags, run_name=trial.trial_id
        )


def search_key(plan: Plan) -> str:
    """Return what tells one search from another on a shared server; a resumed search keeps it."""
    told = json.dumps([plan.family, plan.seed, plan.data_snapshot, plan.started_utc])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def metrics_of(trial: TrialRecord) -> list[Metric]:
    """Return at most 60 finite metrics with names that line up between trials: `x`, `x_se`, and the loss by fold.

    Times are those of the journal, so sending twice leaves one copy. MLflow would turn infinity into a huge number and
    let a broken trial lead its tables: what is not finite is left out.
    """
    order = [m for m in FIRST_METRICS if m in trial.metrics] + sorted(set(trial.metrics) - set(FIRST_METRICS))
    named: list[tuple[str, float | None]] = [("seconds", trial.seconds), ("n_folds", float(len(trial.fold_losses)))]
    for name in order:
        named += [(name, trial.metrics[name].mean), (f"{name}_se", trial.metrics[name].error)]
    finite = [(name, value) for name, value in named if value is not None and math.isfinite(value)]
    kept = [Metric(name, value, trial.ended_ms, 0) for name, value in finite[: MOST_METRICS - 1]]
    return kept + [Metric("fold_val_loss", loss, trial.ended_ms, fold) for fold, loss in trial.fold_losses]


def parameters_of(trial: TrialRecord) -> list[Param]:
    """Return at most 100 parameters as text; nested values as JSON."""
    return _parameters(trial.parameters)


def _parameters(values: Mapping[str, Any]) -> list[Param]:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in list(values.items())[:MOST_PARAMETERS]}
    return [Param(k, text[:LONGEST_TEXT]) for k, text in texts.items()]


def _plan_tags(plan: Plan) -> dict[str, str]:
    tags = {"family": plan.family, "commit": plan.commit, "data_snapshot": plan.data_snapshot}
    tags |= {"scored": str(plan.more["scored"])} if "scored" in plan.more else {}
    tags |= {"fidelity": json.dumps(told)} if len(told := fidelity(plan)) == len(FIDELITY) else {}
    return tags | {f"mark.{name}": what[:LONGEST_TEXT] for name, what in plan.marks.items()}


def stored_trials(uri: str, experiment: str) -> list[dict[str, Any]]:
    """Return the ended trials of the newest search in an experiment: what `search.warm_start` reads.

    Args:
        uri: Tracking URI.
        experiment: Its name.

    Returns:
        Mappings with `trial_id`, `state`, `parameters` (text by name), `fold_losses` ((fold, validation loss) pairs),
        `family`, `scored` and `fidelity` (None where not told); in the order of their start.

    Raises:
        ValueError: The server does not answer, or has no such experiment or no search in it; one line.
    """
    client = MlflowClient(tracking_uri=uri)
    try:
        found = client.get_experiment_by_name(experiment)
        ids = [found.experiment_id] if found is not None else []
        searches = client.search_runs(ids, f"tags.`{_TRIAL}` = ''", max_results=1) if ids else []
        if not searches:
            raise ValueError(f"expected a search in experiment {experiment} of {uri}, found none")
        query = f"tags.`{_SEARCH}` = '{searches[0].data.tags[_SEARCH]}' and tags.`{_TRIAL}` != ''"
        runs: list[Run] = []
        token: str | None = ""
        while token is not None:
            page = client.search_runs(ids, query, order_by=["attributes.start_time ASC"], page_token=token or None)
            runs, token = [*runs, *page], page.token or None
        return [_stored(client, run) for run in runs if run.data.tags.get("state") and run.info.end_time]
    except MlflowException as error:
        known = " ".join(str(error).split())[:160]
        raise ValueError(f"expected a tracking store at {uri}, found none that answers: {known}") from error


def _stored(client: MlflowClient, run: Run) -> dict[str, Any]:
    history = client.get_metric_history(run.info.run_id, "fold_val_loss")
    tags = run.data.tags
    return {
        "trial_id": tags[_TRIAL],
        "state": tags["state"],
        "parameters": dict(run.data.params),
        "fold_losses": sorted((metric.step, metric.value) for metric in history),
        "family": tags.get("family"),
        "scored": tags.get("scored"),
        "fidelity": json.loads(tags.get("fidelity", "null")),
    }


def _dataset(plan: Plan) -> DatasetInput:
    """Return the data of the search as MLflow lists them: by content hash, with what of them is modelled."""
    source = json.dumps({"source": plan.more.get("data", "files"), "marks": dict(plan.marks)})
    profile = json.dumps({"folds": len(plan.folds), "vault": dict(plan.vault)})
    kept = Dataset(
        name=f"market ({plan.more.get('data', 'files')})",
        digest=plan.data_snapshot[:36],
        source_type="local",
        source=source,
        profile=profile,
    )
    return DatasetInput(dataset=kept)


def _create_database(run_dir: Path) -> None:
    """Make the database whole under another name: two clients at once, or a kill halfway, ruin an MLflow database."""
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with _exclusive(run_dir / f".{DATABASE}.lock"):
        if (run_dir / DATABASE).exists():
            return
        draft = run_dir / f".{DATABASE}.tmp"
        draft.unlink(missing_ok=True)
        store = SqlAlchemyStore(f"sqlite:///{draft}", (run_dir / ARTIFACTS).as_uri())
        store.engine.dispose()
        os.replace(draft, run_dir / DATABASE)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def journal_events(run_dir: Path) -> list[dict[str, Any]]:
    """Read the journal of a run folder without writing to it.

    Raises:
        RunFolderError: There is no journal, or it cannot be read.
    """
    file = run_dir / "journal.sqlite"
    if not file.is_file():
        raise RunFolderError(f"{file}: expected the journal of a search, found no such file; is this a run folder?")
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=20.0)) as connection:
            rows = connection.execute("SELECT seq, time_utc, kind, body FROM events ORDER BY seq").fetchall()
        return [{"seq": s, "time_utc": t, "kind": k, "body": json.loads(b)} for s, t, k, b in rows]
    except (sqlite3.Error, ValueError) as error:
        raise RunFolderError(f"{file}: expected a journal, cannot read it: {error}; restore a copy") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Send what is unsent; return 0, 1 where something is left, 2 where the folder is no run."""
    parser = argparse.ArgumentParser(prog="python -m analysis.mlflow_tracker", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a search: its last line of output")
    parser.add_argument("--uri", help="tracking URI; default: mlflow.db in the run folder")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="seconds to keep trying (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        read_plan(given.run_dir)
        events = journal_events(given.run_dir)
    except RunFolderError as error:
        print(f"mlflow: {error}", file=sys.stderr)
        return 2
    tracker = start(given.run_dir, uri=given.uri)
    tracker.replay(events)
    unsent = tracker.finish(given.timeout_s)
    print(f"{target_name(given.uri)}: {'all sent' if not unsent else f'{unsent} unsent'}")
    return 1 if unsent else 0


if __name__ == "__main__":
    sys.exit(main())
