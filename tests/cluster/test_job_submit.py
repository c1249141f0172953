"""The same command under `ray job submit`, on a head of its own with token authentication."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from search.study import Study
from search.trial import TrialState

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture
def head():
    """Start a head and yield (address of its jobs, environment of a client that has the token)."""
    with tempfile.TemporaryDirectory(prefix="h-", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "HOME": folder}
        names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        command = [RAY, "start", "--head", "--block", f"--temp-dir={folder}/r", "--num-cpus=2", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", *(f"--{name}={port}" for name, port in ports.items())]
        with (Path(folder) / "head.txt").open("w") as output:
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output)
            try:
                yield f"http://127.0.0.1:{ports['dashboard-port']}", environ
            finally:
                process.terminate()
                process.wait(timeout=30)


def free_ports(number):
    """Return ports below the range that Ray keeps for its workers."""
    found = []
    for port in range(6400 + secrets.randbelow(3000), 10000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            return found
    raise AssertionError("no free ports")


def answer(address):
    """Return the status of a request without a token; None while nobody listens."""
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def submit(head, *command):
    """Submit a job and return its status and output."""
    address, environ = head
    until = time.monotonic() + 90
    while answer(address) is None:
        assert time.monotonic() < until, "the head did not start"
        time.sleep(0.5)
    assert answer(address) == 401, "no token, no jobs"
    submitted = [RAY, "job", "submit", "--address", address, "--", *map(str, command)]
    done = subprocess.run(submitted, env=environ, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.requirement("SEARCH-18")
def test_the_command_runs_under_ray_job_submit(head, tmp_path):
    out = tmp_path / "run"
    space = ROOT / "spaces" / "mlp.yaml"
    command = [sys.executable, ROOT / "search" / "run.py", "--space", space, "--profile", "smoke", "--out", out]
    status, output = submit(head, *command, "--num-samples", 2, "--set", "tracking.enabled=false")
    assert status == 0, output
    trials = Study.read(out / "journal.sqlite").trials.values()
    assert all(trial.state.is_finished for trial in trials), output
    assert any(trial.state is TrialState.COMPLETE for trial in trials), output
