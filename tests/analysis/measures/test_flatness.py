import numpy as np
import pytest
import torch
from torch import nn

from analysis.measures import flatness

torch.manual_seed(0)


def quadratic(a: list[float], dtype=torch.float64):
    w = torch.linspace(-1, 1, len(a), dtype=dtype).requires_grad_()
    return (lambda: (torch.tensor(a, dtype=dtype) * w**2).sum() / 2), [w]


def two_layers(seed: int = 1, dtype=torch.float64, activation=torch.relu):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(64, 3, generator=generator, dtype=dtype), torch.randn(64, 1, generator=generator, dtype=dtype)
    w1 = torch.randn(5, 3, generator=generator, dtype=dtype).requires_grad_()
    w2 = torch.randn(1, 5, generator=generator, dtype=dtype).requires_grad_()
    return (lambda: ((activation(x @ w1.T) @ w2.T - y) ** 2).mean()), [w1, w2]


def dense_hessian(loss, parameters) -> np.ndarray:
    columns = [
        flatness.hessian_product(loss, parameters, v) for v in torch.eye(sum(p.numel() for p in parameters)).double()
    ]
    return torch.stack(columns).numpy()


@pytest.mark.requirement("ANALYSIS-6")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quadratic_gives_its_largest_coefficient(dtype):
    loss, parameters = quadratic([0.5, 7.0, 3.0, 2.0], dtype)
    found = flatness.top_eigenvalue(loss, parameters, n_steps=20, seed=0)
    assert found.value == pytest.approx(7.0, rel=1e-3)
    assert found.backend == "autograd"
    assert found.error < 1e-2
    assert found.relative == pytest.approx(found.value / loss().item(), rel=1e-5)


def test_the_largest_signed_eigenvalue_is_returned_where_a_negative_one_is_larger():
    loss, parameters = quadratic([-9.0, 4.0, 1.0])
    found = flatness.top_eigenvalue(loss, parameters, seed=0)
    assert found.value == pytest.approx(4.0, rel=1e-6)
    assert found.lowest == pytest.approx(-9.0, rel=1e-6)
    assert loss().item() < 0
    assert found.relative is None


def test_products_agree_with_torch_functional_hessian():
    loss, (w1, w2) = two_layers(activation=torch.tanh)

    def of_flat(flat):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(64, 3, generator=generator, dtype=torch.float64)
        y = torch.randn(64, 1, generator=generator, dtype=torch.float64)
        return ((torch.tanh(x @ flat[:15].view(5, 3).T) @ flat[15:].view(1, 5).T - y) ** 2).mean()

    judge = torch.autograd.functional.hessian(of_flat, torch.cat([w1.reshape(-1), w2.reshape(-1)]).detach()).numpy()
    np.testing.assert_allclose(dense_hessian(loss, [w1, w2]), judge, atol=1e-12)
    v = torch.randn(20, dtype=torch.float64)
    difference = flatness.finite_difference_product(loss, [w1, w2], v).numpy()
    np.testing.assert_allclose(difference, judge @ v.numpy(), rtol=1e-4, atol=1e-7)
    top = flatness.top_eigenvalue(loss, [w1, w2], n_steps=20, seed=3)
    assert top.value == pytest.approx(np.linalg.eigvalsh(judge)[-1], rel=1e-6)


@pytest.mark.requirement("ANALYSIS-6")
@pytest.mark.parametrize("a", [0.1, 3.0, 10.0])
def test_rescaling_of_layers_changes_the_plain_form_but_not_the_adaptive_one(a):
    loss, parameters = two_layers()
    plain, adaptive = (
        flatness.top_eigenvalue(loss, parameters, n_steps=20, seed=0, is_adaptive=k) for k in (False, True)
    )
    before = loss().item()
    with torch.no_grad():
        parameters[0].mul_(a)
        parameters[1].div_(a)
    assert loss().item() == pytest.approx(before, rel=1e-12)
    again = flatness.top_eigenvalue(loss, parameters, n_steps=20, seed=0, is_adaptive=True)
    assert again.value == pytest.approx(adaptive.value, rel=1e-6)
    assert flatness.top_eigenvalue(loss, parameters, n_steps=20, seed=0).value != pytest.approx(plain.value, rel=0.1)


def test_a_loss_times_c_has_c_times_the_curvature_and_the_same_relative_one():
    loss, parameters = two_layers()
    one = flatness.top_eigenvalue(loss, parameters, n_steps=20, seed=0)
    three = flatness.top_eigenvalue(lambda: 3 * loss(), parameters, n_steps=20, seed=0)
    assert three.value == pytest.approx(3 * one.value, rel=1e-6)
    assert three.relative == pytest.approx(one.relative, rel=1e-6)


class RawCube(torch.autograd.Function):
    """A kernel in the style of Triton: its backward works on raw data, so a second derivative through it is wrong."""

    @staticmethod
    def forward(ctx, w):
        ctx.kept = w.detach().clone()
        return w**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3 * ctx.kept**2


@pytest.mark.requirement("ANALYSIS-6")
def test_a_kernel_whose_second_derivative_is_silently_wrong_is_found_out():
    w = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    found = flatness.top_eigenvalue(lambda: (RawCube.apply(w) ** 2).sum(), [w], seed=0)
    assert found.backend == "finite_difference"
    assert found.gate_error > 0.01
    assert found.value == pytest.approx(30 * 2.0**4, rel=1e-4)  # d2/dw2 of w^6 at 2


def test_fused_attention_falls_back_to_differences_and_math_attention_does_not():
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(1, 2, 6, 8, generator=generator)
    w = torch.randn(8, 8, generator=generator).requires_grad_()

    def loss():
        return (nn.functional.scaled_dot_product_attention(q @ w, q, q) ** 2).mean()

    fused = flatness.top_eigenvalue(loss, [w], n_steps=10, seed=0)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        plain = flatness.top_eigenvalue(loss, [w], n_steps=10, seed=0)
    assert (fused.backend, fused.gate_error, plain.backend) == ("finite_difference", None, "autograd")
    assert fused.value == pytest.approx(plain.value, rel=0.02)


def test_a_linear_loss_is_flat():
    w = torch.ones(4, requires_grad=True)
    found = flatness.top_eigenvalue(lambda: (3 * w).sum(), [w], seed=0)
    assert found.value == pytest.approx(0.0, abs=1e-4)


def test_weights_gradients_and_the_global_generator_are_left_alone():
    loss, parameters = two_layers(dtype=torch.float32)
    before = [p.detach().clone() for p in parameters]
    state = torch.get_rng_state()
    flatness.top_eigenvalue(loss, parameters, seed=0)
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(parameters, before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_come_back_when_the_loss_raises():
    w = torch.ones(3, requires_grad=True)

    def loss():
        if not torch.equal(w.detach(), torch.ones(3)):
            raise KeyError("moved")
        return (w**2).sum()

    with pytest.raises(KeyError):
        flatness.top_eigenvalue(loss, [w], seed=0)
    assert torch.equal(w.detach(), torch.ones(3))


def test_equal_seeds_give_equal_numbers():
    loss, parameters = two_layers()
    first, second = (flatness.top_eigenvalue(loss, parameters, n_steps=5, seed=4) for _ in range(2))
    assert first == second


def test_bad_arguments_are_refused():
    loss, parameters = quadratic([1.0])
    with pytest.raises(ValueError, match="n_steps"):
        flatness.top_eigenvalue(loss, parameters, n_steps=0, seed=0)
    with pytest.raises(ValueError, match="finite scalar"):
        flatness.top_eigenvalue(lambda: parameters[0] * float("nan"), parameters, seed=0)
