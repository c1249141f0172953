"""The compiled norm against the plain one in float64."""

import pytest
import torch

from tests.trainables.ops.kernels import assert_near, curvature, outputs_and_gradients, poisoned_memory, threads
from trainables.ops.norm import reference, rms_norm

EPSILON = 1e-5


def inputs(shape, *, has_gate):
    """The gate is a part of a wider projection, as it is in a mixer."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(*shape, generator=generator), torch.randn(shape[-1], generator=generator)
    gate = torch.randn(*shape[:-1], shape[-1] + 8, generator=generator)[..., : shape[-1]]
    return [x, weight, gate] if has_gate else [x, weight]


def compiled(x, weight, gate=None):
    return rms_norm(x, weight, gate=gate, epsilon=EPSILON)


def plain(x, weight, gate=None):
    return reference.rms_norm(x, weight, gate, EPSILON)


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 63, 24), (2, 2, 3, 40)])
def test_compiled_equals_plain_in_float64(shape, has_gate):
    given = inputs(shape, has_gate=has_gate)
    expected = outputs_and_gradients(plain, given, torch.float64)
    with poisoned_memory():
        assert_near(outputs_and_gradients(compiled, given), expected)


@pytest.mark.parametrize("has_gate", [False, True])
def test_second_derivatives_are_those_of_the_plain_form(has_gate):
    given = inputs((2, 5, 8), has_gate=has_gate)
    assert_near(curvature(compiled, given, torch.float32), curvature(plain, given, torch.float64))


def test_rows_of_another_layout_give_the_same():
    x, weight, gate = inputs((4, 9, 8), has_gate=True)
    moved = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(compiled(moved, weight, gate), compiled(x, weight, gate))
    expanded = x[:1].expand(4, -1, -1)
    torch.testing.assert_close(compiled(expanded, weight), plain(expanded, weight))


def test_threads_change_no_bit():
    found = []
    for n in (1, 3):
        with threads(n):
            found.append(outputs_and_gradients(compiled, inputs((2, 50, 24), has_gate=True)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_zero_is_finite_and_nan_stays_in_its_row():
    x, weight, gate = inputs((4, 8), has_gate=True)
    x[0], x[2, 3] = 0, torch.nan
    y = compiled(x, weight, gate)
    assert (y[0] == 0).all()
    assert y.isnan().all(1).tolist() == [False, False, True, False]
