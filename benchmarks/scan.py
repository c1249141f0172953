"""The scan alone, forward and backward: each form beside the sequential one, CPU time of one thread, agreement first.

    python -m benchmarks.scan [--length 1024] [--repeats 3]

Prints one line of JSON: tokens per CPU second, ratios to the sequential form, and the largest difference of outputs and
gradients from the sequential form in float64, over the largest value.
"""

from __future__ import annotations

import os

os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})  # before torch reads them

import argparse
import json
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import interleaved
from trainables.ops.scan import ssd

FORMS = ("compiled", "chunked", "sequential")


def inputs(batch: int, length: int, heads: int = 8, channels: int = 64, d_state: int = 64) -> list[Tensor]:
    torch.manual_seed(0)
    step, rate = torch.rand(batch, length, heads) * 0.2, -torch.rand(heads) * 8 - 1
    b, c = torch.randn(batch, length, d_state), torch.randn(batch, length, d_state)
    return [torch.randn(batch, length, heads, channels), step, rate, b, c]


def forward_and_backward(given: list[Tensor], impl: str) -> list[Tensor]:
    leaves = [each.detach().requires_grad_() for each in given]
    y = ssd(*leaves, impl=impl)[0]
    return [y, *torch.autograd.grad(y.square().mean(), leaves)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = max(1, 2048 // options.length)
    given = inputs(batch, options.length)
    exact = forward_and_backward([each.double() for each in given], "sequential")
    difference = {
        form: max(
            ((one - other).abs().max() / other.abs().max()).item()
            for one, other in zip(forward_and_backward(given, form), exact, strict=True)
        )
        for form in FORMS
    }
    seconds = interleaved({form: partial(forward_and_backward, given, form) for form in FORMS}, options.repeats)
    line = {
        "benchmark": "scan",
        "batch": batch,
        "length": options.length,
        "tokens_per_s": {form: round(batch * options.length / value) for form, value in seconds.items()},
        "ratio_to_sequential": {form: round(seconds["sequential"] / value, 1) for form, value in seconds.items()},
        "largest_difference": {form: float(f"{value:.1e}") for form, value in difference.items()},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
