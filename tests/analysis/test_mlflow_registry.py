"""The model of a search in MLflow's registry: it loads as a `pyfunc` and scores raw bars."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import mlflow_registry as registry
from analysis import mlflow_tracker, vault
from analysis.run_folder import RunFolder
from analysis.tracking import start
from tests.analysis import fake_journal, fake_run
from tests.trainables.test_serve import bars, run_dir  # noqa: F401 - fixtures: a trained model and its bars
from trainables import serve

pytestmark = pytest.mark.slow
STATES = ("complete",) * 3


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, run_dir: Path) -> Path:  # noqa: F811
    """A run whose finalists left models, sent to the default database."""
    folder = fake_run.write(tmp_path_factory.mktemp("mirror") / "run", states=STATES, n_folds=3)
    for trial in registry.finalists(RunFolder(folder)):
        shutil.copytree(run_dir / "checkpoints" / "t0000", folder / "checkpoints" / trial)
    tracker = start(folder)
    tracker.replay(fake_journal.search())
    assert tracker.finish(240) == 0
    return folder


def client_of(folder: Path) -> mlflow_tracker.MlflowClient:
    return mlflow_tracker.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.mark.requirement("MLFLOW-1", "ART-2")
def test_the_model_is_registered_once_with_its_signature(mirrored: Path) -> None:
    client = client_of(mirrored)
    (version,) = client.search_model_versions("name='condor-search-condor'")
    assert version.tags["trials"] == ",".join(registry.finalists(RunFolder(mirrored)))
    (run,) = client.search_runs(["1"], "tags.registered_model != ''")
    assert run.data.tags["registered_model"] == "condor-search-condor version 1"
    assert registry.register(client, RunFolder(mirrored), run, "condor-search-condor") is None


@pytest.mark.requirement("ART-2")
def test_it_scores_raw_bars_in_a_process_that_knows_nothing_of_this_checkout(
    mirrored: Path,
    run_dir: Path,  # noqa: F811
    bars: pd.DataFrame,  # noqa: F811
    tmp_path: Path,
) -> None:
    bars.to_parquet(tmp_path / "bars.parquet")
    program = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import mlflow, pandas as pd\n"
        f"mlflow.set_tracking_uri('sqlite:///{mirrored / 'mlflow.db'}')\n"
        "model = mlflow.pyfunc.load_model('models:/condor-search-condor/1')\n"
        "print(model.metadata.signature.inputs.input_names(), file=sys.stderr)\n"
        "bars = pd.read_parquet('bars.parquet')\n"
        "bars['timestamp'] = bars['timestamp'].dt.tz_localize(None)\n"
        "model.predict(bars).to_parquet('said.parquet')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "'open', 'high', 'low', 'close', 'volume'" in done.stderr
    expected = serve.load(run_dir / "checkpoints" / "t0000").predict(bars)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "said.parquet"), expected, check_dtype=False)


@pytest.mark.requirement("MLFLOW-1")
def test_folds_of_finalists_are_runs_below_their_trial(mirrored: Path) -> None:
    client, run = client_of(mirrored), RunFolder(mirrored)
    runs = client.search_runs(["1"], max_results=200)
    trials = {r.info.run_id: r.data.tags["condor.trial"] for r in runs if r.data.tags.get("condor.trial")}
    folds = [r for r in runs if "fold" in r.data.tags]
    known = set(registry.finalists(run)) & set(trials.values())
    assert {trials[r.data.tags["mlflow.parentRunId"]] for r in folds} == known
    assert len(folds) == 3 * len(known)


def test_a_large_confidence_set_is_no_ensemble(tmp_path: Path) -> None:
    run = RunFolder(fake_run.write(tmp_path / "run", states=("complete",) * 20))
    members = vault.choose(run, "confidence_set")
    expected = members if len(members) <= registry.MOST_MEMBERS else vault.choose(run, "leader")
    assert registry.finalists(run) == expected


def test_a_run_without_models_registers_nothing(tmp_path: Path) -> None:
    folder = fake_run.write(tmp_path / "run", states=STATES, n_folds=3)
    tracker = start(folder)
    tracker.replay(fake_journal.search())
    assert tracker.finish(240) == 0
    assert client_of(folder).search_registered_models() == []
