"""The space files of grok against the tables of the specification, and the ablations against the hypotheses."""

from pathlib import Path

import numpy as np
import pytest

from search.parameters import Fixed, Float, Int
from search.settings import space_file_model
from search.space_file import load
from search.validity import infeasible_reason
from trainables.catalogue import CONFIGS
from trainables.data.config import DataConfig, FoldsConfig
from trainables.grok.config import GrokConfig

SPACES = Path(__file__).parents[3] / "spaces"
MODEL = space_file_model(DataConfig, FoldsConfig, tuple(CONFIGS))

TABLE = {
    "n_blocks": ((8, 12), 8, {}),
    "d_model": ([256, 384, 512], 512, {}),
    "n_heads": ([4, 8, 16], 8, {}),
    "ffn_mult": ([2, 4], 4, {}),
    "window_bars": ([390, 1380, 6900], 6900, {}),
    "train_stride": ([240, 1380, "T"], 240, {}),
    "batch_size": ([8, 12, 16], 8, {}),
    "lgu": ([False, True], True, {}),
    "variable_attention": ([False, True], True, {}),
    "use_pe": ([False, True], True, {}),
    "use_in": ([False, True], True, {}),
    "gap_group": (["price", "temporal", "all"], "price", {}),
    "conv_stem": (["none", "k3", "k5"], "none", {}),
    "patch": (["none", 8, 16], "none", {}),
    "heads": (["autoregressive", "independent"], "autoregressive", {}),
    "teacher_forcing_ratio": ((0, 1), 0, {"heads": ("autoregressive",)}),
    "horizon_weight": (["minutes", "index", "uniform"], "minutes", {}),
    "order_penalty": ((0.01, 10), 1.0, {"quantile_param": ("free",)}),
    "quantile_param": (["free", "cumulative_softplus"], "free", {}),
    "scale_conditioning": (["target_scale", "static_token", "none"], "target_scale", {}),
    "mc_samples": ([1, 10, 20, 50], 20, {}),
    "lowvol_curriculum": ([False, True], False, {}),
    "volume_delta": (["difference", "signed"], "difference", {}),
    # 12.1, as TRAIN-1 narrows it
    "lr": ((1e-5, 1e-3), 1e-4, {}),
    "weight_decay": ((1e-6, 1e-1), 1e-2, {}),
    "lr_schedule": (["cosine", "constant", "onecycle"], "cosine", {}),
    "warmup_steps": ([0, 500, 1000, 2000, 4000], 2000, {"lr_schedule": ("cosine", "onecycle")}),
    "grad_clip": ((0.1, 5), 1.0, {}),
    "precision": (["bf16", "fp32", "tf32", "fp16"], "bf16", {}),
    "accum_steps": ([1, 2, 4, 8], 1, {}),
    "zero_stage": ([0, 1, 2, 3], 1, {}),
    "grad_checkpoint": ([False, True], True, {}),
    "dropout": ((0.0, 0.5), 0.1, {}),
    "clip_value": ((3, 20), 10, {}),
}
"""Range or choices, default and condition of each row of chapter 12.2, then of 12.1."""
LOGARITHMIC = {"lr", "weight_decay", "grad_clip", "order_penalty"}


def space_file(name="grok.yaml", profile=None):
    return load(SPACES / name, model=MODEL, profile=profile)[0]


@pytest.mark.requirement("SEARCH-12")
@pytest.mark.parametrize("name", TABLE)
def test_the_space_is_that_of_the_table(name):
    span, default, conditions = TABLE[name]
    kind = space_file().parameters[name]
    assert kind.default == default
    assert {parent: tuple(values) for parent, values in kind.conditions.items()} == conditions
    if isinstance(kind, Float | Int):
        assert (kind.low, kind.high) == span
        assert getattr(kind, "log", False) == (name in LOGARITHMIC)
    else:
        assert [kind.value_at(place) for place in range(kind.size)] == span
    if name not in ("precision", "zero_stage"):  # the class trains on a CPU too
        assert getattr(GrokConfig(), name) == default


@pytest.mark.requirement("SEARCH-12")
def test_what_else_varies_is_named():
    parameters = space_file().parameters
    rest = {name for name, kind in parameters.items() if not isinstance(kind, Fixed)} - set(TABLE)
    assert rest == {"epochs", "normalizer", "feature_groups", "sma_windows"}
    assert parameters["sma_windows"].default == "5,10,20,50,100,200"


@pytest.mark.parametrize("profile", [None, "laptop", "smoke"])
def test_ten_thousand_points_are_valid(profile):
    space = space_file(profile=profile).space()
    rng = np.random.default_rng(0)
    n = 10_000 if profile is None else 300
    assert not [c for c in (space.sample(rng) for _ in range(n)) if infeasible_reason(c, GrokConfig)]


@pytest.mark.requirement("HYP-1")
@pytest.mark.requirement("HYP-2")
@pytest.mark.requirement("HYP-3")
@pytest.mark.requirement("HYP-5")
@pytest.mark.requirement("HYP-6")
@pytest.mark.parametrize("profile", [None, "laptop"])
def test_each_ablation_differs_from_the_base_in_its_switch_only(profile):
    file = space_file("grok_ablation.yaml", profile)
    space, points = file.space(), file.search.enqueue
    assert points[0] == {}
    assert file.budget.trials == len(points)
    base = GrokConfig(**space.complete({}))
    for point in points[1:]:
        config = GrokConfig(**space.complete(point))
        differing = {k for k, v in config.model_dump().items() if base.model_dump()[k] != v}
        assert differing == set(point)
    switches = {tuple(point) for point in points}
    assert switches >= {
        ("use_in",),
        ("use_pe",),
        ("use_in", "use_pe"),
        ("window_bars",),
        ("variable_attention",),
        ("scale_conditioning",),
        ("patch",),
    }
    assert sum("patch" in point for point in points) == sum("window_bars" in point for point in points) == 2
