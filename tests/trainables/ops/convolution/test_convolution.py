"""The compiled convolution against the plain one in float64, and that against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as functional

from tests.trainables.ops.kernels import assert_near, curvature, outputs_and_gradients, poisoned_memory, threads
from trainables.ops.convolution import causal_convolution_silu, reference


def inputs(length, kernel_length=4, channels=24, seed=0):
    """x is a part of a wider projection, as it is in a mixer."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, length, channels + 8, generator=generator)[..., 8:]
    return [x, torch.randn(channels, kernel_length, generator=generator), torch.randn(channels, generator=generator)]


@pytest.mark.requirement("CONDOR-5")
def test_plain_form_is_a_padded_depthwise_convolution():
    x, weight, bias = (each.double() for each in inputs(9))
    padded = functional.pad(x.transpose(1, 2), (3, 0))
    expected = functional.silu(functional.conv1d(padded, weight[:, None], bias, groups=24)).transpose(1, 2)
    torch.testing.assert_close(reference.causal_convolution_silu(x, weight, bias), expected)


@pytest.mark.parametrize("kernel_length", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 3, 63, 120])
def test_compiled_equals_plain_in_float64(length, kernel_length):
    given = inputs(length, kernel_length)
    expected = outputs_and_gradients(reference.causal_convolution_silu, given, torch.float64)
    with poisoned_memory():
        assert_near(outputs_and_gradients(causal_convolution_silu, given), expected)


def test_second_derivatives_are_those_of_the_plain_form():
    given = inputs(10)
    expected = curvature(reference.causal_convolution_silu, given, torch.float64)
    assert_near(curvature(causal_convolution_silu, given, torch.float32), expected)


def test_threads_change_no_bit():
    found = []
    for n in (1, 2):
        with threads(n):
            found.append(outputs_and_gradients(causal_convolution_silu, inputs(50)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_nan_and_numbers_too_large_are_seen_and_extremes_are_finite():
    x, weight, bias = inputs(20)
    x[1, 7, 3] = torch.nan
    y = causal_convolution_silu(x, weight, bias)
    assert y.isnan().nonzero().tolist() == [[1, t, 3] for t in range(7, 11)]
    large = torch.tensor([[[1e4, -1e4]]])
    y = causal_convolution_silu(large, torch.ones(2, 1), torch.zeros(2))
    torch.testing.assert_close(y, torch.tensor([[[1e4, 0.0]]]))


def test_other_types_take_the_plain_form():
    given = [each.bfloat16() for each in inputs(20)]
    assert torch.equal(causal_convolution_silu(*given), reference.causal_convolution_silu(*given))
