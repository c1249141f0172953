"""Number formats: where each can run, what runs in it, and the flags of PyTorch that go with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables.config import NEEDS_CUDA

AUTOCAST_DTYPE = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Formats in which matrix products run while weights stay float32; the others compute in float32."""
FIRST_TENSOR_FLOAT_CAPABILITY = 8
"""First CUDA compute capability (Ampere) with bf16 and TF32 arithmetic (TRAIN-8, TRAIN-9)."""


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a number format that the device cannot compute in. Requirement: TRAIN-8.

    Raises:
        ValueError: tf32 or fp16 without CUDA; tf32 or bf16 on a CUDA device older than Ampere.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if precision in ("bf16", "tf32") and capability[0] < FIRST_TENSOR_FLOAT_CAPABILITY:
            name = torch.cuda.get_device_name(device)
            raise ValueError(
                f"precision: expected a device of compute capability 8.0 or newer for {precision}, found {name} "
                f"({capability[0]}.{capability[1]}); use fp32 or fp16"
            )
    elif precision in NEEDS_CUDA:
        raise ValueError(f"precision: expected a CUDA device for {precision}, found {device.type}; use fp32 or bf16")


def apply_flags(precision: str, *, deterministic: bool) -> None:
    """Set PyTorch's process-wide arithmetic flags for a trial. Requirement: TRAIN-9.

    TF32 is on but for `fp32`, which would otherwise not differ from `tf32`. `deterministic` turns cuDNN's timing-based
    choice of algorithms off and asks PyTorch to refuse operations whose result depends on the order of threads.
    """
    allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    torch.backends.cudnn.allow_tf32 = allow_tf32
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call itself imports the compiler: seconds
        torch.use_deterministic_algorithms(deterministic)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes of this precision run."""
    dtype = AUTOCAST_DTYPE.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Compute in true float32, without fused attention or recurrences, which have no second derivative (ANALYSIS-6)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # not `mkldnn.flags`, which sets what this build warns of
    had_onednn, *_ = torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
            yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=had_onednn, _fp32_precision=None)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
