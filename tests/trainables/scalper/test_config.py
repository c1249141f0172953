"""The genes of the scalper space, their rules, and sizes without a model."""

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from trainables.features.schemas import SCHEMAS
from trainables.scalper.config import ScalperConfig
from trainables.scalper.model import ScalperModel

DEFAULTS = {
    "arch": "ffn",
    "approach": "hybrid",
    "hidden": "256-128-64",
    "lstm_units": "128-64",
    "n_layers": 2,
    "n_heads": 4,
    "d_model": 64,
    "seq_len": 120,
    "batch_size": 512,
    "dropout": 0.3,
    "horizon_s": 60,
    "ticks_x": 2,
    "session": "rth",
    "imbalance": "weights",
    "focal_gamma": 2,
    "patience": 10,
    "price_norm": "returns",
    "htf": True,
    "exit_tp_ticks": 4,
    "exit_sl_ticks": 4,
    "lr": 3e-4,
    "epochs": 100,
    "weight_decay": 1e-4,
    "grad_clip": 1.0,
    "normalizer": "zscore",
}


@pytest.mark.requirement("TRAIN-3")
def test_every_gene_of_the_specification_is_a_field_with_its_default():
    config = ScalperConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("arch", ["ffn", "lstm", "gru", "transformer"])
def test_sizes_are_known_without_building_the_model(arch):
    for approach, trunk in product(("classification", "regression", "rl", "hybrid"), ("shared", "separate")):
        config = ScalperConfig(arch=arch, approach=approach, trunk=trunk, seq_len=6)
        model = ScalperModel(config, len(config.seen_features()))
        assert config.n_parameters() == sum(p.numel() for p in model.parameters())
        assert config.memory_bytes() > 16 * config.n_parameters()


@pytest.mark.parametrize("arch", ["ffn", "transformer"])
def test_operations_are_those_that_torch_counts(arch):
    config = ScalperConfig(arch=arch, seq_len=30)
    with FlopCounterMode(display=False) as counter:
        ScalperModel(config, len(config.seen_features()))(torch.zeros(2, config.lookback, len(config.seen_features())))
    assert config.forward_flops() == pytest.approx(counter.get_total_flops() / 2, rel=0.15)


def test_features_are_those_of_the_schema_and_follow_the_switches():
    schema = {name.removeprefix("mes.") for name in SCHEMAS["scalper"]}
    assert set(ScalperConfig().seen_features()) | set(ScalperConfig(weekday="cyclical").seen_features()) == schema
    lean = ScalperConfig(htf=False, feature_groups="microstructure+time", weekday="cyclical").seen_features()
    assert len(lean) == 5 + 3 + 2
    assert not set(lean) & {"trend_1min", "close", "monday", "return_1s"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"arch": "transformer", "n_heads": 3}, "n_heads: expected a divisor of d_model = 64, found 3"),
        ({"feature_groups": "price+tape"}, "feature_groups: expected all, or different names"),
        ({"precision": "bf16", "zero_stage": 1}, "set zero_stage: 0, or another arch"),
        ({"normalizer": "instance"}, "normalizer"),
        ({"arch": "mamba"}, "arch"),
        ({"d_model": 63, "arch": "transformer"}, "d_model"),
    ],
)
def test_what_cannot_run_is_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        ScalperConfig(**values)


def test_scored_lookback_is_the_longest_sequence_that_the_space_allows():
    assert ScalperConfig.scored_lookback({"arch": ("ffn", "lstm"), "seq_len": (30, 300)}) == 300
    assert ScalperConfig.scored_lookback({"arch": ("gru",)}) == 120
    assert ScalperConfig.scored_lookback({"arch": ("ffn",), "seq_len": (30, 300)}) == 1
    assert ScalperConfig.scored_lookback({}) == 1
    assert ScalperConfig(arch="ffn", seq_len=60).lookback == 1
    assert ScalperConfig(arch="gru", seq_len=60).lookback == 60


@pytest.mark.requirement("SEARCH-16")
def test_a_scale_shrinks_a_transformer_and_leaves_others_alone():
    small = ScalperConfig(arch="transformer", d_model=64, n_layers=4).at_fidelity(width_frac=0.5, depth_frac=0.25)
    assert (small.d_model, small.n_layers) == (32, 1)
    assert ScalperConfig().at_fidelity(width_frac=0.5, depth_frac=0.5) == ScalperConfig()
