"""Layers, shapes and what the networks look at."""

import math

import pytest
import torch
from torch import nn

from trainables.scalper.config import ScalperConfig
from trainables.scalper.model import Recurrent, ScalperModel, sinusoids

N_INPUTS = 7


def build(**fields):
    config = ScalperConfig(**fields)
    torch.manual_seed(0)
    return config, ScalperModel(config, N_INPUTS)


@pytest.mark.requirement("SCALP-1")
def test_feed_forward_is_three_times_dense_norm_rectifier_dropout():
    _, model = build(approach="classification")
    layers = list(model.trunks["shared"])
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout] * 3
    assert [type(layer) for layer in layers] == kinds
    assert [layer.out_features for layer in layers[::4]] == [256, 128, 64]
    assert {layer.p for layer in layers[3::4]} == {0.3}
    head = model.heads["direction"]
    assert (head.in_features, head.out_features) == (64, 3)
    windows = torch.randn(5, 1, N_INPUTS)
    assert not torch.equal(model(windows)["direction"], model(windows)["direction"])
    model.eval()
    assert torch.equal(model(windows)["direction"], model(windows)["direction"])


@pytest.mark.requirement("SCALP-2")
@pytest.mark.parametrize(("arch", "cell"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_recurrent_layers_pass_only_the_last_step_on(arch, cell):
    _, model = build(arch=arch, approach="classification", seq_len=9)
    trunk = model.trunks["shared"]
    assert isinstance(trunk, Recurrent)
    assert type(trunk.first) is type(trunk.second) is cell
    assert (trunk.first.hidden_size, trunk.second.hidden_size, trunk.dense.out_features) == (128, 64, 32)
    model.eval()
    windows = torch.randn(4, 9, N_INPUTS)
    assert model(windows)["direction"].shape == (4, 3)
    first, _ = trunk.first(windows)
    second, _ = trunk.second(first)
    expected = model.heads["direction"](torch.relu(trunk.dense(second[:, -1])))
    torch.testing.assert_close(model(windows)["direction"], expected)


@pytest.mark.requirement("SCALP-3")
def test_transformer_has_positions_heads_and_layers():
    _, model = build(arch="transformer", approach="classification", seq_len=11, n_layers=3)
    trunk = model.trunks["shared"].eval()
    assert len(trunk.layers) == 3
    assert {layer.self_attn.num_heads for layer in trunk.layers} == {4}
    assert {layer.self_attn.embed_dim for layer in trunk.layers} == {64}
    windows = torch.randn(2, 11, N_INPUTS)
    assert model.eval()(windows)["direction"].shape == (2, 3)
    swapped = windows.clone()
    swapped[:, [0, 5]] = windows[:, [5, 0]]
    assert not torch.allclose(trunk(windows), trunk(swapped), atol=1e-4)
    with pytest.raises(ValueError, match="at most seq_len = 11 steps, found 12"):
        model(torch.zeros(1, 12, N_INPUTS))


def test_positions_are_those_of_the_paper():
    table = sinusoids(50, 8)
    assert table.shape == (50, 8)
    for position, pair in ((0, 0), (3, 1), (49, 3)):
        angle = position / 10_000 ** (2 * pair / 8)
        assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.requirement("SCALP-6")
@pytest.mark.parametrize("trunk", ["shared", "separate"])
def test_hybrid_has_three_heads_on_one_trunk_or_one_each(trunk):
    _, model = build(trunk=trunk)
    outputs = model.eval()(torch.randn(6, 1, N_INPUTS))
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        "direction": (6, 3),
        "volatility": (6,),
        "exit": (6, 2),
    }
    assert (outputs["volatility"] > 0).all()
    assert len(model.trunks) == (3 if trunk == "separate" else 1)
    outputs["volatility"].sum().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and name.startswith("trunks")}
    assert all(name.startswith("trunks.volatility" if trunk == "separate" else "trunks.shared") for name in touched)
