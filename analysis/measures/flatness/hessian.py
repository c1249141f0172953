"""Curvature of the loss surface: top Hessian eigenvalue, trace, and forms that a rescaling of weights cannot change.

Second derivatives do not exist for fused attention: call under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, or
the finite-difference form is used. A loss times c has c times the curvature. Requirement: ANALYSIS-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from analysis.measures.flatness.average import Average, average

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedProduct:
    """Hessian-vector products in the form that is to be believed for this loss; see `gated_product`.

    Attributes:
        apply: Flat vector -> H times it.
        backend, gate_error: As in `Curvature`.
    """

    apply: Product
    backend: Literal["autograd", "finite_difference"]
    gate_error: float | None


def top_eigenvalue(
    loss: Loss,
    parameters: Sequence[Tensor],
    *,
    n_steps: int = 15,
    seed: int,
    is_adaptive: bool = False,
    product: GatedProduct | None = None,
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
        product: That of `gated_product`, where it is known already.

    Raises:
        ValueError: No parameters, `n_steps` below 1, or the loss is not a finite scalar.
    """
    value = _checked(loss, parameters, n_steps, "n_steps")
    gated = product or gated_product(loss, parameters, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    apply = gated.apply
    if is_adaptive:
        apply = _between(torch.cat([p.detach().abs().reshape(-1) for p in parameters]), apply)
    values, error, n_used = _lanczos(apply, _random_like(parameters, generator), n_steps)
    return Curvature(
        value=float(values[-1]),
        lowest=float(values[0]),
        error=error,
        loss=value,
        backend=gated.backend,
        gate_error=gated.gate_error,
        n_products=n_used + 2,
    )


def trace(
    loss: Loss,
    parameters: Sequence[Tensor],
    *,
    n_probes: int = 8,
    seed: int,
    product: GatedProduct | None = None,
) -> Average:
    """Return the trace of the Hessian by Hutchinson's estimator with signs as probes (Hutchinson 1989).

    Negative eigenvalues cancel positive ones: a saddle may have the trace of a plain. Arguments and errors are those of
    `top_eigenvalue`; `n_probes` Hessian-vector products are used.
    """
    _checked(loss, parameters, n_probes, "n_probes")
    gated = product or gated_product(loss, parameters, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n_probes):
        v = _random_like(parameters, generator).sign()
        found.append(_dot(v, gated.apply(v)))
    return average(found)


def relative_flatness(
    loss: Loss,
    parameters: Sequence[Tensor],
    *,
    n_probes: int = 8,
    seed: int,
    product: GatedProduct | None = None,
) -> Average:
    """Return the relative flatness summed over matrices: unchanged by a rescaling between layers.

    Petzka et al. (2021), "Relative flatness and generalization", Definition 3: for a layer with rows w_s the sum over s
    and s' of <w_s, w_s'> times the trace of the block of the Hessian of rows s and s'. With random signs g and z the
    product (W g) z' has exactly that as the mean of its quadratic form, so one Hessian-vector product a probe serves
    all layers: their signs are independent. Vectors (biases, gains) are left out, as in the definition.
    Arguments and errors are those of `trace`.
    """
    _checked(loss, parameters, n_probes, "n_probes")
    gated = product or gated_product(loss, parameters, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(n_probes):
        v = torch.cat([_row_probe(p, generator).reshape(-1) for p in parameters])
        found.append(_dot(v, gated.apply(v)))
    return average(found)


def gated_product(loss: Loss, parameters: Sequence[Tensor], *, seed: int) -> GatedProduct:
    """Choose the exact product where it agrees with the finite difference on one random vector.

    A custom backward over a raw kernel gives a second derivative that is silently wrong; only a comparison shows it.
    """

    def exact(v: Tensor) -> Tensor:
        return hessian_product(loss, parameters, v)

    def difference(v: Tensor) -> Tensor:
        return finite_difference_product(loss, parameters, v)

    probe = _random_like(parameters, torch.Generator().manual_seed(seed))
    judge = difference(probe)
    try:
        candidate = exact(probe)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # "derivative for ... is not implemented": fused attention, once_differentiable
        return GatedProduct(apply=difference, backend="finite_difference", gate_error=None)
    size = max(float(candidate.norm()), float(judge.norm()))
    gate_error = float((candidate - judge).norm()) / size if size > 0 else 0.0
    if gate_error <= GATE:
        return GatedProduct(apply=exact, backend="autograd", gate_error=gate_error)
    return GatedProduct(apply=difference, backend="finite_difference", gate_error=gate_error)


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


def _checked(loss: Loss, parameters: Sequence[Tensor], n: int, name: str) -> float:
    if not parameters or n < 1:
        raise ValueError(f"expected parameters and {name} of 1 or more, found {len(parameters)} and {n}")
    value = loss()
    if value.ndim != 0 or not torch.isfinite(value):
        raise ValueError(f"loss: expected a finite scalar, found shape {tuple(value.shape)}, value {value.detach()}")
    return float(value.detach())


def _row_probe(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return (W g) z' for random signs g and z; zeros for a vector."""
    if parameter.ndim < 2:
        return torch.zeros_like(parameter)
    rows = parameter.detach().reshape(len(parameter), -1)
    g, z = (_signs(rows.shape[1], generator).to(rows) for _ in range(2))
    return torch.outer(rows @ g, z)


def _signs(n: int, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, (n,), generator=generator).double() - 1.0


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
