"""The mlp family: its three sizes, its loss and score by somebody else's numbers, and a run on daily bars."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from scipy.special import expit, xlogy

from trainables.data.config import DataConfig, FoldsConfig
from trainables.features.schemas import SCHEMAS
from trainables.mlp.config import HIDDEN_WIDTHS, STAGE_INPUTS, MlpConfig
from trainables.mlp.losses import cross_entropy
from trainables.mlp.model import Mlp
from trainables.mlp.trainable import FAMILY, STAGE_SCHEMAS, MlpFamily
from trainables.protocol import Assignment, TrialDiverged
from trainables.training.walk import run_trial

DATA = {"source": "arch_sp500", "start": "2012-01-01", "end": "2018-01-01"}
FOLDS = {"train_months": 48, "validation_months": 6, "test_months": 3}


@pytest.mark.requirement("MLP-1")
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize(("hidden", "size"), [("32-16", 1_013), ("64-32-16", 3_573), ("128-64-32", 12_245)])
def test_the_three_sizes_are_exact(hidden, size, norm):
    config = MlpConfig(hidden=hidden, norm=norm)
    assert config.n_parameters() == size
    assert sum(p.numel() for p in Mlp(config, config.n_inputs).parameters()) == size


@pytest.mark.parametrize("hidden", HIDDEN_WIDTHS)
@pytest.mark.parametrize("stage", STAGE_INPUTS)
def test_size_is_known_without_building_the_model(hidden, stage):
    config = MlpConfig(hidden=hidden, feature_stage=stage)
    assert len(SCHEMAS[STAGE_SCHEMAS[stage]]) == config.n_inputs
    assert config.n_parameters() == sum(p.numel() for p in Mlp(config, config.n_inputs).parameters())
    assert config.memory_bytes() > 16 * config.n_parameters()
    assert config.forward_flops() == 2 * sum(
        p.numel() for p in Mlp(config, config.n_inputs).parameters() if p.ndim == 2
    )


def test_each_stage_begins_with_the_columns_of_the_one_before():
    ten, twenty, thirty, fifty = (SCHEMAS[STAGE_SCHEMAS[stage]] for stage in ("10", "20", "30+", "50+"))
    assert fifty[:42] == thirty
    assert thirty[:20] == twenty
    assert twenty[:10] == ten


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"norm": "batch", "precision": "bf16", "zero_stage": 1}, "set norm: layer"),
        ({"lookback": 2}, "lookback"),
        ({"d_model": 8}, "d_model"),
    ],
)
def test_what_cannot_run_is_refused(field, message):
    with pytest.raises(ValidationError, match=message):
        MlpConfig(**field)


@pytest.mark.requirement("LOSS-11")
def test_the_loss_is_cross_entropy_in_nats():
    logits, rises = torch.tensor([0.0, 3.0, -2.0, -2.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    p, y = expit(logits.double().numpy()), rises.numpy()
    assert cross_entropy(logits, rises).numpy() == pytest.approx(-xlogy(y, p) - xlogy(1 - y, 1 - p), rel=1e-6)
    assert float(cross_entropy(logits, rises)[0]) == pytest.approx(math.log(2))


@pytest.mark.requirement("DATA-26")
def test_a_score_tells_accuracy_from_the_majority_rate():
    targets = torch.tensor([[1, 0.02], [1, 0.01], [1, 0.03], [0, -0.01]], dtype=torch.float32)
    score = FAMILY.score(MlpConfig(), torch.tensor([2.0, -1.0, 0.5, 1.0]), targets)
    p = expit(np.array([2.0, -1.0, 0.5, 1.0]))
    assert score.crps == pytest.approx((p - targets[:, 0].numpy()) ** 2, rel=1e-6)
    assert score.metrics["accuracy"] == score.metrics["directional_accuracy"] == 0.5
    assert score.metrics["majority_rate"] == 0.75
    assert score.metrics["directional_gain"] == -0.25
    prediction, realised = score.forecasts["5b"]
    assert prediction == pytest.approx(p - 0.5, rel=1e-6)
    assert realised.tolist() == targets[:, 1].tolist()
    constant = FAMILY.score(MlpConfig(), torch.ones(4), targets)
    assert constant.metrics["accuracy"] == constant.metrics["majority_rate"]
    assert constant.metrics["directional_gain"] == 0


def run(run_dir: Path, trial_id: str, config: dict, reach: dict, **changes) -> list:
    given = dict(
        trial_id=trial_id,
        family="mlp",
        config={"epochs": 4, "batch_size": 128, "lr": 1e-3, **config},
        data=DATA,
        folds=FOLDS,
        reach=reach,
        ladder=((0, 1.0), (1, 1.0)),
        seed=1,
        run_dir=str(run_dir),
        options={"engine": "plain", "flatness_samples": 64, "flatness_steps": 4},
    )
    return list(run_trial(Assignment(**{**given, **changes})))


@pytest.mark.requirement("WF-7")
@pytest.mark.requirement("SEARCH-14")
def test_trials_on_daily_bars_are_scored_on_the_same_timestamps(tmp_path):
    reach = {"label_horizon": (1, 5), "feature_stage": ("10", "20")}
    reports = run(tmp_path, "t0000", {"label_horizon": 1}, reach)
    run(tmp_path, "t0001", {"label_horizon": 5, "feature_stage": "20", "norm": "batch"}, reach)
    for fold, report in enumerate(reports):
        first, second = (
            pq.read_table(tmp_path / "evidence" / trial / f"fold-{fold:02d}.parquet") for trial in ("t0000", "t0001")
        )
        assert first["timestamp"].equals(second["timestamp"])
        assert report.n_scored == len(first) > 100
        assert 0.4 < report.metrics["val_loss"] < 1.0
        assert {"accuracy", "majority_rate", "crps", "ic", "flatness"} <= report.metrics.keys()
        p = first["p_up"].to_numpy()
        assert first["crps"].to_numpy() == pytest.approx((p - first["up"].to_numpy()) ** 2, abs=1e-6)


def test_the_dataset_is_stored_once_per_content(tmp_path):
    data, folds = DataConfig(**DATA), FoldsConfig(**FOLDS)
    first = FAMILY.dataset(MlpConfig(lr=0.1), data, folds, {}, tmp_path)
    again = FAMILY.dataset(MlpConfig(lr=0.2), data, folds, {}, tmp_path)
    other = FAMILY.dataset(MlpConfig(label_horizon=1), data, folds, {}, tmp_path)
    assert first.snapshot == again.snapshot != other.snapshot
    assert isinstance(first.features, np.memmap)
    assert first.feature_names == tuple(name.removeprefix("scaling.") for name in SCHEMAS["scaling10"])


@pytest.mark.requirement("MLP-2")
def test_thirty_epochs_on_noise_are_stable_and_predict_nothing(tmp_path):
    noise = {"source": "synthetic", "synthetic": {"n_sessions": 1500, "drift_ann": 0.0, "seed": 3}}
    folds = {"train_months": 48, "validation_months": 12, "test_months": 6}
    config = {"epochs": 30, "batch_size": 512, "lr": 1e-4, "label_horizon": 1}
    (report,) = run(tmp_path, "t0000", config, {}, data=noise, folds=folds, ladder=((0, 1.0),))
    assert report.metrics["valid_rate"] == 1.0
    assert report.metrics["nan_rate"] < 0.001
    assert report.metrics["grad_norm_max"] < 100
    error = math.sqrt(0.25 / report.n_scored)
    assert abs(report.metrics["accuracy"] - 0.5) < 4 * error
    assert report.metrics["val_loss"] > math.log(2) - 0.02


@pytest.mark.requirement("MLP-3")
@pytest.mark.parametrize(
    ("factor", "reason"), [(float("nan"), "loss or gradient not finite"), (1e9, "gradient norm above 100000")]
)
def test_instability_is_detected_and_told_apart(tmp_path, monkeypatch, factor, reason):
    whole = MlpFamily.loss
    monkeypatch.setattr(MlpFamily, "loss", lambda *arguments: whole(*arguments) * factor)
    options = {"engine": "plain", "stability_min_steps": 5}
    with pytest.raises(TrialDiverged, match=reason):
        run(tmp_path, "t0000", {"hidden": "64-32-16", "label_horizon": 1}, {}, options=options)
