"""Where to find Ray, and what workers are told, without starting it."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import Resources

from cluster.errors import ClusterError
from cluster.ray_session import environment, ray_session, variables_for_workers

ROOT = Path(__file__).parents[2]


@pytest.mark.requirement("CLUSTER-3")
def test_workers_find_our_packages_and_get_their_limits():
    local = variables_for_workers(2, {"PYTHONPATH": "mine", "OMP_NUM_THREADS": "8"})
    assert local["PYTHONPATH"] == f"{ROOT}{os.pathsep}mine"
    assert local["OMP_NUM_THREADS"] == "2"
    assert variables_for_workers(2, {})["PYTHONPATH"] == str(ROOT)


@pytest.mark.requirement("CLUSTER-3")
def test_what_a_submitted_job_sets_for_its_workers_is_left_to_it():
    job = {"runtime_env": {"working_dir": "gcs://package.zip", "env_vars": {"OMP_NUM_THREADS": "8"}}}
    joined = variables_for_workers(2, {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)})
    assert "OMP_NUM_THREADS" not in joined
    assert "PYTHONPATH" not in joined
    assert joined["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


def test_an_address_where_nobody_listens_is_refused_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match=f"join the cluster at {address}: .*refused.*check the address"),
            ray_session(replace(Resources(), ray_address=address)),
        ):
            pass


@pytest.mark.parametrize("address", ["ray://head:10001", "nonsense"])
def test_what_is_no_address_of_a_cluster_is_refused(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)  # overrules `local`
    with pytest.raises(ClusterError, match=address), ray_session(Resources()):
        pass


def test_the_environment_is_as_before_after_the_block(monkeypatch):
    monkeypatch.setenv("SET_BEFORE", "1")
    monkeypatch.delenv("NOT_SET_BEFORE", raising=False)
    with environment({"SET_BEFORE": "2", "NOT_SET_BEFORE": "3"}):
        assert (os.environ["SET_BEFORE"], os.environ["NOT_SET_BEFORE"]) == ("2", "3")
    assert os.environ["SET_BEFORE"] == "1"
    assert "NOT_SET_BEFORE" not in os.environ
