"""How many trials fit: shares of processors and GPUs, and the memory that trials on one device share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.errors import ResourceError

RAY_RESOLUTION = 1e-4
"""Ray counts resources in ten-thousandths, so a third of a GPU written as 0.3334 must still fit three times."""


class ResourceSettings(Protocol):
    """The `resources` section of a space file, as far as placing needs it."""

    @property
    def cpus_per_trial(self) -> float: ...
    @property
    def gpus_per_trial(self) -> float: ...
    @property
    def workers_per_trial(self) -> int: ...
    @property
    def hang_minutes(self) -> float | None: ...
    @property
    def max_concurrent(self) -> int | None: ...
    @property
    def max_failures(self) -> int: ...
    @property
    def ray_address(self) -> str: ...
    @property
    def threads(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float = 0.0


def max_concurrent(settings: ResourceSettings, cpus: float, gpus: float) -> int:
    """Return how many trials run at once on one machine; see `cluster_concurrency`."""
    return cluster_concurrency(settings, (Node(cpus=cpus, gpus=gpus),))


def cluster_concurrency(settings: ResourceSettings, nodes: Sequence[Node]) -> int:
    """Return how many trials run at once: what fits on the machines, and no more than `max_concurrent`.

    A worker never spans machines, nor a share below one GPU several GPUs; the workers of a trial may be on different
    machines. Requirement: CLUSTER-2.

    Args:
        settings: Shares of one trial, and the largest number of trials at once (None: as many as fit).
        nodes: The machines of the cluster.

    Returns:
        At least 1.

    Raises:
        ResourceError: The machines cannot hold one trial, or more than one GPU is asked for in a fraction.
    """
    share = worker_share(settings)
    _check_shares(share["CPU"], share["GPU"])
    slots = sum(_slots(share["CPU"], share["GPU"], node) for node in nodes) // settings.workers_per_trial
    if slots == 0:
        raise ResourceError(_unschedulable(settings, nodes))
    return min(slots, settings.max_concurrent or slots)


def memory_shortfall(estimate_bytes: int, *, device_bytes: int, n_sharing: int = 1) -> str:
    """Say by how much `n_sharing` trials of the estimated size exceed a device; an empty text where they fit.

    Args:
        estimate_bytes: Peak of one trial, such as `FamilyConfig.memory_bytes()` of the largest config.
        device_bytes: Memory of the GPU, or of the machine for trials on processors.
        n_sharing: Trials that are on the device at once.
    """
    needed = estimate_bytes * n_sharing
    if needed <= device_bytes:
        return ""
    each = f"{n_sharing} trials of {_gib(estimate_bytes)}" if n_sharing > 1 else "one trial"
    return (
        f"memory: expected at most {_gib(device_bytes)} on a device, found {_gib(needed)} for {each}; "
        "lower batch_size, raise accum_steps, or run fewer trials at once"
    )


def worker_share(settings: ResourceSettings) -> dict[str, float]:
    """Return what Ray sets aside for each worker of a trial, by Ray's names of the resources."""
    whole = {"CPU": settings.cpus_per_trial, "GPU": settings.gpus_per_trial}
    steps = round(1 / RAY_RESOLUTION)
    return {name: math.floor(amount / settings.workers_per_trial * steps) / steps for name, amount in whole.items()}


def _check_shares(cpus: float, gpus: float) -> None:
    if cpus < 0 or gpus < 0 or cpus + gpus <= 0:
        raise ResourceError(
            "resources: expected a positive share of processors or GPUs for a worker, "
            f"found cpus_per_trial {cpus:g} and gpus_per_trial {gpus:g}"
        )
    if gpus > 1 and not float(gpus).is_integer():
        raise ResourceError(
            f"resources.gpus_per_trial: expected a share of one GPU or a whole number of GPUs, found {gpus:g}; "
            f"use {math.floor(gpus)} or {math.ceil(gpus)}"
        )


def _slots(cpus: float, gpus: float, node: Node) -> int:
    by_cpu = _times(node.cpus, cpus) if cpus else math.inf
    if not gpus:
        by_gpu = math.inf
    elif gpus < 1:
        by_gpu = math.floor(node.gpus) * _times(1.0, gpus)
    else:
        by_gpu = _times(node.gpus, gpus)
    return int(min(by_cpu, by_gpu))


def _times(available: float, share: float) -> int:
    return math.floor((available + RAY_RESOLUTION) / share)


def _unschedulable(settings: ResourceSettings, nodes: Sequence[Node]) -> str:
    shapes = sorted({(node.cpus, node.gpus) for node in nodes}, reverse=True)
    shown = ", ".join(f"CPU {cpus:g} and GPU {gpus:g}" for cpus, gpus in shapes[:5]) or "none"
    workers = f" for {settings.workers_per_trial} workers" if settings.workers_per_trial > 1 else ""
    return (
        f"resources: unschedulable: a trial needs CPU {settings.cpus_per_trial:g} and GPU {settings.gpus_per_trial:g}"
        f"{workers}, the cluster's machines have at most: {shown}; "
        "lower cpus_per_trial or gpus_per_trial, or use a larger cluster"
    )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
