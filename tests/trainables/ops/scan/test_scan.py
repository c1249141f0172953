"""The chunked scans against the sequential ones, and these against solutions of the differential equation."""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.signal import lfilter

from trainables.ops.scan import choose_block, choose_chunk, choose_impl, selective_scan, ssd
from trainables.ops.scan.chunked import combine

LENGTHS = (1, 63, 120, 257)
CASES = list(itertools.product(LENGTHS, (torch.float64, torch.float32), ("euler_B", "zoh_exact"), (False, True)))
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-4}
"""Largest difference over the largest value, outputs and gradients; float32 at 257 rows of steps up to 2."""


def head_inputs(length, dtype=torch.float64, seed=0, batch=2, heads=3, head_dim=4, d_state=5):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    x, b, c = normal(batch, length, heads, head_dim), normal(batch, length, d_state), normal(batch, length, d_state)
    step = normal(batch, length, heads).abs()
    rate = -normal(heads).abs() - 0.05
    return [each.requires_grad_() for each in (x, step, rate, b, c)], normal(batch, heads, head_dim, d_state)


def channel_inputs(length, dtype=torch.float64, seed=0, batch=2, channels=6, d_state=3):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    x, step = normal(batch, length, channels), normal(batch, length, channels).abs()
    rate = -normal(channels, d_state).abs() - 0.05
    b, c = normal(batch, length, d_state), normal(batch, length, d_state)
    return [each.requires_grad_() for each in (x, step, rate, b, c)], normal(batch, channels, d_state)


def results(scan, inputs, state, impl, **options):
    """Outputs, last state and the gradients of a weighted sum of both."""
    for each in inputs:
        each.grad = None
    y, last = scan(*inputs, impl=impl, **options, **state)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    ((y * weight).sum() + (last * last).sum()).backward()
    return [y.detach(), last.detach(), *(each.grad.clone() for each in inputs)]


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert torch.isfinite(one).all()
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1.0)


@pytest.mark.requirement("CONDOR-4")
@pytest.mark.parametrize(
    ("length", "dtype", "discretisation", "has_state"),
    CASES,
)
def test_chunked_ssd_equals_sequential_in_outputs_and_gradients(length, dtype, discretisation, has_state):
    inputs, first = head_inputs(length, dtype)
    state = {"state_BHPN": first if has_state else None, "want_state": True, "discretisation": discretisation}
    expected = results(ssd, inputs, state, "sequential")
    assert_close(results(ssd, inputs, state, "chunked"), expected, TOLERANCE[dtype])


@pytest.mark.requirement("CONDOR-4")
@pytest.mark.parametrize(
    ("length", "dtype", "discretisation", "has_state"),
    CASES,
)
def test_chunked_selective_scan_equals_sequential(length, dtype, discretisation, has_state):
    inputs, first = channel_inputs(length, dtype)
    state = {"state_BDN": first if has_state else None, "discretisation": discretisation}
    expected = results(selective_scan, inputs, state, "sequential")
    assert_close(results(selective_scan, inputs, state, "chunked"), expected, TOLERANCE[dtype])


@pytest.mark.requirement("CONDOR-4")
def test_float32_chunked_is_as_near_to_float64_as_sequential():
    inputs, _ = head_inputs(120, torch.float64)
    exact = ssd(*inputs, impl="sequential")[0]
    single = [each.detach().float() for each in inputs]
    error = (ssd(*single, impl="chunked")[0].double() - exact).abs().max() / exact.abs().max()
    assert error < 5e-6


def test_constant_decay_is_a_linear_filter():
    rng = np.random.default_rng(1)
    x, step, rate = rng.normal(size=50), 0.3, -0.7
    y, _ = ssd(
        torch.tensor(x).view(1, 50, 1, 1),
        torch.full((1, 50, 1), step, dtype=torch.float64),
        torch.tensor([rate], dtype=torch.float64),
        torch.ones(1, 50, 1, dtype=torch.float64),
        torch.ones(1, 50, 1, dtype=torch.float64),
    )
    expected = lfilter([step], [1, -np.exp(step * rate)], x)
    np.testing.assert_allclose(y.flatten().numpy(), expected, atol=1e-12)


@pytest.mark.requirement("CONDOR-3")
def test_exact_hold_solves_the_differential_equation():
    """Input held over a step: the exponential of the augmented matrix [[a, b], [0, 0]] is the exact solution."""
    rng = np.random.default_rng(2)
    x, steps, rate, gain = rng.normal(size=20), rng.uniform(0.01, 2, size=20), -0.8, 1.7
    y, _ = ssd(
        torch.tensor(x).view(1, 20, 1, 1),
        torch.tensor(steps).view(1, 20, 1),
        torch.tensor([rate], dtype=torch.float64),
        torch.full((1, 20, 1), gain, dtype=torch.float64),
        torch.ones(1, 20, 1, dtype=torch.float64),
        discretisation="zoh_exact",
    )
    state, expected = 0.0, []
    for value, step in zip(x, steps, strict=True):
        state = (expm(np.array([[rate, gain * value], [0.0, 0.0]]) * step) @ [state, 1.0])[0]
        expected.append(state)
    np.testing.assert_allclose(y.flatten().numpy(), expected, atol=1e-6)


@pytest.mark.requirement("CONDOR-3")
@pytest.mark.parametrize("discretisation", ["euler_B", "zoh_exact"])
def test_no_step_keeps_the_state_and_an_endless_step_forgets_it(discretisation):
    (x, step, rate, b, c), state = head_inputs(3)
    options = {"state_BHPN": state, "want_state": True, "discretisation": discretisation}
    _, kept = ssd(x, torch.zeros_like(step), rate, b, c, **options)
    torch.testing.assert_close(kept, state)
    far = torch.full_like(step, 1e4)
    _, forgot = ssd(x, far, rate, b, c, **options)
    _, fresh = ssd(x, far, rate, b, c, **(options | {"state_BHPN": torch.zeros_like(state)}))
    torch.testing.assert_close(forgot, fresh)


@pytest.mark.requirement("CONDOR-4")
def test_combination_of_steps_is_associative_and_equals_two_steps():
    generator = torch.Generator().manual_seed(3)
    one, two, three = [tuple(torch.rand(2, 4, generator=generator, dtype=torch.float64)) for _ in range(3)]
    left, right = combine(combine(one, two), three), combine(one, combine(two, three))
    torch.testing.assert_close(left, right)
    h = torch.tensor(0.3, dtype=torch.float64)
    decay, gain = combine(one, two)
    torch.testing.assert_close(decay * h + gain, two[0] * (one[0] * h + one[1]) + two[1])


def test_very_fast_decay_neither_overflows_nor_gives_nan_gradients():
    inputs, _ = head_inputs(120, torch.float32)
    inputs[2] = torch.full_like(inputs[2], -80.0).requires_grad_()
    found = results(ssd, inputs, {"want_state": True}, "chunked")
    assert_close(found, results(ssd, inputs, {"want_state": True}, "sequential"), 5e-4)


def test_chunked_ssd_has_right_second_derivatives():
    generator = torch.Generator().manual_seed(4)
    shapes = [(1, 5, 2, 2), (1, 5, 2), (2,), (1, 5, 2), (1, 5, 2)]
    x, step, rate, b, c = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    inputs = [each.requires_grad_() for each in (x, step.abs() + 0.1, -rate.abs() - 0.1, b, c)]
    assert torch.autograd.gradgradcheck(lambda *a: ssd(*a, impl="chunked")[0], inputs)


def test_rows_of_another_layout_give_the_same():
    inputs, _ = head_inputs(63)
    x = inputs[0].detach().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not x.is_contiguous()
    torch.testing.assert_close(ssd(x, *inputs[1:])[0], ssd(*inputs)[0])


@pytest.mark.parametrize(
    ("impl", "device", "dtype", "discretisation", "has_kernels", "expected"),
    [
        ("auto", "cpu", "float32", "euler_B", False, "chunked"),
        ("auto", "cpu", "float32", "euler_B", True, "chunked"),
        ("auto", "cuda", "bfloat16", "euler_B", True, "fused"),
        ("auto", "cuda", "bfloat16", "euler_B", False, "chunked"),
        ("auto", "cuda", "float64", "euler_B", True, "chunked"),
        ("auto", "cuda", "float32", "zoh_exact", True, "chunked"),
        ("fused", "cuda", "float32", "euler_B", True, "fused"),
        ("chunked", "cuda", "float32", "euler_B", True, "chunked"),
        ("sequential", "cpu", "float64", "zoh_exact", False, "sequential"),
    ],
)
def test_choice_of_implementation(impl, device, dtype, discretisation, has_kernels, expected):
    assert choose_impl(impl, device, dtype, discretisation, has_kernels=has_kernels) == expected


@pytest.mark.parametrize(
    ("device", "dtype", "discretisation", "has_kernels", "words"),
    [
        ("cpu", "float32", "euler_B", True, "device cpu"),
        ("cuda", "float32", "euler_B", False, "no mamba-ssm"),
        ("cuda", "float64", "euler_B", True, "float64"),
        ("cuda", "float32", "zoh_exact", True, "zoh_exact"),
    ],
)
def test_kernels_that_cannot_run_are_refused_with_the_reason(device, dtype, discretisation, has_kernels, words):
    with pytest.raises(ValueError, match=words):
        choose_impl("fused", device, dtype, discretisation, has_kernels=has_kernels)


def test_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'fast'"):
        choose_impl("fast", "cpu", "float32", "euler_B", has_kernels=False)


def test_shapes_that_do_not_fit_are_shown():
    (x, step, rate, b, c), _ = head_inputs(4)
    with pytest.raises(ValueError, match=r"dt \(B, T, H\).*\(2, 3, 3\)"):
        ssd(x, step[:, :3], rate, b, c)


@pytest.mark.parametrize("length", [1, 2, 39, 60, 61, 120, 128, 129, 512, 1000])
def test_chunks_and_blocks_cover_the_length_evenly(length):
    chunk = choose_chunk(length, 128, 64)
    assert 1 <= chunk <= 128
    assert chunk * -(-length // chunk) - length < -(-length // chunk)
    block = choose_block(chunk)
    assert 1 <= block <= 60
    assert block * -(-chunk // block) >= chunk


def test_kernels_that_are_missing_name_the_remedy():
    with pytest.raises(ImportError, match="extra `gpu`"):
        import trainables.ops.scan.fused  # noqa: F401
