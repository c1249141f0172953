"""The mirror against a real `mlflow server` on PostgreSQL (Debian's package), where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from analysis import mlflow_tracker
from analysis.tracking import start
from tests.analysis import fake_journal, fake_run


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def account() -> str | None:
    """PostgreSQL does not run as root: the account of its package, where we are root and it exists."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return ""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (apt-get install postgresql)"),
    pytest.mark.skipif(account() == "", reason="PostgreSQL does not run as root, and there is no account postgres"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], **more: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **more
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)


def answers(port: int, process: subprocess.Popen[bytes], within_s: float = 240) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port}")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    folder, user, where = Path(tempfile.mkdtemp(prefix="pg-")), account(), binaries()
    assert where is not None
    if user:
        shutil.chown(folder, user)
    port, data = free_port(), folder / "data"
    as_user = {"user": user} if user else {}
    subprocess.run(
        [where / "initdb", "-D", data, "-U", "condor", "-A", "trust", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user,
    )  # fmt: skip
    server = [str(where / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
    with running(server, cwd=folder, **as_user) as process:
        answers(port, process)
        yield f"postgresql+psycopg2://condor@127.0.0.1:{port}/postgres"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def uri(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with running(command, cwd=folder, env=environment) as process:
        answers(port, process)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.requirement("MLFLOW-1")
def test_a_search_is_mirrored_on_a_server_with_postgresql(uri: str, tmp_path: Path) -> None:
    run_dir = fake_run.write(tmp_path / "run", states=("complete",) * 3, n_folds=3)
    tracker = start(run_dir, uri=uri)
    tracker.replay(fake_journal.search())
    assert tracker.finish(120) == 0
    client = mlflow_tracker.MlflowClient(uri)
    experiment = client.get_experiment_by_name("condor-search/condor")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    trials = {r.data.tags["condor.trial"] for r in runs if r.data.tags.get("condor.trial")}
    assert trials == {"t0000", "t0001", "t0002", "t0003"}
    (parent,) = [r for r in runs if r.data.tags.get("condor.trial") == ""]
    assert parent.inputs.dataset_inputs[0].dataset.digest == "5f1d0c9a7be3"
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} >= {"trials.parquet", "plan.json"}
    folds = [r for r in runs if "fold" in r.data.tags]
    assert folds
    assert {r.data.tags["mlflow.parentRunId"] for r in folds} <= {r.info.run_id for r in runs}
    assert all("val_loss" in r.data.metrics for r in folds)
