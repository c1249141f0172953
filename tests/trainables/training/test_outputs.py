from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from trainables.training.outputs import as_float32, concatenate


class Pair(NamedTuple):
    mean: Tensor
    scale: Tensor | None


@dataclass(frozen=True)
class Heads:
    policy: Tensor
    extra: dict[str, Tensor]


def heads(n: int, dtype=torch.float32) -> Heads:
    return Heads(policy=torch.ones(n, 2, dtype=dtype), extra={"aux": torch.tensor(1.0), "k": torch.arange(n)})


def test_parts_of_any_shape_are_joined_by_row():
    joined = concatenate([heads(3), heads(2)])
    assert joined.policy.shape == (5, 2)
    assert joined.extra["aux"].tolist() == [1, 1]
    assert joined.extra["k"].tolist() == [0, 1, 2, 0, 1]
    pair = concatenate([Pair(torch.zeros(1), None), Pair(torch.ones(2), None)])
    assert pair.mean.tolist() == [0, 1, 1]
    assert pair.scale is None


def test_half_precision_becomes_float32_and_integers_stay():
    outputs = as_float32(heads(2, torch.bfloat16))
    assert outputs.policy.dtype is torch.float32
    assert outputs.extra["k"].dtype is torch.int64


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="found list"):
        concatenate([[torch.ones(1)]])
