"""Model outputs are a tensor, or mappings, tuples and dataclasses of tensors: walk over them without knowing which."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def as_float32(outputs: Any) -> Any:
    """Return the outputs with every floating tensor in float32: losses and scores are computed in it."""
    return _combine(lambda parts: parts[0].float() if parts[0].is_floating_point() else parts[0], [outputs])


def concatenate(parts: Sequence[Any]) -> Any:
    """Join the outputs of consecutive batches along the first dimension, on the CPU.

    A tensor without dimensions, such as an auxiliary loss, has no rows to join; its parts are stacked.
    """
    return _combine(lambda tensors: torch.cat([t.detach().reshape(-1, *t.shape[1:]).cpu() for t in tensors]), parts)


def _combine(join: Callable[[list[Tensor]], Tensor], parts: Sequence[Any]) -> Any:
    """Apply `join` to the tensors that stand at the same place in each part.

    Raises:
        TypeError: A leaf is neither a tensor nor None.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return join(list(parts))
    if first is None:
        return None
    if isinstance(first, Mapping):
        return {key: _combine(join, [part[key] for part in parts]) for key in first}
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{n: _combine(join, [getattr(part, n) for part in parts]) for n in names})
    if isinstance(first, tuple):
        joined = [_combine(join, list(group)) for group in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    raise TypeError(f"outputs: expected tensors, mappings, tuples or dataclasses of them, found {type(first).__name__}")
