"""The genes of the condor space, their rules, and sizes without a model."""

import json
from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from tests.trainables.saved_bytes import saved_bytes
from trainables.condor import sizes
from trainables.condor.config import (
    FEATURE_GROUPS,
    HORIZON_SESSIONS,
    POLICY_RANGES,
    PRESETS,
    REGIMES,
    CondorConfig,
)
from trainables.condor.model import CondorModel
from trainables.features.schemas import SCHEMAS
from trainables.fidelity import SCALES

TINY = {
    "d_model": 16,
    "n_layers": 4,
    "headdim": 8,
    "d_state": 4,
    "lookback": 13,
    "vga_heads": 2,
    "gru_hidden": 8,
    "diffusion_hidden": 8,
    "trajectory_sessions": 5,
}
EVERY_FEATURE = CondorConfig().seen_features()

GENES = """
    lr weight_decay lr_schedule warmup_steps grad_clip precision accum_steps zero_stage grad_checkpoint dropout
    normalizer norm_scope clip_value feature_groups epochs batch_size
    d_model n_layers d_state headdim expand d_conv ssm_variant block lookback feature_schema sequence_axis
    ewma_alpha energy_alpha rsi_beta adx_gamma curvature tda tda_dim tda_delay tda_window momentum_n feature_scaling
    policy_activation confidence_source moe n_experts moe_k moe_aux_alpha gate_scale vol_gated_attn vga_layers vga_heads
    loss lambda_stk lambda_reg lambda_pnl lambda_risk lambda1 lambda2 lambda3 lambda4 seq_per_batch huber_delta
    w_forecast w_traj w_diff trajectory gru_hidden diffusion diffusion_steps policy_conditioning label_mode
    regime_label_horizon
""".split()

DEFAULTS = {
    "lr": 1e-4,
    "d_model": 512,
    "n_layers": 24,
    "d_state": 128,
    "headdim": 64,
    "expand": 2,
    "d_conv": 4,
    "lookback": 120,
    "batch_size": 64,
    "feature_schema": 52,
    "ewma_alpha": 0.06,
    "moe": "soft",
    "n_experts": 3,
    "moe_aux_alpha": 0.01,
    "lambda_stk": 1.0,
    "lambda_reg": 0.5,
    "lambda_pnl": 2.0,
    "lambda_risk": 1.5,
    "lambda1": 1.0,
    "lambda2": 0.3,
    "lambda3": 0.1,
    "lambda4": 0.05,
    "w_forecast": 0.5,
    "w_traj": 0.25,
    "w_diff": 0.25,
    "gru_hidden": 128,
    "diffusion_steps": 100,
    "trajectory": False,
    "diffusion": False,
    "vol_gated_attn": False,
}


def test_every_gene_of_the_specification_is_a_field_with_its_default():
    assert set(GENES) <= set(CondorConfig.model_fields)
    config = CondorConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.requirement("CONDOR-7")
@pytest.mark.parametrize(
    ("d_model", "n_layers", "expand", "millions"),
    [(512, 24, 2, 41.3), (512, 32, 2, 55.0), (1024, 32, 2, 211.0), (2048, 48, 2, 1241.0), (512, 24, 1, 22.2)],
)
def test_backbones_have_the_stated_numbers_of_parameters(d_model, n_layers, expand, millions):
    counts = sizes.parameters(CondorConfig(d_model=d_model, n_layers=n_layers, expand=expand))
    assert counts["backbone"] == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.requirement("CONDOR-7")
def test_presets_and_grid_rows_are_configs():
    configs = {name: CondorConfig(**values) for name, values in PRESETS.items()}
    production, baseline = configs["production"], configs["baseline"]
    assert (production.d_model, production.n_layers, production.lookback) == (512, 24, 120)
    assert production.batch_size * production.accum_steps == 1024
    assert (baseline.d_model, baseline.n_layers, baseline.lookback) == (1024, 32, 128)
    assert baseline.batch_size * baseline.accum_steps == 256
    assert {(c.d_model, c.n_layers, c.lookback, c.lr) for c in configs.values()} >= {
        (1024, 32, 128, 1e-4),
        (1024, 32, 256, 1e-4),
        (1024, 32, 128, 5e-5),
        (512, 24, 128, 1e-4),
        (2048, 48, 128, 1e-4),
    }


SWITCHES = [
    {"ssm_variant": variant, "block": block, "feature_scaling": scaling}
    for variant, block, scaling in product(("mamba2", "mamba1"), ("residual", "documented"), ("learned", "none"))
] + [
    {"moe": "none"},
    {"moe": "topk", "n_experts": 4, "moe_k": 2},
    {"moe": "soft", "separate_gates": True},
    {"policy_conditioning": "none"},
    {"vol_gated_attn": True},
    {"vol_gated_attn": True, "vga_source": "vol_feature", "gate_input": "hidden_vol"},
    {"trajectory": True},
    {"trajectory": True, "diffusion": True},
    {"feature_schema": 24},
    {"feature_schema": 32, "feature_groups": "spot+dynamic"},
    {"expand": 1, "d_conv": 2},
    {"d_model": 7, "headdim": 7, "expand": 3},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_count_of_parameters_equals_that_of_the_model(switches):
    config = CondorConfig(**{**TINY, **switches})
    model = CondorModel(config, EVERY_FEATURE)
    assert config.n_parameters() == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("length", [60, 120, 240])
@pytest.mark.parametrize("expand", [1, 2])
def test_operations_are_those_that_torch_counts(length, expand):
    config = CondorConfig(d_model=64, n_layers=4, headdim=32, d_state=32, lookback=length, expand=expand)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        CondorModel(config, EVERY_FEATURE).eval()(torch.zeros(2, length, 52))
    assert config.forward_flops() == pytest.approx(counter.get_total_flops() / 2, rel=0.15)


@pytest.mark.parametrize(
    "switches",
    [{}, {"lookback": 60, "d_model": 32}, {"n_layers": 8}, {"d_state": 64, "headdim": 64}, {"ssm_variant": "mamba1"}],
    ids=str,
)
def test_memory_is_near_what_autograd_keeps(switches):
    settings = {"d_model": 64, "n_layers": 4, "headdim": 32, "d_state": 16, "lookback": 120, "batch_size": 4}
    config = CondorConfig(**{**settings, **switches})
    measured = saved_bytes(CondorModel(config, EVERY_FEATURE), torch.zeros(4, config.lookback, 52), "policy")
    assert config.memory_bytes() - 16 * config.n_parameters() == pytest.approx(measured, rel=0.2)


@pytest.mark.requirement("CONDOR-13")
def test_order_and_ranges_of_the_policy_are_frozen():
    assert POLICY_RANGES == (
        ("call_offset", 0.0, 10.0),
        ("put_offset", 0.0, 10.0),
        ("wing_width", 2.0, 15.0),
        ("target_dte", 7.0, 45.0),
        ("win_probability", 0.0, 1.0),
        ("roi", -1.0, 1.0),
        ("max_loss_frac", 0.0, 1.0),
        ("confidence", 0.0, 1.0),
    )
    assert HORIZON_SESSIONS == (1, 3, 5, 10)
    assert REGIMES == ("low", "normal", "high")


@pytest.mark.requirement("FEAT-CB-W")
@pytest.mark.parametrize("schema", [24, 32, 52])
def test_groups_cover_the_schema_in_order(schema):
    expected = [name.removeprefix("condor.") for name in SCHEMAS[f"condor{schema}"]]
    assert list(CondorConfig(feature_schema=schema).seen_features()) == expected
    assert len(set(FEATURE_GROUPS)) == 8


def test_feature_groups_pick_features():
    config = CondorConfig(feature_groups="dynamic+spot")
    assert config.seen_features() == FEATURE_GROUPS["spot"] + FEATURE_GROUPS["dynamic"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"headdim": 48}, r"headdim: expected a divisor of expand \* d_model = 1024, found 48"),
        ({"block": "documented", "d_model": 96, "headdim": 64}, "headdim: expected a divisor of d_model = 96"),
        ({"vol_gated_attn": True, "vga_heads": 7}, "vga_heads: expected a divisor of d_model = 512, found 7"),
        ({"vol_gated_attn": True, "n_layers": 3}, "vol_gated_attn: expected n_layers of at least 4, found 3"),
        ({"vol_gated_attn": True, "n_layers": 12, "vga_layers": "documented"}, "n_layers = 12, found 23; use auto"),
        ({"moe": "topk", "n_experts": 2, "moe_k": 3}, "moe_k: expected at most n_experts = 2, found 3"),
        ({"diffusion": True}, "diffusion: expected trajectory to be on"),
        ({"loss": "composite", "seq_per_batch": 48}, "seq_per_batch: expected a divisor of batch_size = 64"),
        ({"loss": "composite", "policy_activation": "softmax_documented"}, "policy_activation: expected bounded"),
        ({"feature_groups": "spot+tape"}, "feature_groups: expected all, or different names"),
        ({"feature_groups": "spot+spot"}, "feature_groups: expected all, or different names"),
        ({"feature_schema": 24, "feature_groups": "dynamic"}, "feature_groups: expected all"),
        ({"feature_groups": "spot", "gate_input": "hidden_vol"}, "expected the group volatility"),
        ({"label_mode": "column"}, "label_mode: .* not built yet: column"),
        ({"d_modle": 4}, "d_modle"),
    ],
)
def test_rules_are_checked_with_clear_messages(values, words):
    with pytest.raises(ValidationError, match=words):
        CondorConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"ssm_variant": "mamba1", "headdim": 48},
        {"vga_heads": 7},
        {"moe_k": 5},
        {"seq_per_batch": 48},
        {"vga_layers": "documented", "n_layers": 8},
    ],
    ids=str,
)
def test_fields_that_a_switch_turns_off_are_not_checked(values):
    CondorConfig(**values)


@pytest.mark.requirement("CONDOR-19")
@pytest.mark.parametrize(
    ("n_layers", "choice", "expected"),
    [(32, "auto", (7, 15, 23)), (24, "auto", (5, 11, 17)), (4, "auto", (0, 1, 2)), (24, "documented", (7, 15, 23))],
)
def test_attention_stands_at_quarters_or_where_documented(n_layers, choice, expected):
    assert CondorConfig(n_layers=n_layers, vga_layers=choice, vol_gated_attn=True).attention_layers() == expected


def test_scored_lookback_is_the_longest_within_reach():
    assert CondorConfig.scored_lookback({"lookback": (60, 512, 120)}) == 512
    assert CondorConfig.scored_lookback({"lr": (1e-5, 1e-3)}) == 120


def test_json_round_trip():
    config = CondorConfig(**TINY, moe="topk")
    assert CondorConfig.model_validate_json(json.dumps(config.model_dump(mode="json"))) == config


@pytest.mark.requirement("SEARCH-16")
@pytest.mark.parametrize(
    ("changes", "scale", "expected"),
    [
        ({}, "tiny", (128, 6)),
        ({}, "small", (256, 12)),
        ({}, "full", (512, 24)),
        ({"vol_gated_attn": True, "d_model": 64, "n_layers": 8, "vga_heads": 16}, "tiny", (32, 4)),
        ({"vol_gated_attn": True, "vga_layers": "documented"}, "tiny", (128, 24)),
        ({"block": "documented", "headdim": 64}, "tiny", (128, 6)),
        ({"d_model": 96, "headdim": 64, "n_layers": 1}, "small", (64, 1)),
        ({"ssm_variant": "mamba1", "d_model": 7, "n_layers": 3}, "tiny", (2, 1)),
    ],
)
def test_scales_shrink_width_and_depth_as_far_as_heads_and_attention_allow(changes, scale, expected):
    fidelity = SCALES[scale]
    config = CondorConfig(**changes)
    scaled = config.at_fidelity(width_frac=fidelity.width_frac, depth_frac=fidelity.depth_frac)
    assert (scaled.d_model, scaled.n_layers) == expected
    assert scaled.n_parameters() <= config.n_parameters()
    assert scaled.model_copy(update={"d_model": config.d_model, "n_layers": config.n_layers}) == config
