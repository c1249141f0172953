"""Starting a private Ray on this machine, or joining the one that was named; leaving it as it was found."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray._private.worker as ray_worker

from cluster.errors import ClusterError
from cluster.resources import Node, ResourceSettings
from cluster.worker import worker_environment

logger = logging.getLogger(__name__)

LOCAL = "local"
OBJECT_STORE_BYTES = 80 * 2**20
"""Just above Ray's minimum: trials exchange small messages only, and containers have little shared memory."""
LONGEST_TEMPORARY_FOLDER = 35
"""Characters: Ray's socket names below it must stay under the 107 bytes that a Unix socket address may have."""
CONNECT_SECONDS = 10.0
"""How long a named cluster may take to accept a connection."""
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}
"""No telemetry, and no tracebacks of calls whose result nobody waits for any more."""


@contextmanager
def ray_session(settings: ResourceSettings) -> Iterator[tuple[Node, ...]]:
    """Connect to Ray for as long as the block runs and yield the machines of the cluster.

    The address is `settings.ray_address`; where that is `local`, RAY_ADDRESS (which `ray job submit` sets) overrules
    it, and without either a private Ray starts on this machine: one that happens to run here is never joined unasked.
    A private Ray gets a token that only this process and its children know, keeps its files in a temporary folder,
    and is gone after the block. A cluster's own authentication is never changed.

    Raises:
        ClusterError: Ray cannot be started or reached.
    """
    address = settings.ray_address
    if address == LOCAL:
        address = os.environ.get("RAY_ADDRESS") or LOCAL
    if address.startswith("ray://"):
        raise ClusterError(
            f"ray address: expected HOST:PORT, auto or {LOCAL}, found {address}; the Ray client cannot carry a search: "
            "run this command under `ray job submit`"
        )
    _check_that_it_answers(address)
    folder = _temporary_folder()
    try:
        with environment(RAY_ENVIRONMENT), _raylet_news_to_log():
            try:
                _connect(address, settings, folder)
                yield _nodes()
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _raylet_news_to_log() -> Iterator[None]:
    """Log what raylets tell drivers, such as the death of a worker: Ray has a thread print it to our stdout."""
    before = ray_worker.print_to_stdstream

    def log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        for line in data["lines"]:
            logger.info("ray: %s", line)

    ray_worker.print_to_stdstream = log
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before


def variables_for_workers(threads: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the worker processes get: limits, and where our packages are.

    What the runtime environment of a submitted job sets is left to it: Ray carries that to the workers by itself, and
    refuses a second value. A job's working directory is where its workers find our packages, on each machine anew.
    """
    path = [str(Path(__file__).resolve().parents[1]), environ.get("PYTHONPATH", "")]
    variables = {**worker_environment(threads), "PYTHONPATH": os.pathsep.join(filter(None, path))}
    job = json.loads(environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    left_to_job = set(job.get("env_vars") or ()) | ({"PYTHONPATH"} if "working_dir" in job else set())
    return {name: value for name, value in variables.items() if name not in left_to_job}


def _connect(address: str, settings: ResourceSettings, folder: str) -> None:
    options: dict[str, Any] = {}
    if address == LOCAL:
        _give_private_token()
        options = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES, "_temp_dir": folder}
    variables = variables_for_workers(settings.threads, os.environ)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **options,
        )
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise ClusterError(_unreachable(address, error)) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray had put its own there


def _check_that_it_answers(address: str) -> None:
    """Knock at HOST:PORT: where nobody listens, Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(_unreachable(address, error)) from error


def _give_private_token() -> None:
    """Give this process a Ray token, unless it was given one or authentication was switched off.

    Without one Ray would write a token that everybody may read to the home folder. It stays set after the block,
    because Ray reads it once per process.
    """
    if not any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _unreachable(address: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if address == LOCAL:
        return f"ray: could not start on this machine: {reason}"
    hint = "check the address and that the cluster is up"
    if "auth" in reason.lower() or "token" in reason.lower():
        hint = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token file"
    return f"ray: could not join the cluster at {address}: {reason}; {hint}"


def _nodes() -> tuple[Node, ...]:
    offered = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return tuple(Node(cpus=r.get("CPU", 0.0), gpus=r.get("GPU", 0.0)) for r in offered)


def _temporary_folder() -> str:
    parent = tempfile.gettempdir()
    if len(parent) > LONGEST_TEMPORARY_FOLDER and Path("/tmp").is_dir():
        parent = "/tmp"
    return tempfile.mkdtemp(prefix="search-", dir=parent)
