"""What all compiled kernels are held to: a plain form in float64, whatever the layout, memory or threads."""

import contextlib

import torch

TOLERANCE = 5e-6
"""Largest difference over the largest value, float32 against float64: outputs and every gradient."""


def outputs_and_gradients(run, inputs, dtype=torch.float32):
    """The outputs of `run` and the gradients of a random weighing of them."""
    leaves = [each.detach().to(dtype).requires_grad_() for each in inputs]
    outputs = run(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype) for y in outputs]
    gradients = torch.autograd.grad(outputs, leaves, weights)
    return [*(y.detach() for y in outputs), *gradients]


def assert_near(found, expected, tolerance=TOLERANCE):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.isfinite(one).all()
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1e-6)


def curvature(run, inputs, dtype):
    """A product of the second derivative of a sum of squares with the inputs."""
    leaves = [each.detach().to(dtype).requires_grad_() for each in inputs]
    gradients = torch.autograd.grad(run(*leaves).square().sum(), leaves, create_graph=True)
    return torch.autograd.grad(sum((g * x.detach()).sum() for g, x in zip(gradients, leaves, strict=True)), leaves)


@contextlib.contextmanager
def poisoned_memory():
    """Fill what is not written with NaN, so that reading it is seen."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
