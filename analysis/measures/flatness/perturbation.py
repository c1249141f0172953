"""How much the loss rises when weights are moved: in the worst direction, in random ones, and on average around them.

All are relative to the loss, (L(w + e) - L(w)) / L(w), and need no second derivative: they see a pinball loss, whose
Hessian is zero almost everywhere. Steps are shares of the norm of what they move, so that a rescaling between layers
changes little. Requirement: ANALYSIS-6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from analysis.measures.flatness.average import Average, average
from analysis.measures.flatness.hessian import Loss

Step = Sequence[Tensor]
"""What is added to each parameter."""


def sam_sharpness(loss: Loss, parameters: Sequence[Tensor], *, radius: float = 0.05, n_steps: int = 3) -> float | None:
    """Return the largest relative rise found within `radius` times the norm of each tensor.

    Foret et al. (2021), "Sharpness-aware minimization": ascent along the gradient, each tensor on the sphere of its own
    radius; here `n_steps` steps, each along the gradient where the last one ended, of which the highest counts.

    Args:
        loss: Scalar loss at the present parameters, the same at each call.
        parameters: Leaves that require gradients; left exactly as they were.
        radius: Share of each tensor's norm, above 0.
        n_steps: Ascent steps, 1 or more; as many gradients are computed.

    Returns:
        None where the loss is not positive.

    Raises:
        ValueError: No parameters, or a number is out of range.
    """
    _check(parameters, radius, n_steps, "n_steps")
    before = _value(loss)
    if before <= 0:
        return None
    highest, at = 0.0, [torch.zeros_like(p) for p in parameters]
    for _ in range(n_steps):
        with _moved(parameters, at), torch.enable_grad():
            gradient = torch.autograd.grad(loss(), parameters, allow_unused=True)
        at = [_onto_sphere(g, p, radius) for g, p in zip(gradient, parameters, strict=True)]
        with _moved(parameters, at):
            highest = max(highest, _value(loss) - before)
    return highest / before


def random_sharpness(
    loss: Loss, parameters: Sequence[Tensor], *, radius: float = 0.05, n_directions: int = 10, seed: int
) -> Average | None:
    """Return the mean relative rise along filter-normalised random directions.

    Li et al. (2018), "Visualizing the loss landscape of neural nets": each row of a matrix moves by `radius` times its
    norm; vectors (biases, gains) stay. Other arguments, None and errors as in `sam_sharpness`.
    """
    _check(parameters, radius, n_directions, "n_directions")
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Step:
        return [_filter_noise(p, radius, generator, is_exact=True) for p in parameters]

    return _mean_rise(loss, parameters, ([noise()] for _ in range(n_directions)))


def low_pass(
    loss: Loss, parameters: Sequence[Tensor], *, sigma: float = 0.05, n_pairs: int = 5, seed: int
) -> Average | None:
    """Return the relative rise of the loss after it is smoothed by a Gaussian: E[L(w + e)] / L(w) - 1.

    Bisla, Wang and Choromanska (2022), "Low-pass filtering SGD for recovering flat optima", with the standard deviation
    of each row of a matrix in proportion to its norm, as they propose: the mean square length of a row's step is
    (`sigma` times the row's norm) squared. Steps come in pairs of opposite sign, which cancels the slope. Other
    arguments, None and errors as in `sam_sharpness`.
    """
    _check(parameters, sigma, n_pairs, "n_pairs")
    generator = torch.Generator().manual_seed(seed)

    def pair() -> tuple[Step, Step]:
        noise = [_filter_noise(p, sigma, generator, is_exact=False) for p in parameters]
        return noise, [-e for e in noise]

    return _mean_rise(loss, parameters, (pair() for _ in range(n_pairs)))


def _mean_rise(loss: Loss, parameters: Sequence[Tensor], groups: Iterable[Sequence[Step]]) -> Average | None:
    """Return the mean over groups of steps of the relative rise, itself a mean within each group."""
    before = _value(loss)
    if before <= 0:
        return None
    rises = []
    for steps in groups:
        after = []
        for step in steps:
            with _moved(parameters, step):
                after.append(_value(loss))
        rises.append((sum(after) / len(after) - before) / before)
    return average(rises)


@contextmanager
def _moved(parameters: Sequence[Tensor], steps: Step) -> Iterator[None]:
    """Add the steps for the length of the block; the parameters are then what they were, bit for bit."""
    kept = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p, step in zip(parameters, steps, strict=True):
                p.add_(step)
        yield
    finally:
        with torch.no_grad():
            for p, origin in zip(parameters, kept, strict=True):
                p.copy_(origin)


def _value(loss: Loss) -> float:
    with torch.no_grad():
        return float(loss())


def _onto_sphere(gradient: Tensor | None, parameter: Tensor, radius: float) -> Tensor:
    length = 0.0 if gradient is None else float(gradient.norm())
    if gradient is None or length == 0 or not math.isfinite(length):
        return torch.zeros_like(parameter)
    return gradient * (radius * float(parameter.detach().norm()) / length)


def _filter_noise(parameter: Tensor, share: float, generator: torch.Generator, *, is_exact: bool) -> Tensor:
    """Return noise whose rows have `share` of the norm of the parameter's rows, exactly or in the mean square."""
    if parameter.ndim < 2:
        return torch.zeros_like(parameter)
    rows = parameter.detach().reshape(len(parameter), -1)
    noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)
    scale = noise.norm(dim=1, keepdim=True) if is_exact else math.sqrt(rows.shape[1])
    return (noise / scale * share * rows.norm(dim=1, keepdim=True)).reshape(parameter.shape)


def _check(parameters: Sequence[Tensor], radius: float, n: int, name: str) -> None:
    if not parameters or not radius > 0 or n < 1:
        raise ValueError(
            f"expected parameters, a radius above 0 and {name} of 1 or more, found {len(parameters)}, {radius} and {n}"
        )
