"""The one-chunk kernels against the sequential scan: on a CUDA device, else in Triton's interpreter where triton is.

triton is no dependency on a CPU. To run these there: `pip install --no-deps --target DIR triton` and
`PYTHONPATH=DIR TRITON_INTERPRET=1 python -m pytest tests/trainables/ops/scan/test_one_chunk.py`.
"""

import importlib.util
import os

import pytest
import torch

from tests.trainables.ops.kernels import assert_near, outputs_and_gradients, poisoned_memory
from trainables.ops.scan import ssd

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CAN_RUN = importlib.util.find_spec("triton") and (DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
needs_triton = pytest.mark.skipif(not CAN_RUN, reason="no triton with a CUDA device or with TRITON_INTERPRET=1")
TOLERANCE = {torch.float32: 5e-5, torch.bfloat16: 2e-2}
"""Largest difference over the largest value; the gradient of the rates is a difference of large float32 sums."""


def inputs(length, channels=16, d_state=24, batch=2, heads=3):
    generator = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    step, rate = normal(batch, length, heads).abs() * 0.2, -normal(heads).abs() * 4 - 0.05
    b, c = normal(batch, length, d_state), normal(batch, length, d_state)
    return [each.to(DEVICE) for each in (normal(batch, length, heads, channels), step, rate, b, c, normal(heads))]


def run(impl, kind=torch.float32):
    def scan(x, step, rate, b, c, skip):
        wide = torch.promote_types(kind, torch.float32)
        y, _ = ssd(x.to(kind), step.to(wide), rate.to(wide), b.to(kind), c.to(kind), skip_H=skip, impl=impl)
        return y.to(skip.dtype)

    return scan


@needs_triton
@pytest.mark.parametrize("length", [1, 63, 120, 128])
def test_kernels_equal_the_sequential_scan(length):
    given = inputs(length)
    expected = outputs_and_gradients(run("sequential", torch.float64), given, torch.float64)
    with poisoned_memory():
        assert_near(outputs_and_gradients(run("one_chunk"), given), expected, TOLERANCE[torch.float32])


@needs_triton
@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter has no bfloat16")
def test_kernels_in_bfloat16_equal_the_sequential_scan_of_the_same_numbers():
    given = [each.bfloat16().float() for each in inputs(120, channels=64, d_state=128)]
    expected = outputs_and_gradients(run("sequential", torch.float64), given, torch.float64)
    assert_near(outputs_and_gradients(run("one_chunk", torch.bfloat16), given), expected, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize(
    ("length", "channels", "options", "words"),
    [
        (129, 16, {}, "129 rows"),
        (8, 24, {}, "24 channels"),
        (8, 8, {}, "8 channels"),
        (8, 16, {"want_state": True}, "a state"),
        (8, 16, {"discretisation": "zoh_exact"}, "zoh_exact"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused(length, channels, options, words):
    x, step, rate, b, c, _ = inputs(length, channels)
    with pytest.raises(ValueError, match=words):
        ssd(x, step, rate, b, c, impl="one_chunk", **options)


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="triton is here")
def test_without_triton_the_remedy_is_named():
    x, step, rate, b, c, _ = inputs(8)
    with pytest.raises(ImportError, match="extra `gpu`"):
        ssd(x, step, rate, b, c, impl="one_chunk")
