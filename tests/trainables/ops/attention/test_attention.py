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


def mask(n_rows, n_keys, kind):
    """Right padding, or holes anywhere; the last row is all valid, and no row is all masked."""
    valid = torch.ones(n_rows, n_keys, dtype=bool)
    if kind == "padding":
        for row in range(n_rows - 1):
            valid[row, max(1, n_keys // (row + 2)) :] = False
    else:
        valid[:-1] = torch.rand(n_rows - 1, n_keys, generator=torch.Generator().manual_seed(2)) < 0.6
        valid[:-1, n_keys // 2] = True
    return valid


def packed(q, k, v, valid, is_causal):
    """The judge: each row on its valid keys alone, in a loop."""
    rows = []
    for row in range(len(q)):
        at = valid[row].nonzero().squeeze(1)
        part = (each[row : row + 1, :, at] for each in (q, k, v))
        y = attention(*part, is_causal=is_causal, impl="reference")[0]
        rows.append(torch.zeros_like(q[row]).index_copy(1, at, y))
    return torch.stack(rows)


@pytest.mark.requirement("GROK-8")
@pytest.mark.requirement("GROK-6")
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("n_keys", [1, 2, 63, 129])
@pytest.mark.parametrize("kind", ["padding", "holes"])
def test_masked_keys_are_as_if_they_were_not_there(kind, n_keys, is_causal, impl):
    valid, found = mask(3, n_keys, kind), []
    for form in (packed, None):
        q, k, v = (
            torch.randn(3, 2, n_keys, 4, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in (0, 1, 2)
        )
        if form is None:
            y = attention(q, k, v, is_causal=is_causal, valid_BS=valid, impl=impl)
        else:
            y = packed(q, k, v, valid, is_causal)
        (y * torch.linspace(0.5, 1.5, n_keys)[:, None]).square().sum().backward()
        found.append((y.detach(), q.grad, k.grad, v.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.requirement("GROK-8")
@pytest.mark.parametrize("is_causal", [False, True])
def test_backends_agree_in_sixteen_bits(is_causal):
    valid = mask(3, 65, "holes")
    q, k, v = (torch.randn(3, 2, 65, 16, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 2))
    exact = attention(q, k, v, is_causal=is_causal, valid_BS=valid, impl="reference")
    for impl in ("reference", "sdpa"):
        half = (each.bfloat16() for each in (q, k, v))
        near = attention(*half, is_causal=is_causal, valid_BS=valid, impl=impl).float()
        torch.testing.assert_close(near, exact, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("impl", ["reference", "sdpa"])
def test_a_row_without_a_valid_key_is_zero_and_has_no_gradient(impl, is_causal):
    q, k, v = inputs(5, 5)
    valid = torch.ones(2, 5, dtype=bool)
    valid[0] = False
    y = attention(q, k, v, is_causal=is_causal, valid_BS=valid, impl=impl)
    y.sum().backward()
    assert (y[0] == 0).all()
    assert all((each.grad[0] == 0).all() and each.grad.isfinite().all() for each in (q, k, v))


def test_a_mask_that_does_not_fit_is_refused():
    q, k, v = inputs(5, 5)
    with pytest.raises(ValueError, match=r"valid: expected \(B, T\) = \(2, 5\)"):
        attention(q, k, v, is_causal=False, valid_BS=torch.ones(2, 4, dtype=bool))
    q, k, v = inputs(5, 12)
    with pytest.raises(ValueError, match="valid: expected"):
        attention(q, k, v, is_causal=True, valid_BS=torch.ones(2, 12, dtype=bool))
