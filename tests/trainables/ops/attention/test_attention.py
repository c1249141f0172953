"""Attention: PyTorch's kernel against the written-out formula, cached keys, choice."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainables.ops.attention import attention, choose_impl


def inputs(n_queries, n_keys, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (n_queries, n_keys, n_keys)
    return [torch.randn(2, 3, n, 4, generator=generator).requires_grad_() for n in sizes]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (63, 63), (1, 120), (5, 12)])
def test_kernel_equals_formula_in_outputs_and_gradients(n_queries, n_keys, is_causal):
    found = []
    for impl in ("reference", "sdpa"):
        q, k, v = inputs(n_queries, n_keys)
        y = attention(q, k, v, is_causal=is_causal, impl=impl)
        y.square().sum().backward()
        found.append((y.detach(), q.grad, k.grad, v.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_a_causal_query_sees_no_later_key():
    q, k, v = inputs(6, 6)
    before = attention(q, k, v, is_causal=True)
    with torch.no_grad():
        k[:, :, 4:] += 1
        v[:, :, 4:] += 1
    torch.testing.assert_close(attention(q, k, v, is_causal=True)[:, :, :4], before[:, :, :4])


def test_second_derivatives_under_the_math_kernel():
    q, k, v = (each.detach().double().requires_grad_() for each in inputs(3, 3))
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda *a: attention(*a, is_causal=True, impl="sdpa"), (q, k, v))


@pytest.mark.parametrize(
    ("impl", "device", "dtype", "n_before", "has_flash", "expected"),
    [
        ("auto", "cpu", "float32", 0, True, "sdpa"),
        ("auto", "cuda", "bfloat16", 0, True, "flash"),
        ("auto", "cuda", "float32", 0, True, "sdpa"),
        ("auto", "cuda", "bfloat16", 7, True, "sdpa"),
        ("auto", "cuda", "bfloat16", 0, False, "sdpa"),
        ("reference", "cuda", "bfloat16", 0, True, "reference"),
    ],
)
def test_choice_of_implementation(impl, device, dtype, n_before, has_flash, expected):
    assert choose_impl(impl, device, dtype, n_keys_before=n_before, has_flash=has_flash) == expected


def test_flash_where_it_cannot_run_is_refused():
    with pytest.raises(ValueError, match="device cpu"):
        attention(*inputs(2, 2), is_causal=True, impl="flash")


def test_more_queries_than_keys_is_refused():
    with pytest.raises(ValueError, match="as many keys"):
        attention(*inputs(3, 2), is_causal=True)
