"""What autograd keeps for a backward pass, in bytes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def saved_bytes(model: nn.Module, windows: Tensor, output: str) -> int:
    """Return the bytes kept by a forward pass beside the weights, counted once per storage."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs: Mapping[str, Tensor] = model(windows)  # held while its storages are told apart by their place
    assert outputs[output].requires_grad
    return sum(kept.values()) - sum(p.untyped_storage().nbytes() for p in model.parameters())
