import pytest
from fake_study import Resources

from cluster.errors import ResourceError
from cluster.resources import Node, cluster_concurrency, max_concurrent, memory_shortfall, worker_share


@pytest.mark.requirement("CLUSTER-2")
@pytest.mark.parametrize(
    ("cpus_share", "gpus_share", "limit", "cpus", "gpus", "expected"),
    [
        (1, 0, None, 2, 0, 2),
        (1, 0, 1, 2, 0, 1),
        (1, 0, 8, 2, 0, 2),
        (2, 0, None, 5, 0, 2),
        (0.5, 0, None, 2, 0, 4),
        (1, 1, None, 16, 1, 1),
        (1, 0.25, None, 16, 1, 4),
        (1, 0.25, None, 3, 1, 3),
        (1, 0.3, None, 16, 2, 6),
        (1, 0.6, None, 16, 2, 2),
        (1, 1 / 3, None, 16, 1, 3),
        (1, 0.33334, None, 16, 1, 3),
        (1, 2, None, 16, 8, 4),
        (1, 3, None, 16, 8, 2),
        (0, 1, None, 0, 4, 4),
    ],
)
def test_trials_at_once_are_those_that_fit(cpus_share, gpus_share, limit, cpus, gpus, expected):
    settings = Resources(cpus_per_trial=cpus_share, gpus_per_trial=gpus_share, max_concurrent=limit)
    assert max_concurrent(settings, cpus, gpus) == expected


@pytest.mark.requirement("CLUSTER-2")
def test_a_trial_never_spans_machines_or_gpus():
    settings = Resources(cpus_per_trial=2, gpus_per_trial=0.6)
    nodes = [Node(cpus=3, gpus=1), Node(cpus=3, gpus=1), Node(cpus=64)]
    assert cluster_concurrency(settings, nodes) == 2


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (Resources(gpus_per_trial=8), "CPU 1 and GPU 8"),
        (Resources(cpus_per_trial=5), "CPU 5 and GPU 0"),
        (Resources(cpus_per_trial=4, gpus_per_trial=1), "CPU 4 and GPU 1"),
    ],
)
def test_what_no_machine_has_is_refused_with_need_and_maximum(settings, needed):
    with pytest.raises(ResourceError, match=f"needs {needed}, .* at most: CPU 4 and GPU 0, CPU 2 and GPU 1;"):
        cluster_concurrency(settings, [Node(cpus=4), Node(cpus=2, gpus=1)])


def test_an_empty_cluster_is_refused():
    with pytest.raises(ResourceError, match="unschedulable"):
        cluster_concurrency(Resources(), [])


@pytest.mark.parametrize("share", [1.5, 2.25])
def test_a_fraction_of_several_gpus_is_refused(share):
    with pytest.raises(ResourceError, match="share of one GPU or a whole number"):
        max_concurrent(Resources(gpus_per_trial=share), 16, 8)


def test_a_trial_without_any_share_is_refused():
    with pytest.raises(ResourceError, match="positive share"):
        max_concurrent(Resources(cpus_per_trial=0), 16, 8)


def test_memory_of_trials_that_share_a_device():
    assert memory_shortfall(10 * 2**30, device_bytes=80 * 2**30, n_sharing=8) == ""
    problem = memory_shortfall(11 * 2**30, device_bytes=80 * 2**30, n_sharing=8)
    assert "80.0 GiB" in problem
    assert "88.0 GiB for 8 trials of 11.0 GiB" in problem


@pytest.mark.requirement("CLUSTER-2")
def test_the_workers_of_a_trial_share_what_it_gets_and_may_be_on_different_machines():
    settings = Resources(cpus_per_trial=2, gpus_per_trial=4, workers_per_trial=4)
    assert worker_share(settings) == {"CPU": 0.5, "GPU": 1.0}
    two_small, one_large = [Node(cpus=4, gpus=2)] * 2, [Node(cpus=64, gpus=8)]
    assert cluster_concurrency(settings, two_small) == 1
    assert cluster_concurrency(settings, one_large) == 2
    with pytest.raises(ResourceError, match="CPU 2 and GPU 4 for 4 workers, the cluster's machines have at most"):
        cluster_concurrency(settings, [Node(cpus=4, gpus=2)])
    assert worker_share(Resources(cpus_per_trial=1, workers_per_trial=3))["CPU"] == 0.3333
