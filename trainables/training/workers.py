"""The processes that train one trial together: who this one is, and what they have to agree on.

All of them run the same walk over the same plan of steps. Gradients and losses are means over all, so that every
process takes the same decisions; only the first one writes and reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Number of processes that train a trial, and the place of this one among them, from 0."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


ALONE = Workers()


def join_workers(n_workers: int) -> Workers:
    """Return this process's place in the process group, which Ray Train or torchrun has made where n_workers > 1.

    Raises:
        ValueError: There is no process group of that size.
    """
    if n_workers == 1:
        return ALONE
    found = dist.get_world_size() if dist.is_initialized() else 1
    if found != n_workers:
        raise ValueError(
            f"n_workers: expected a process group of {n_workers}, found {found}; start the trial under Ray Train"
        )
    return Workers(rank=dist.get_rank(), size=n_workers)


def wait_for_all(workers: Workers) -> None:
    """Come back when every process has come here."""
    if workers.size > 1:
        dist.barrier()


def mean_over_workers(workers: Workers, value: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes."""
    if workers.size > 1:
        dist.all_reduce(value)
        value /= workers.size
    return value


def average_gradients(workers: Workers, parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one exchange.

    A parameter that has no gradient here, such as an expert that no row was sent to, counts as zero.
    """
    if workers.size == 1:
        return
    trained = list(parameters)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = mean_over_workers(workers, torch.cat([g.reshape(-1) for g in gradients]))
    for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def gather_states(workers: Workers, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of all processes by name; those of process 1 and up as `<rank>/<name>`."""
    if workers.size == 1:
        return dict(state)
    states: list[Mapping[str, Tensor]] = [{}] * workers.size
    dist.all_gather_object(states, dict(state))
    return {_key(rank, name): tensor for rank, own in enumerate(states) for name, tensor in own.items()}


def own_state(workers: Workers, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this process's part of what `gather_states` returned."""
    if workers.is_first:
        return {name: tensor for name, tensor in states.items() if "/" not in name}
    prefix = _key(workers.rank, "")
    return {name.removeprefix(prefix): tensor for name, tensor in states.items() if name.startswith(prefix)}


def _key(rank: int, name: str) -> str:
    return f"{rank}/{name}" if rank else name
