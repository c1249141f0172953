"""spaces/scalper.yaml against chapters 12.1 and 12.4."""

import pytest

from tests.spaces.shipped import described, problems, read, refusals
from trainables.scalper.config import ScalperConfig

SEQUENCE = {"arch": {"lstm", "gru", "transformer"}}
CHAPTER_12_4 = {
    "arch": ("c", ["ffn", "lstm", "gru", "transformer"], "ffn", {}),
    "approach": ("c", ["classification", "regression", "rl", "hybrid"], "hybrid", {}),
    "hidden": ("c", ["256-128-64", "512-256-128", "128-64-32"], "256-128-64", {"arch": {"ffn"}}),
    "lstm_units": ("c", ["128-64", "64-32", "256-128"], "128-64", {"arch": {"lstm", "gru"}}),
    "n_layers": ("i", 1, 6, False, 2, {"arch": {"transformer"}}),
    "n_heads": ("o", [2, 4, 8], 4, {"arch": {"transformer"}}),
    "d_model": ("o", [32, 64, 128], 64, {"arch": {"transformer"}}),
    "seq_len": ("o", [30, 60, 120, 300], 120, SEQUENCE),
    "batch_size": ("o", [256, 512, 1024], 512, {}),
    "dropout": ("f", 0.2, 0.4, False, 0.3, {}),
    "horizon_s": ("o", [5, 10, 30, 60, 300], 60, {}),
    "ticks_x": ("o", [1, 2, 3, 4, 6, 8], 2, {"approach": {"classification", "hybrid"}}),
    "session": ("c", ["rth", "rth_plus_eth"], "rth", {}),
    "imbalance": (
        "c",
        ["weights", "focal", "oversample", "none"],
        "weights",
        {"approach": {"classification"}},
    ),
    "focal_gamma": ("f", 0.5, 5, False, 2, {"imbalance": {"focal"}}),
    "patience": ("o", [5, 10, 20], 10, {}),
    "price_norm": ("c", ["returns", "zscore", "minmax"], "returns", {}),
    "htf": ("c", [False, True], True, {}),
    "exit_tp_ticks": ("i", 1, 20, True, 4, {"approach": {"hybrid"}}),
    "exit_sl_ticks": ("i", 1, 20, True, 4, {"approach": {"hybrid"}}),
}
CHAPTER_12_1 = {
    "weight_decay": ("f", 1e-5, 1e-4, True, 1e-4, {}),
    "lr": ("f", 1e-4, 1e-3, True, 3e-4, {}),
    "lr_schedule": ("c", ["cosine", "constant", "onecycle"], "cosine", {}),
    "warmup_steps": ("o", [0, 500, 1000, 2000, 4000], 0, {"lr_schedule": {"cosine", "onecycle"}}),
    "grad_clip": ("f", 0.1, 5, True, 1.0, {}),
    "precision": ("c", ["bf16", "fp32", "tf32", "fp16"], "bf16", SEQUENCE),
    "accum_steps": ("o", [1, 2, 4, 8], 1, {}),
    "zero_stage": ("o", [0, 1, 2, 3], 1, {}),
    "norm_scope": ("fixed", "train_fold", {}),
    "clip_value": ("f", 3, 20, False, 10, {"normalizer": {"mad", "zscore"}}),
    "epochs": ("o", [50, 75, 100], 100, {}),
}


@pytest.mark.requirement("SEARCH-10")
def test_every_row_of_the_chapter_is_there():
    space = read("scalper")[0].space()
    found = {name: described(kind) for name, kind in space.parameters.items()}
    for name, row in {**CHAPTER_12_4, **CHAPTER_12_1}.items():
        assert found[name] == row, name
    assert set(found) - set(CHAPTER_12_4) - set(CHAPTER_12_1) == {"normalizer", "feature_groups"}


def test_trials_of_different_tasks_are_not_compared_by_their_loss():
    for profile in (None, "laptop", "smoke"):
        file, _ = read("scalper", profile)
        reach = file.space().reach()
        is_one_task = len(reach["horizon_s"]) == len(reach["ticks_x"]) == 1
        assert file.objectives[0].metric == ("val_loss" if is_one_task else "loss_gain")


def test_defaults_of_the_space_are_those_of_the_family():
    space = read("scalper")[0].space()
    default = ScalperConfig()
    differing = {n for n, value in space.complete({}).items() if getattr(default, n) != value}
    assert differing <= {"zero_stage"}  # as chapter 12.1 has it; a bare config runs without DeepSpeed


@pytest.mark.parametrize("profile", [None, "laptop", "smoke"])
def test_all_points_can_be_trained(profile):
    assert problems("scalper", profile) == ((), ())
    assert refusals("scalper", profile) == set()
