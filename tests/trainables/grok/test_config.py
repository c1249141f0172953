"""The genes of the grok space, their rules, and sizes without a model."""

import json

import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.trainables.saved_bytes import saved_bytes
from trainables.features.schemas import NQ
from trainables.grok import sizes
from trainables.grok.config import CONTEXT, FEATURE_GROUPS, HORIZON_MINUTES, LEVELS, GrokConfig
from trainables.grok.model import GrokModel

COLUMNS = (*NQ, *CONTEXT)
TINY = {"d_model": 16, "n_heads": 2, "n_blocks": 2, "window_bars": 33, "batch_size": 4}


@pytest.mark.requirement("GROK-1")
def test_the_document_s_model_has_its_size():
    config = GrokConfig()
    assert sizes.block_parameters(config) == pytest.approx(5.25e6, rel=0.01)
    counts = sizes.parameters(config)
    rest = counts["heads"] + counts["readout"] + counts["positions"] + counts["groups"]
    assert config.n_parameters() == pytest.approx(5.25e6 * config.n_blocks + rest, rel=0.01)


def test_constants_of_the_document():
    assert HORIZON_MINUTES == (5, 15, 30, 60, 120, 240)
    assert LEVELS == (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


@pytest.mark.requirement("GROK-4")
@pytest.mark.parametrize(
    ("gap_group", "expected"),
    [("price", [4, 3, 8, 5, 3, 1]), ("temporal", [3, 3, 8, 5, 3, 1, 1]), ("all", [4, 4, 9, 6, 4, 2])],
)
def test_the_gap_has_its_place(gap_group, expected):
    groups = GrokConfig(gap_group=gap_group).seen_groups()
    assert [len(features) for features in groups.values()] == expected
    assert GrokConfig(gap_group=gap_group).seen_features() == NQ
    assert sum(len(features) for features in FEATURE_GROUPS.values()) == 23


SWITCHES = [
    {},
    {"gap_group": "temporal", "readout": "mean"},
    {"gap_group": "all", "readout": "attn"},
    {"feature_groups": "price+trend", "pe_input": True},
    {"conv_stem": "k3", "patch": 8},
    {"conv_stem": "k5", "scale_conditioning": "static_token"},
    {"use_pe": False, "use_in": False},
    {"variable_attention": False, "lgu": False, "ffn_mult": 2},
    {"heads": "independent", "quantile_param": "cumulative_softplus"},
    {"patch": 16, "scale_conditioning": "static_token", "causal": True},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_count_of_parameters_equals_that_of_the_model(switches):
    config = GrokConfig(**{**TINY, **switches})
    assert config.n_parameters() == sum(p.numel() for p in GrokModel(config, COLUMNS).parameters())


@pytest.mark.parametrize("switches", [{}, {"patch": 8}, {"variable_attention": False}, {"lgu": False, "ffn_mult": 2}])
def test_operations_are_those_that_torch_counts(switches):
    config = GrokConfig(**{**TINY, "d_model": 64, "window_bars": 96, **switches})
    windows = torch.zeros(2, 96, len(COLUMNS))
    windows[..., -1] = 1
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        GrokModel(config, COLUMNS).eval()(windows)
    assert config.forward_flops() == pytest.approx(counter.get_total_flops() / 2, rel=0.15)


@pytest.mark.parametrize("switches", [{}, {"ffn_mult": 2}, {"n_blocks": 4}, {"window_bars": 120}], ids=str)
def test_memory_is_near_what_autograd_keeps(switches):
    config = GrokConfig(**{**TINY, "d_model": 64, "n_heads": 4, "grad_checkpoint": False, **switches})
    windows = torch.zeros(4, config.window_bars, len(COLUMNS))
    windows[..., -1] = 1
    measured = saved_bytes(GrokModel(config, COLUMNS), windows, "quantiles")
    assert config.memory_bytes() - 16 * config.n_parameters() == pytest.approx(measured, rel=0.25)


@pytest.mark.requirement("GROK-9")
def test_the_memory_claim_holds_with_checkpoints_only():
    """C-30 counts 72 GiB of activations at eight blocks and 108 at twelve, with checkpoints 11.5 and 12.8."""
    case = {"window_bars": 7000, "batch_size": 8, "precision": "bf16"}
    for n_blocks, stored, recomputed in ((8, 72, 11.5), (12, 108, 12.8)):
        for grad_checkpoint, expected in ((False, stored), (True, recomputed)):
            config = GrokConfig(**case, n_blocks=n_blocks, grad_checkpoint=grad_checkpoint)
            activations = config.memory_bytes() - 16 * config.n_parameters()
            assert activations / 2**30 == pytest.approx(expected, rel=0.05)


def test_strides_and_windows():
    assert GrokConfig().training_stride == 240
    assert GrokConfig(train_stride="T", window_bars=1380).training_stride == 1380
    assert GrokConfig(eval_stride=7).scoring_stride == 7
    assert GrokConfig.scored_lookback({"window_bars": (390, 6900)}) == 6900
    assert GrokConfig.scored_lookback({}) == 6900


def test_curvature_is_left_out_where_written_out_attention_would_not_fit():
    assert not GrokConfig().has_curvature
    assert GrokConfig(**TINY).has_curvature


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_heads": 7}, "n_heads: expected a divisor of d_model = 512, found 7"),
        ({"window_bars": 7001}, "window_bars: expected at most max_len = 7000, found 7001"),
        ({"train_stride": 0}, "train_stride: expected 1 or more bars, or T, found 0"),
        ({"train_stride": "week"}, "train_stride"),
        ({"window_bars": 12, "patch": 16}, "patch: expected at most window_bars = 12, found 16"),
        ({"sma_windows": "5,10,20,50,100"}, "sma_windows: expected six increasing numbers"),
        ({"sma_windows": "5,10,20,50,200,100"}, "sma_windows: expected six increasing numbers"),
        ({"sma_windows": "1,10,20,50,100,200"}, "sma_windows: expected six increasing numbers"),
        ({"sma_windows": "5,10,20,50,100,x"}, "sma_windows: expected six increasing numbers"),
        ({"feature_groups": "price+tape"}, "feature_groups: expected all, or different names"),
        ({"feature_groups": "trend+trend"}, "feature_groups: expected all, or different names"),
        ({"feature_groups": "trend"}, "gap_group: expected temporal or all"),
        ({"pe_input": True, "use_pe": False}, "pe_input: expected use_pe to be on"),
        ({"heads": "independent", "teacher_forcing_ratio": 0.5}, "teacher_forcing_ratio: expected 0 with heads indep"),
        ({"normalizer": "instance"}, "normalizer"),
        ({"patch": 4}, "patch"),
    ],
)
def test_rules_are_checked_with_clear_messages(values, words):
    with pytest.raises(ValidationError, match=words):
        GrokConfig(**values)


def test_json_round_trip():
    config = GrokConfig(**TINY, patch=8, train_stride="T")
    assert GrokConfig.model_validate_json(json.dumps(config.model_dump(mode="json"))) == config


@pytest.mark.requirement("SEARCH-16")
def test_a_scale_keeps_whole_heads_and_at_least_a_block():
    small = GrokConfig(d_model=96, n_heads=8, n_blocks=8).at_fidelity(width_frac=0.25, depth_frac=0.01)
    assert (small.d_model, small.n_blocks) == (24, 1)
    assert GrokConfig().at_fidelity(width_frac=1.0, depth_frac=1.0) == GrokConfig()
