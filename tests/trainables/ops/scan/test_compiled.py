"""The compiled scan against the sequential one in float64."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.trainables.ops.kernels import (
    assert_near,
    curvature,
    outputs_and_gradients,
    poisoned_memory,
    threads,
)
from trainables.ops.scan import choose_compiled_chunk, ssd


def inputs(length, *, has_state, batch=2, heads=3, channels=8, d_state=16):
    """x, b and c are parts of one projection, as they are in a mixer; so their rows lie apart."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    widths = (heads * channels, d_state, d_state)
    x, b, c = normal(batch, length, sum(widths)).split(widths, dim=-1)
    step, rate, skip = normal(batch, length, heads).abs() * 0.2, -normal(heads).abs() * 4 - 0.05, normal(heads)
    arguments = [x.unflatten(-1, (heads, channels)), step, rate, b, c, skip]
    return [*arguments, normal(batch, heads, channels, d_state)] if has_state else arguments


def run(impl, **options):
    def scan(x, step, rate, b, c, skip, state=None):
        y, last = ssd(x, step, rate, b, c, skip_H=skip, state_BHPN=state, impl=impl, **options)
        return y if last is None else (y, last)

    return scan


@pytest.mark.requirement("CONDOR-4")
@pytest.mark.parametrize("discretisation", ["euler_B", "zoh_exact"])
@pytest.mark.parametrize(("has_state", "want_state"), [(False, False), (False, True), (True, True), (True, False)])
@pytest.mark.parametrize("length", [1, 63, 120, 257])
def test_compiled_equals_sequential_in_float64(length, has_state, want_state, discretisation):
    given = inputs(length, has_state=has_state)
    options = {"want_state": want_state, "discretisation": discretisation}
    expected = outputs_and_gradients(run("sequential", **options), given, torch.float64)
    with poisoned_memory():
        assert_near(outputs_and_gradients(run("compiled", **options), given), expected)


@pytest.mark.requirement("CONDOR-4")
def test_a_long_window_is_as_near():
    given = inputs(1000, has_state=False)
    expected = outputs_and_gradients(run("sequential"), given, torch.float64)
    assert_near(outputs_and_gradients(run("compiled"), given), expected)


def test_rows_of_another_layout_give_the_same():
    given = inputs(63, has_state=False)
    moved = [each.movedim(1, -1).contiguous().movedim(-1, 1) if each.dim() > 2 else each for each in given]
    assert not moved[0].is_contiguous()
    with torch.no_grad():
        torch.testing.assert_close(run("compiled")(*moved), run("compiled")(*given), rtol=0, atol=0)


def test_threads_change_no_bit():
    given = inputs(257, has_state=True)
    with threads(1):
        one = outputs_and_gradients(run("compiled", want_state=True), given)
    with threads(3):
        three = outputs_and_gradients(run("compiled", want_state=True), given)
    assert_near(three, one, 1e-6)  # the products between the passes are PyTorch's and may differ in the last bit


def test_second_derivatives_are_those_of_the_chunked_form():
    given = inputs(70, has_state=True)
    expected = curvature(run("chunked"), given, torch.float64)
    assert_near(curvature(run("compiled"), given, torch.float32), expected, 1e-5)


@pytest.mark.parametrize("which", range(6))
def test_nan_in_an_input_is_seen_in_the_outputs(which):
    given = [each.clone() for each in inputs(70, has_state=False)]
    given[which].view(-1)[0] = torch.nan
    assert run("compiled")(*given).isnan().any()


def test_very_fast_decay_is_finite():
    given = inputs(120, has_state=False)
    given[2] = torch.full_like(given[2], -1e4)
    expected = outputs_and_gradients(run("sequential"), given, torch.float64)
    found = outputs_and_gradients(run("compiled"), given)
    assert_near(found[:2], expected[:2])
    assert all(torch.isfinite(each).all() for each in found)


@pytest.mark.parametrize("length", [1, 120, 128, 129, 512, 1000, 1024])
def test_chunks_of_the_compiled_form_are_equal_and_short(length):
    chunk = choose_compiled_chunk(length)
    n_chunks = -(-length // chunk)
    assert chunk <= 128
    assert n_chunks * chunk - length < n_chunks


def test_compiled_is_the_choice_for_float32_on_a_cpu_and_refuses_float64():
    given = inputs(5, has_state=False)
    with torch.no_grad():
        torch.testing.assert_close(run("auto")(*given), run("compiled")(*given), rtol=0, atol=0)
        with pytest.raises(ValueError, match="found float64 on cpu"):
            run("compiled")(*(each.double() for each in given))


def test_a_recomputed_scan_has_the_same_gradients():
    given = inputs(150, has_state=False)
    recomputed = outputs_and_gradients(lambda *each: checkpoint(run("compiled"), *each, use_reentrant=False), given)
    assert_near(recomputed, outputs_and_gradients(run("compiled"), given), 1e-6)
