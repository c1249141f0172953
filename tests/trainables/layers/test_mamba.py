"""Mixers and blocks: against transformers' own layers, causality, equality of steps and full pass."""

import warnings

import pytest
import torch
import torch.nn.functional as functional

from trainables.layers.blocks import DocumentedBlock, ResidualBlock
from trainables.layers.convolution import CausalConvolution
from trainables.layers.mamba1 import ChannelScan, Mamba1Mixer
from trainables.layers.mamba2 import STEP_RANGE, Mamba2Mixer, ProjectedHeadScan, first_step_bias
from trainables.layers.norms import GatedRMSNorm, RMSNorm

MIXERS = {
    "mamba2": lambda **o: Mamba2Mixer(16, expand=2, head_dim=8, d_state=6, d_conv=4, **o),
    "mamba1": lambda **o: Mamba1Mixer(16, expand=2, d_state=6, d_conv=3, **o),
    "heads": lambda **o: ProjectedHeadScan(16, head_dim=8, d_state=6, **o),
    "channels": lambda **o: ChannelScan(16, d_state=6, rank=1, **o),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def vendor_mixer(kind):
    """A mixer of transformers with random weights, on its plain PyTorch path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "mamba2":
            from transformers import Mamba2Config
            from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer as Vendor

            config = Mamba2Config(
                hidden_size=16,
                state_size=6,
                head_dim=8,
                num_heads=4,
                n_groups=1,
                expand=2,
                conv_kernel=4,
                chunk_size=16,
            )
        else:
            from transformers import MambaConfig
            from transformers.models.mamba.modeling_mamba import MambaMixer as Vendor

            config = MambaConfig(hidden_size=16, state_size=6, intermediate_size=32, conv_kernel=3, time_step_rank=1)
        mixer = Vendor(config, layer_idx=0)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return mixer


def test_mamba2_equals_that_of_transformers():
    vendor, ours = vendor_mixer("mamba2"), MIXERS["mamba2"]()
    names = {
        "project_in.weight": vendor.in_proj.weight,
        "convolution.weight_CK": vendor.conv1d.weight.squeeze(1),
        "convolution.bias_C": vendor.conv1d.bias,
        "scan.step_bias_H": vendor.dt_bias,
        "scan.log_rate_H": vendor.A_log,
        "scan.skip_H": vendor.D,
        "norm.weight": vendor.norm.weight,
        "project_out.weight": vendor.out_proj.weight,
    }
    ours.load_state_dict({name: weight.detach() for name, weight in names.items()})
    x = torch.randn(2, 37, 16)
    torch.testing.assert_close(ours(x), vendor(x), atol=1e-4, rtol=1e-4)


def test_mamba1_equals_that_of_transformers():
    vendor, ours = vendor_mixer("mamba1"), MIXERS["mamba1"]()
    names = {
        "project_in.weight": vendor.in_proj.weight,
        "convolution.weight_CK": vendor.conv1d.weight.squeeze(1),
        "convolution.bias_C": vendor.conv1d.bias,
        "scan.project.weight": vendor.x_proj.weight,
        "scan.step.weight": vendor.dt_proj.weight,
        "scan.step.bias": vendor.dt_proj.bias,
        "scan.log_rate_IN": vendor.A_log,
        "scan.skip_I": vendor.D,
        "project_out.weight": vendor.out_proj.weight,
    }
    ours.load_state_dict({name: weight.detach() for name, weight in names.items()})
    x = torch.randn(2, 37, 16)
    torch.testing.assert_close(ours(x), vendor(x), atol=1e-4, rtol=1e-4)


@pytest.mark.requirement("CONDOR-6")
@pytest.mark.parametrize("kind", MIXERS)
def test_row_by_row_equals_the_full_pass(kind):
    mixer, x = MIXERS[kind](), torch.randn(2, 50, 16)
    state, rows = mixer.first_state(2), []
    for t in range(50):
        y, state = mixer.resume(x[:, t : t + 1], state)
        rows.append(y)
    torch.testing.assert_close(torch.cat(rows, dim=1), mixer(x), atol=1e-4, rtol=1e-4)


@pytest.mark.requirement("CONDOR-6")
@pytest.mark.parametrize("kind", MIXERS)
def test_state_keeps_its_size(kind):
    mixer = MIXERS[kind]()
    first = mixer.first_state(2)
    _, after = mixer.resume(torch.randn(2, 99, 16), first)
    assert [s.shape for s in after] == [s.shape for s in first]


@pytest.mark.requirement("CONDOR-5")
@pytest.mark.parametrize("kind", MIXERS)
def test_no_row_sees_a_later_one(kind):
    mixer, x = MIXERS[kind](), torch.randn(2, 45, 16)
    y = mixer(x)
    x[:, 30:] = torch.randn(2, 15, 16)
    torch.testing.assert_close(mixer(x)[:, :30], y[:, :30])


@pytest.mark.requirement("CONDOR-5")
@pytest.mark.parametrize("length", [1, 2, 4])
def test_convolution_equals_torch_and_reaches_back_its_length(length):
    layer, x = CausalConvolution(6, length), torch.randn(2, 9, 6)
    padded = functional.pad(x.transpose(1, 2), (length - 1, 0))
    expected = functional.conv1d(padded, layer.weight_CK[:, None], layer.bias_C, groups=6).transpose(1, 2)
    torch.testing.assert_close(layer(x), functional.silu(expected))
    x.requires_grad_()
    layer(x)[:, 6].sum().backward()
    assert x.grad.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(7 - length, 7))


@pytest.mark.parametrize("impl", ["sequential", "chunked"])
def test_implementations_agree_inside_a_mixer(impl):
    torch.manual_seed(1)
    one = MIXERS["mamba2"]()
    torch.manual_seed(1)
    other, x = MIXERS["mamba2"](impl=impl), torch.randn(2, 63, 16)
    torch.testing.assert_close(one(x), other(x), atol=1e-5, rtol=1e-4)


@pytest.mark.requirement("CONDOR-3")
@pytest.mark.parametrize("kind", MIXERS)
def test_exact_hold_differs_from_euler_but_little_for_small_steps(kind):
    torch.manual_seed(1)
    euler = MIXERS[kind]()
    torch.manual_seed(1)
    exact, x = MIXERS[kind](discretisation="zoh_exact"), torch.randn(2, 20, 16)
    difference = (euler(x) - exact(x)).abs().max() / euler(x).abs().max()
    assert 1e-6 < difference < 0.3


def test_first_steps_are_in_their_range():
    steps = functional.softplus(first_step_bias(1000))
    assert steps.min() >= STEP_RANGE[0] * 0.999
    assert steps.max() <= STEP_RANGE[1] * 1.001
    assert steps.log().mean() == pytest.approx(sum(torch.tensor(STEP_RANGE).log().tolist()) / 2, abs=0.15)


@pytest.mark.requirement("CONDOR-2")
@pytest.mark.parametrize("kind", ["mamba2", "mamba1"])
def test_residual_block_without_its_last_product_is_an_identity(kind):
    block, x = ResidualBlock(16, MIXERS[kind](), dropout=0.0), torch.randn(2, 11, 16)
    assert not torch.equal(block(x), x)
    torch.nn.init.zeros_(block.mixer.project_out.weight)
    assert torch.equal(block(x), x)


@pytest.mark.requirement("CONDOR-2")
def test_documented_layers_hold_the_printed_equation():
    """E <- SiLU(W E) * SSM(A, B, C, step, E), two layers, by an explicit recurrence."""
    layers = [DocumentedBlock(8, ProjectedHeadScan(8, head_dim=4, d_state=3), dropout=0.0) for _ in range(2)]
    x = torch.randn(1, 10, 8)
    found = layers[1](layers[0](x))
    e = x[0]
    for layer in layers:
        scan, projected = layer.scan.scan, e @ layer.scan.project.weight.T
        b, c = projected[:, :3], projected[:, 3:6]
        step = functional.softplus(projected[:, 6:] + scan.step_bias_H).repeat_interleave(4, dim=1)
        rate = -scan.log_rate_H.exp().repeat_interleave(4)
        state, rows = torch.zeros(8, 3), []
        for t in range(10):
            decay = torch.exp(step[t] * rate)
            state = decay[:, None] * state + (step[t] * e[t])[:, None] * b[t]
            rows.append(state @ c[t] + scan.skip_H.repeat_interleave(4) * e[t])
        gate = e @ layer.gate.weight.T
        e = gate * torch.sigmoid(gate) * torch.stack(rows)
    torch.testing.assert_close(found[0], e, atol=1e-5, rtol=1e-5)


def test_norms_are_what_they_are_called():
    x, gate = torch.randn(3, 5), torch.randn(3, 5)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(RMSNorm(5)(x), expected)
    torch.testing.assert_close(GatedRMSNorm(5)(x, gate), RMSNorm(5)(x * gate * torch.sigmoid(gate)))


@pytest.mark.parametrize("build", [lambda: Mamba2Mixer(10, expand=1, head_dim=4, d_state=2, d_conv=2)])
def test_heads_that_do_not_divide_are_refused(build):
    with pytest.raises(ValueError, match="divisor of expand"):
        build()


def test_bfloat16_runs_with_steps_in_float32():
    mixer, x = MIXERS["mamba2"]().bfloat16(), torch.randn(2, 63, 16)
    torch.manual_seed(0)
    wide = MIXERS["mamba2"]()
    wide.load_state_dict(mixer.float().state_dict())
    found = mixer.bfloat16()(x.bfloat16()).float()
    assert (found - wide(x)).abs().max() < 2e-2 * wide(x).abs().max()
