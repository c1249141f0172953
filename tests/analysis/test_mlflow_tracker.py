import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from analysis import mlflow_tracker
from analysis.measures.folds import FoldMean
from analysis.tracking import CURSOR, Trials, start
from tests.analysis import fake_journal, fake_run

MlflowClient = mlflow_tracker.MlflowClient

SMALL = {"scale": "small", "width_frac": 0.5, "depth_frac": 0.5, "data_frac": 0.5}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A run folder whose whole journal went to the default database."""
    run_dir = tmp_path_factory.mktemp("mirror") / "run"
    fake_run.write(run_dir, states=("complete",) * 2, n_folds=2, **SMALL)
    (run_dir / "report.html").write_text("<html></html>")
    tracker = start(run_dir)
    tracker.replay(fake_journal.search())
    assert tracker.finish(120) == 0
    return run_dir


def runs_of(run_dir):
    client = MlflowClient(f"sqlite:///{run_dir / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("condor-search/condor")
    every = client.search_runs([experiment.experiment_id], max_results=100)
    found = [r for r in every if "fold" not in r.data.tags]
    parent = next(r for r in found if not r.data.tags["condor.trial"])
    return client, parent, {r.data.tags["condor.trial"]: r for r in found if r is not parent}


def test_what_was_sent_can_be_read_back_by_a_warm_start(mirrored):
    uri = f"sqlite:///{mirrored / 'mlflow.db'}"
    records = mlflow_tracker.stored_trials(uri, "condor-search/condor")
    first = next(r for r in records if r["trial_id"] == "t0000")
    assert sorted(r["trial_id"] for r in records) == ["t0000", "t0001", "t0002", "t0003"]
    assert first["state"] == "complete"
    assert first["parameters"] == {"lr": "0.001", "normalizer": "mad", "widths": "[8, 4]"}
    assert first["fold_losses"] == [(0, 1.0), (1, 2.0)]
    assert first["family"] == "condor"
    assert first["fidelity"] == SMALL
    with pytest.raises(ValueError, match="expected a search in experiment none"):
        mlflow_tracker.stored_trials(uri, "none")


@pytest.mark.requirement("MLFLOW-1")
def test_a_run_for_the_search_and_a_child_for_each_trial(mirrored):
    client, parent, children = runs_of(mirrored)
    assert parent.info.run_name == "run"
    assert parent.data.tags["mark.chain"] == "modelled by Black-Scholes"
    assert sorted(children) == ["t0000", "t0001", "t0002", "t0003"]
    first = children["t0000"]
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert first.data.params == {"lr": "0.001", "normalizer": "mad", "widths": "[8, 4]"}
    assert first.data.metrics["val_loss"] == pytest.approx((20 + 42) / 41)
    assert {"val_loss_se", "ic", "ic_se", "crps", "seconds", "n_folds"} <= set(first.data.metrics)
    assert [(m.step, m.value) for m in client.get_metric_history(first.info.run_id, "fold_val_loss")] == [
        (0, 1.0),
        (1, 2.0),
    ]
    tags = {
        k: children["t0001"].data.tags[k] for k in ("state", "origin", "parents", "seed", "commit", "data_snapshot")
    }
    assert tags == {
        "state": "stopped",
        "origin": "random",
        "parents": "t0000",
        "seed": "5",
        "commit": "0123abcd",
        "data_snapshot": "5f1d0c9a7be3",
    }
    states = {name: run.info.status for name, run in children.items()}
    assert states == {"t0000": "FINISHED", "t0001": "KILLED", "t0002": "FAILED", "t0003": "FAILED"}


def test_nothing_that_is_not_finite_is_sent(mirrored):
    _, _, children = runs_of(mirrored)
    assert "val_loss" not in children["t0002"].data.metrics
    assert all(abs(v) < 1e300 for run in children.values() for v in run.data.metrics.values())


def test_report_and_tables_are_artifacts_below_the_run_folder(mirrored):
    client, parent, _ = runs_of(mirrored)
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "trials.parquet", "folds.parquet", "plan.json", "space.yaml"} <= names
    assert (mirrored / "mlartifacts").is_dir()


def test_sending_everything_again_makes_no_second_copy(mirrored):
    """As after a crash between sending and noting it."""
    (mirrored / CURSOR).unlink()
    tracker = start(mirrored)
    tracker.replay(fake_journal.search())
    assert tracker.finish(120) == 0
    client, _, children = runs_of(mirrored)
    assert len(children) == 4
    history = client.get_metric_history(children["t0000"].info.run_id, "fold_val_loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 2.0)]


def test_command_sends_the_journal_to_a_uri(mirrored, capsys):
    fake_journal.write(mirrored, fake_journal.search())
    uri = f"sqlite:///{mirrored / 'mlflow.db'}"  # another target in the cursor file, so all is sent once more
    assert mlflow_tracker.main([str(mirrored), "--uri", uri, "--timeout-s", "120"]) == 0
    assert "all sent" in capsys.readouterr().out
    assert json.loads((mirrored / CURSOR).read_text())[uri] == 12  # 13 is the end of the search
    assert len(runs_of(mirrored)[2]) == 4


def test_a_uri_that_does_not_answer_leaves_the_queue_and_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_dir = fake_run.write(tmp_path / "run", states=("complete",), n_folds=2)
    tracker = start(run_dir, uri="http://127.0.0.1:9")  # the discard port: nobody listens
    tracker.replay(fake_journal.search())
    assert tracker.finish(3) == 5
    refusals = [r for r in caplog.records if "does not take results" in r.message]
    assert len(refusals) == 1
    assert not (run_dir / CURSOR).exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert mlflow_tracker.main([str(tmp_path)]) == 2
    assert "is this a run folder?" in capsys.readouterr().err


def test_at_most_sixty_metrics_first_things_first():
    trials = Trials()
    records = [r for e in fake_journal.search() if (r := trials.apply(e)) is not None]
    many = {f"m{k:03d}": FoldMean(mean=k, error=0.1, n_folds=2) for k in range(100)}
    odd = {"val_loss": FoldMean(mean=math.inf, error=0.1, n_folds=2)}
    sent = mlflow_tracker.metrics_of(replace(records[0], metrics=many | odd))
    names = {m.key for m in sent}
    assert len(names) == 60
    assert "val_loss" not in names
    assert {"val_loss_se", "fold_val_loss", "seconds"} <= names


def test_clients_that_start_at_once_on_no_database_all_succeed(tmp_path):
    """MLflow alone leaves a database that no later start can open (mlflow 3.17: none of eight succeeded)."""
    run_dir = fake_run.write(tmp_path / "run", states=("complete",), n_folds=1)
    with ThreadPoolExecutor(4) as pool:
        sinks = list(pool.map(lambda _: mlflow_tracker.MlflowSink(run_dir), range(4)))
    assert len({sink._experiment_id for sink in sinks}) == 1
    assert not list(run_dir.glob(".mlflow.db.tmp"))
