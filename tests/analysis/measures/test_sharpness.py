"""The other measures of flatness: traces, steps in weights, and what the documents ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.measures import flatness
from tests.analysis.measures.test_flatness import dense_hessian, quadratic, two_layers


@pytest.mark.requirement("ANALYSIS-6")
def test_the_trace_of_a_quadratic_is_exact_and_has_no_error():
    loss, parameters = quadratic([0.5, 7.0, 3.0, 2.0])
    found = flatness.trace(loss, parameters, n_probes=3, seed=0)
    assert found.value == pytest.approx(12.5, rel=1e-6)
    assert found.error == pytest.approx(0, abs=1e-6)


@pytest.mark.requirement("ANALYSIS-6")
def test_the_trace_lies_within_four_errors_of_that_of_the_whole_hessian():
    loss, parameters = two_layers(activation=torch.tanh)
    exact = float(np.trace(dense_hessian(loss, parameters)))
    for seed in range(10):
        found = flatness.trace(loss, parameters, n_probes=40, seed=seed)
        assert abs(found.value - exact) < 4 * found.error


@pytest.mark.requirement("ANALYSIS-6")
def test_relative_flatness_is_that_of_its_definition():
    loss, (w1, w2) = two_layers(activation=torch.tanh)
    hessian = torch.from_numpy(dense_hessian(loss, [w1, w2]))
    exact, start = 0.0, 0
    for w in (w1.detach(), w2.detach()):
        m, d = w.shape
        block = hessian[start : start + m * d, start : start + m * d].reshape(m, d, m, d)
        exact += float(torch.einsum("sk,tk,sjtj->", w, w, block))
        start += m * d
    for seed in range(5):
        found = flatness.relative_flatness(loss, [w1, w2], n_probes=400, seed=seed)
        assert abs(found.value - exact) < 4 * found.error


@pytest.mark.requirement("ANALYSIS-6")
@pytest.mark.parametrize("a", [0.1, 10.0])
def test_a_rescaling_of_layers_leaves_the_invariant_measures_alone(a):
    loss, parameters = two_layers()

    def measured() -> list[float]:
        return [
            flatness.relative_flatness(loss, parameters, n_probes=5, seed=1).value,
            flatness.low_pass(loss, parameters, seed=1).value,
            flatness.random_sharpness(loss, parameters, seed=1).value,
            flatness.sam_sharpness(loss, parameters),
        ]

    before, plain = measured(), flatness.trace(loss, parameters, n_probes=5, seed=1).value
    with torch.no_grad():
        parameters[0].mul_(a)
        parameters[1].div_(a)
    assert measured()[:3] == pytest.approx(before[:3], rel=1e-6)
    assert flatness.trace(loss, parameters, n_probes=5, seed=1).value != pytest.approx(plain, rel=0.5)


@pytest.mark.requirement("ANALYSIS-6")
def test_a_loss_times_c_has_c_times_the_curvature_and_the_same_relative_rise():
    loss, parameters = two_layers(activation=torch.tanh)

    def tripled():
        return 3 * loss()

    for measure in (flatness.trace, flatness.relative_flatness):
        assert measure(tripled, parameters, seed=2).value == pytest.approx(
            3 * measure(loss, parameters, seed=2).value, rel=1e-6
        )
    for measure in (flatness.low_pass, flatness.random_sharpness):
        assert measure(tripled, parameters, seed=2).value == pytest.approx(
            measure(loss, parameters, seed=2).value, rel=1e-6
        )


@pytest.mark.requirement("ANALYSIS-6")
def test_a_pinball_loss_has_no_curvature_but_the_low_pass_measure_sees_it():
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(200, n, generator=generator, dtype=torch.float64) for n in (4, 1))
    w = torch.full((1, 4), 0.3, dtype=torch.float64).requires_grad_()

    def pinball():
        u = y - x @ w.T
        return torch.maximum(0.9 * u, -0.1 * u).mean()

    with torch.no_grad():
        w.copy_(torch.linalg.lstsq(x, y).solution.T)
    assert flatness.trace(pinball, [w], seed=0).value == pytest.approx(0, abs=1e-2)
    found = flatness.low_pass(pinball, [w], sigma=2.0, n_pairs=50, seed=0)
    assert found.value > 4 * found.error > 0


def test_the_worst_step_on_a_quadratic_goes_along_the_gradient():
    loss, (w,) = quadratic([2.0, 2.0])
    rise = flatness.sam_sharpness(loss, [w], radius=0.05, n_steps=1)
    assert rise == pytest.approx(1.05**2 - 1, rel=1e-9)  # the gradient of |w|^2 points along w


def test_weights_are_left_bit_for_bit():
    loss, parameters = two_layers()
    before = [p.detach().clone() for p in parameters]
    flatness.sam_sharpness(loss, parameters)
    flatness.random_sharpness(loss, parameters, seed=0)
    flatness.low_pass(loss, parameters, seed=0)
    assert all(torch.equal(p.detach(), b) for p, b in zip(parameters, before, strict=True))


def test_a_loss_that_is_not_positive_has_no_relative_rise():
    loss, parameters = quadratic([-1.0, -2.0])
    assert flatness.sam_sharpness(loss, parameters) is None
    assert flatness.random_sharpness(loss, parameters, seed=0) is None
    assert flatness.low_pass(loss, parameters, seed=0) is None


def test_the_spectral_measure_is_that_of_scipy_and_ignores_vectors():
    a = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = np.log(np.linalg.svd(a.numpy(), compute_uv=False)[0])
    assert flatness.weight_spectral([a, torch.ones(7)]) == pytest.approx(expected, rel=1e-5)
    assert flatness.weight_spectral([torch.ones(7)]) is None


def test_the_curve_is_flat_where_its_end_is():
    assert flatness.curve_flatness([9, 5, 1, 1, 1, 1, 1]) == 0
    assert flatness.curve_flatness([5, 1, 2, 3, 4, 5]) == pytest.approx(np.std([1, 2, 3, 4, 5], ddof=1))
    assert flatness.curve_flatness([1.0]) is None


@pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"n_steps": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    loss, parameters = quadratic([1.0])
    with pytest.raises(ValueError, match="expected parameters"):
        flatness.sam_sharpness(loss, parameters, **wrong)
