"""Volatility-gated attention: gate, deviation, causality, cached keys."""

import numpy as np
import pytest
import torch
from torch import nn

from trainables.layers.vol_gated_attention import VolGatedAttn, expanding_deviation


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return VolGatedAttn(16, heads=4, gate_hidden=2, volatility_width=16)


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, deviation):
        return torch.full_like(deviation[..., :1], self.value)


@pytest.mark.requirement("CONDOR-19")
def test_shut_gate_is_an_identity_and_open_gate_is_attention(layer):
    x = torch.randn(2, 9, 16)
    layer.gate = Constant(0.0)
    torch.testing.assert_close(layer(x), x)
    layer.gate = Constant(1.0)
    vendor = nn.MultiheadAttention(16, 4, batch_first=True)
    vendor.load_state_dict(
        {
            "in_proj_weight": layer.project_in.weight,
            "in_proj_bias": layer.project_in.bias,
            "out_proj.weight": layer.project_out.weight,
            "out_proj.bias": layer.project_out.bias,
        }
    )
    mask = torch.ones(9, 9, dtype=torch.bool).triu(1)
    torch.testing.assert_close(layer(x), vendor(x, x, x, attn_mask=mask)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.requirement("CONDOR-19")
def test_no_row_sees_a_later_one(layer):
    x = torch.randn(2, 20, 16)
    y = layer(x)
    x[:, 12:] *= 3
    torch.testing.assert_close(layer(x)[:, :12], y[:, :12])


@pytest.mark.requirement("CONDOR-19")
def test_documented_form_sees_later_rows():
    torch.manual_seed(0)
    layer = VolGatedAttn(16, heads=4, gate_hidden=2, volatility_width=16, is_causal=False)
    x = torch.randn(2, 20, 16)
    y = layer(x)
    x[:, 12:] *= 3
    assert not torch.allclose(layer(x)[:, :12], y[:, :12])
    with pytest.raises(ValueError, match="causal"):
        layer.resume(x[:, :1], layer.first_state(2))


def test_deviation_is_numpys_over_rows_so_far():
    x = torch.randn(1, 30, 2) + 100.0
    expected = np.stack([x[0, : t + 1].double().numpy().std(axis=0) for t in range(30)])
    np.testing.assert_allclose(expanding_deviation(x)[0].numpy(), expected, atol=2e-4)


def test_deviation_of_a_constant_has_a_finite_gradient():
    x = torch.ones(1, 5, 2, requires_grad=True)
    expanding_deviation(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.requirement("CONDOR-6")
@pytest.mark.parametrize("has_feature", [False, True])
def test_row_by_row_equals_the_full_pass_while_the_window_lasts(has_feature):
    torch.manual_seed(0)
    layer = VolGatedAttn(16, heads=4, gate_hidden=2, volatility_width=1 if has_feature else 16, window=25)
    x, volatility = torch.randn(2, 25, 16), torch.rand(2, 25, 1) if has_feature else None
    state, rows = layer.first_state(2), []
    for t in range(25):
        row = None if volatility is None else volatility[:, t : t + 1]
        y, state = layer.resume(x[:, t : t + 1], state, row)
        rows.append(y)
    torch.testing.assert_close(torch.cat(rows, dim=1), layer(x, volatility), atol=1e-4, rtol=1e-4)
    _, state = layer.resume(torch.randn(2, 40, 16), state, None if volatility is None else torch.rand(2, 40, 1))
    assert state[0].shape[2] == 25


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divisor of d_model = 16"):
        VolGatedAttn(16, heads=3, gate_hidden=2, volatility_width=16)
