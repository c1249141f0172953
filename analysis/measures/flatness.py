"""Flatness of the loss surface: the top Hessian eigenvalue, plain and unchanged by rescaling of weights (ANALYSIS-6).

The caller provides a loss that is a pure function of the parameters: evaluation mode (no dropout), a fixed slice of
training rows, float32 or more, TF32 off. Second derivatives do not exist for fused attention: call under
`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, or the finite-difference form is used. Compare values only within one
family, one loss, one scaling of targets and one slice; a loss times c has c times the curvature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Loss = Callable[[], Tensor]
Product = Callable[[Tensor], Tensor]
GATE = 1e-2
"""Largest relative difference from the finite-difference product at which the exact product is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curvature:
    """The top of the Hessian's spectrum.

    Attributes:
        value: Largest (signed) eigenvalue; negative only where the surface bends down in every direction.
        lowest: Smallest eigenvalue seen; a large negative one says that this is no minimum.
        error: Residual norm of the eigenpair: an eigenvalue lies within this distance of `value`.
        loss: Loss at the parameters.
        backend: How products were computed: `autograd` (reverse over reverse) or `finite_difference`.
        gate_error: Relative difference of both forms on a random vector; None where autograd has no second derivative.
        n_products: Hessian-vector products used, those of the gate included.
    """

    value: float
    lowest: float
    error: float
    loss: float
    backend: Literal["autograd", "finite_difference"]
    gate_error: float | None
    n_products: int

    @property
    def relative(self) -> float | None:
        """`value` divided by the loss (ANALYSIS-6); None where the loss is not positive."""
        return self.value / self.loss if self.loss > 0 else None


def top_eigenvalue(
    loss: Loss, parameters: Sequence[Tensor], *, n_steps: int = 15, seed: int, is_adaptive: bool = False
) -> Curvature:
    """Return the largest eigenvalue of the Hessian of `loss` by Lanczos iteration with full re-orthogonalisation.

    `is_adaptive` takes D H D with D = diag(abs(w)) instead of H (Kwon et al. 2021, "ASAM"): unchanged when one layer is
    multiplied by a and the next divided by it (Dinh et al. 2017), so it compares networks, not parametrisations.
    Parameters are left exactly as they were, and their `.grad` is not touched.

    Args:
        loss: Returns the scalar loss at the present parameters; the same value at each call.
        parameters: Leaves of the loss that require gradients, floating point, on one device.
        n_steps: Lanczos steps, 1 or more; fewer where the space is exhausted. Memory: n_steps copies of the parameters.
        seed: Seed of the start vector and of the gate's vector; the global generator is not used.
        is_adaptive: See above.

    Raises:
        ValueError: No parameters, `n_steps` below 1, or the loss is not a finite scalar.
    """
    if not parameters or n_steps < 1:
        raise ValueError(f"expected parameters and n_steps of 1 or more, found {len(parameters)} and {n_steps}")
    value = loss()
    if value.ndim != 0 or not torch.isfinite(value):
        raise ValueError(f"loss: expected a finite scalar, found shape {tuple(value.shape)}, value {value.detach()}")
    generator = torch.Generator().manual_seed(seed)
    product, backend, gate_error = _gated_product(loss, parameters, generator)
    if is_adaptive:
        product = _between(torch.cat([p.detach().abs().reshape(-1) for p in parameters]), product)
    values, error, n_used = _lanczos(product, _random_like(parameters, generator), n_steps)
    return Curvature(
        value=float(values[-1]),
        lowest=float(values[0]),
        error=error,
        loss=float(value.detach()),
        backend=backend,
        gate_error=gate_error,
        n_products=n_used + 2,
    )


def hessian_product(loss: Loss, parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """Return H v by reverse-over-reverse differentiation, flat; zeros where the loss is (piecewise) linear.

    Raises:
        RuntimeError: An operation of the loss has no second derivative.
    """
    with torch.enable_grad():
        gradient = torch.autograd.grad(loss(), parameters, create_graph=True, allow_unused=True)
        pairs = [(g * v).sum() for g, v in zip(gradient, _split(vector, parameters), strict=True) if g is not None]
        slope = torch.stack(pairs).sum()
        if not slope.requires_grad:
            return torch.zeros_like(vector)
        return _flat(torch.autograd.grad(slope, parameters, allow_unused=True), parameters)


def finite_difference_product(loss: Loss, parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """Return H v by the central difference (g(w + e v) - g(w - e v)) / 2e, flat; needs gradients only.

    The step is the cube root of the machine precision times the norm of the weights (at least 1) over the norm of v,
    which balances truncation, O(e^2), and rounding, O(1/e).
    """
    length = float(vector.norm())
    if length == 0:
        return torch.zeros_like(vector)
    size = max(1.0, math.sqrt(sum(float(p.detach().norm()) ** 2 for p in parameters)))
    step = torch.finfo(vector.dtype).eps ** (1 / 3) * size / length
    before = [p.detach().clone() for p in parameters]
    pieces = _split(vector, parameters)
    gradients = []
    try:
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for p, origin, v in zip(parameters, before, pieces, strict=True):
                    p.copy_(origin + sign * step * v)
            with torch.enable_grad():
                gradients.append(_flat(torch.autograd.grad(loss(), parameters, allow_unused=True), parameters))
    finally:
        with torch.no_grad():
            for p, origin in zip(parameters, before, strict=True):
                p.copy_(origin)
    return (gradients[0] - gradients[1]) / (2 * step)


def _gated_product(
    loss: Loss, parameters: Sequence[Tensor], generator: torch.Generator
) -> tuple[Product, Literal["autograd", "finite_difference"], float | None]:
    """Choose the exact product where it agrees with the finite difference on one random vector.

    A custom backward over a raw kernel gives a second derivative that is silently wrong; only a comparison shows it.
    """

    def exact(v: Tensor) -> Tensor:
        return hessian_product(loss, parameters, v)

    def difference(v: Tensor) -> Tensor:
        return finite_difference_product(loss, parameters, v)

    probe = _random_like(parameters, generator)
    judge = difference(probe)
    try:
        candidate = exact(probe)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # "derivative for ... is not implemented": fused attention, once_differentiable
        return difference, "finite_difference", None
    size = max(float(candidate.norm()), float(judge.norm()))
    gate_error = float((candidate - judge).norm()) / size if size > 0 else 0.0
    if gate_error <= GATE:
        return exact, "autograd", gate_error
    return difference, "finite_difference", gate_error


def _lanczos(product: Product, start: Tensor, n_steps: int) -> tuple[Tensor, float, int]:
    """Return the Ritz values in ascending order, the residual norm of the largest, and the number of products."""
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(n_steps, start.numel())):
        image = product(basis[-1])
        diagonal.append(_dot(image, basis[-1]))
        for _ in range(2):  # once leaves rounding errors that bring found eigenvalues back as copies
            for q in basis:
                image = image - _dot(image, q) * q
        remainder = float(image.norm())
        beside.append(remainder)
        if remainder <= 1e-6 * max(map(abs, diagonal + beside[:-1]), default=0.0) or remainder == 0:
            break
        basis.append(image / remainder)
    n = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i in range(n - 1):
        tridiagonal[i, i + 1] = tridiagonal[i + 1, i] = beside[i]
    values, vectors = torch.linalg.eigh(tridiagonal)
    return values, beside[n - 1] * abs(float(vectors[-1, -1])), n


def _between(scale: Tensor, product: Product) -> Product:
    return lambda v: scale * product(scale * v)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.double(), b.double()))


def _random_like(parameters: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    first = parameters[0]
    n = sum(p.numel() for p in parameters)
    return torch.randn(n, generator=generator, dtype=torch.float64).to(device=first.device, dtype=first.dtype)


def _split(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    pieces = torch.split(vector, [p.numel() for p in parameters])
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).detach().reshape(-1)
            for g, p in zip(gradients, parameters, strict=True)
        ]
    )
