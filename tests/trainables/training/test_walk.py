"""The walk over folds on a toy family: what it reports, leaves behind, resumes and refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from scipy.stats import spearmanr

from tests.trainables.training import toy
from trainables import catalogue
from trainables.protocol import Assignment, TrialDiverged
from trainables.training.artifact import load_model
from trainables.training.checkpoint import CheckpointMismatch
from trainables.training.walk import run_trial

DATA = {"source": "arch_sp500", "start": "2016-01-01", "end": "2018-01-01"}
FOLDS = {"train_months": 18, "validation_months": 2, "test_months": 2}
LADDER = ((0, 0.5), (0, 1.0), (1, 0.5), (1, 1.0))


@pytest.fixture(autouse=True)
def _toy_family(monkeypatch):
    monkeypatch.setitem(catalogue.CONFIGS, "toy", "tests.trainables.training.toy:ToyConfig")
    monkeypatch.setitem(catalogue.FAMILIES, "toy", "tests.trainables.training.toy:FAMILY")


def assignment(run_dir: Path, *, engine: str = "plain", config: dict | None = None, **changes) -> Assignment:
    given = {
        "trial_id": "t0003",
        "family": "toy",
        "config": config or {},
        "data": DATA,
        "folds": FOLDS,
        "reach": {},
        "ladder": LADDER,
        "seed": 11,
        "run_dir": str(run_dir),
        "options": {"engine": engine, "threads": 1, "deterministic": True, "flatness_steps": 3, "flatness_samples": 32},
    }
    return Assignment(**{**given, **changes})


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run_dir / "checkpoints" / "t0003" / "model.safetensors")


def test_every_rung_reports_the_measures_of_its_fold(tmp_path):
    reports = list(run_trial(assignment(tmp_path)))
    assert [(r.rung, r.fold, r.share) for r in reports] == [(i, f, s) for i, (f, s) in enumerate(LADDER)]
    for report in reports:
        expected = {"val_loss", "train_loss", "crps", "ic", "ic_1d", "bias", "grad_norm_max", "nan_rate"}
        assert expected <= report.metrics.keys()
        assert ("flatness" in report.metrics) == (report.share == 1.0)
        assert all(np.isfinite(v) for v in report.metrics.values())
        assert report.n_scored > 30
        assert len(report.blocks) == 16
        assert np.mean(report.blocks) == pytest.approx(report.metrics["val_loss"], rel=0.2)
    assert reports[1].metrics["val_loss"] < reports[0].metrics["val_loss"]
    assert reports[1].metrics["ic"] > 0.5


@pytest.mark.requirement("ANALYSIS-1")
def test_evidence_holds_what_the_metrics_were_computed_from(tmp_path):
    reports = list(run_trial(assignment(tmp_path)))
    known_time = toy.FAMILY.dataset(None, *_sections(), {}, tmp_path).known_time
    for fold, report in ((0, reports[1]), (1, reports[3])):
        table = pq.read_table(tmp_path / "evidence" / "t0003" / f"fold-{fold:02d}.parquet")
        columns = {name: table[name].to_numpy() for name in table.column_names}
        assert list(columns) == ["timestamp", "loss", "crps", "prediction_1d", "target_1d", "scale_1d", "twice"]
        assert columns["timestamp"].dtype == np.int64
        assert np.isin(columns["timestamp"], known_time).all()
        assert (np.diff(columns["timestamp"]) > 0).all()
        assert len(table) == report.n_scored
        assert columns["loss"].mean(dtype=np.float64) == pytest.approx(report.metrics["val_loss"], rel=1e-6)
        judge = spearmanr(columns["prediction_1d"], columns["target_1d"]).statistic
        assert judge == pytest.approx(report.metrics["ic_1d"], abs=1e-6)
        metadata = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
        assert (metadata["fold"], metadata["family"]) == (str(fold), "toy")
        assert json.loads(metadata["marks"]) == {"target": "synthetic"}


def _sections():
    from trainables.data.config import DataConfig, FoldsConfig

    return DataConfig(**DATA), FoldsConfig(**FOLDS)


@pytest.mark.requirement("TRAIN-15")
@pytest.mark.requirement("REPRO-3")
@pytest.mark.parametrize("engine", ["plain", "deepspeed"])
def test_ten_epochs_equal_five_and_a_resume_of_five_bit_for_bit(tmp_path, engine):
    ladder = ((0, 0.5), (0, 1.0))
    config = {"epochs": 10, "dropout": 0.2, "accum_steps": 2, "warmup_steps": 3}
    whole = list(run_trial(assignment(tmp_path / "a", engine=engine, config=config, ladder=ladder)))
    killed = run_trial(assignment(tmp_path / "b", engine=engine, config=config, ladder=ladder))
    first = next(killed)
    killed.close()
    torch.rand(7)  # whatever the process did in between
    resumed = list(run_trial(assignment(tmp_path / "b", engine=engine, config=config, ladder=ladder)))
    assert resumed[0] == first
    assert toy.without_times(resumed) == toy.without_times(whole)
    for name, tensor in weights(tmp_path / "a").items():
        assert torch.equal(tensor, weights(tmp_path / "b")[name])


def test_the_number_of_rungs_does_not_change_what_is_trained(tmp_path):
    config = {"epochs": 6, "dropout": 0.2}
    many = list(run_trial(assignment(tmp_path / "a", config=config, ladder=((0, 0.3), (0, 0.5), (0, 1.0)))))
    one = list(run_trial(assignment(tmp_path / "b", config=config, ladder=((0, 1.0),))))
    assert many[-1].metrics["val_loss"] == one[-1].metrics["val_loss"]


@pytest.mark.parametrize("n_heard", [1, 2, 3, 4])
def test_a_trial_resumes_after_any_rung(tmp_path, n_heard):
    whole = list(run_trial(assignment(tmp_path / "a")))
    killed = run_trial(assignment(tmp_path / "b"))
    heard = [next(killed) for _ in range(n_heard)]
    killed.close()
    rest = list(run_trial(assignment(tmp_path / "b")))
    assert rest[0] == heard[-1]
    assert toy.without_times([*heard, *rest[1:]]) == toy.without_times(whole)
    metrics = json.loads((tmp_path / "b" / "checkpoints" / "t0003" / "training_metrics.json").read_text())
    assert [fold["rung"] for fold in metrics["folds"]] == [1, 3]


@pytest.mark.requirement("REPRO-1")
def test_equal_seeds_give_equal_trials_and_other_seeds_others(tmp_path):
    first, again, other = (
        [r.metrics["val_loss"] for r in run_trial(assignment(tmp_path / name, seed=seed, ladder=LADDER[:3]))]
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == again
    assert all(x != y for x, y in zip(first, other, strict=True))


@pytest.mark.requirement("WF-5")
def test_scaling_is_fitted_on_training_rows_alone(tmp_path, monkeypatch):
    def models(run_dir: Path):
        list(run_trial(assignment(run_dir, ladder=((0, 1.0),))))
        return load_model(run_dir / "checkpoints" / "t0003"), weights(run_dir)

    normal, normal_weights = models(tmp_path / "a")
    dataset = toy.FAMILY.dataset(None, *_sections(), {}, tmp_path)
    first_scored = pq.read_table(tmp_path / "a" / "evidence" / "t0003" / "fold-00.parquet")["timestamp"][0].as_py()
    later = dataset.known_time >= first_scored
    features = np.where(later[:, None], 1000 * dataset.features, dataset.features)
    monkeypatch.setattr(toy.ToyFamily, "dataset", lambda self, *_: replace(dataset, features=features))
    changed, changed_weights = models(tmp_path / "b")
    assert changed.normaliser.to_json() == normal.normaliser.to_json()
    assert all(torch.equal(changed_weights[name], tensor) for name, tensor in normal_weights.items())
    trained = dataset.features[(dataset.known_time < first_scored) & dataset.usable]
    assert normal.normaliser.centre == pytest.approx(trained[3:-1].mean(axis=0), abs=2e-2)


def test_global_scaling_marks_the_run_as_leaky(tmp_path):
    list(run_trial(assignment(tmp_path, config={"norm_scope": "global_documented"}, ladder=((0, 1.0),))))
    schema = pq.read_schema(tmp_path / "evidence" / "t0003" / "fold-00.parquet")
    assert "leaky" in json.loads(schema.metadata[b"marks"])


@pytest.mark.requirement("WF-6")
def test_fold_results_are_written_with_their_aggregates(tmp_path):
    reports = [r for r in run_trial(assignment(tmp_path)) if r.share == 1.0]
    found = json.loads((tmp_path / "checkpoints" / "t0003" / "training_metrics.json").read_text())
    losses = [r.metrics["val_loss"] for r in reports]
    assert [fold["metrics"]["val_loss"] for fold in found["folds"]] == losses
    assert found["aggregates"]["val_loss"] == {
        "mean": pytest.approx(np.mean(losses)),
        "std": pytest.approx(np.std(losses, ddof=1)),
        "min": min(losses),
        "max": max(losses),
        "n_folds": 2,
    }


@pytest.mark.requirement("ART-3")
def test_a_reloaded_model_gives_the_same_outputs(tmp_path):
    list(run_trial(assignment(tmp_path)))
    trained = load_model(tmp_path / "checkpoints" / "t0003")
    dataset = toy.FAMILY.dataset(None, *_sections(), {}, tmp_path)
    table = pq.read_table(tmp_path / "evidence" / "t0003" / "fold-01.parquet")
    ends = np.flatnonzero(np.isin(dataset.known_time, table["timestamp"].to_numpy()))
    rows = trained.normaliser.apply(dataset.features)
    windows = torch.from_numpy(np.stack([rows[end - 3 : end + 1] for end in ends]))
    with torch.no_grad():
        outputs = torch.cat([trained.model(part) for part in windows.split(trained.config.batch_size)])
    assert np.array_equal(outputs.numpy(), table["prediction_1d"].to_numpy())
    assert trained.feature_names == toy.NAMES
    assert trained.description["seed"] == 11


def test_only_the_newest_two_checkpoints_are_kept(tmp_path):
    list(run_trial(assignment(tmp_path)))
    folder = tmp_path / "checkpoints" / "t0003"
    assert sorted(p.name for p in folder.glob("*rung*")) == ["rung-0002", "rung-0003"]
    assert not list(tmp_path.rglob(".*"))


def test_a_checkpoint_of_another_configuration_is_refused_by_name(tmp_path):
    next(run_trial(assignment(tmp_path)))
    with pytest.raises(
        CheckpointMismatch, match=r"config\.lr: 0\.01 there, 0\.02 here; config\.width: 5 there, 6 here"
    ):
        next(run_trial(assignment(tmp_path, config={"lr": 0.02, "width": 6})))


@pytest.mark.requirement("TRAIN-13")
def test_a_loss_that_is_nan_ends_the_trial_as_diverged(tmp_path):
    options = {"engine": "plain", "stability_min_steps": 20}
    with pytest.raises(TrialDiverged, match=r"fold 0, step 20: loss or gradient not finite in 100\.0% of the steps"):
        list(run_trial(assignment(tmp_path, config={"poison_loss": True}, options=options)))
    assert not (tmp_path / "evidence").exists()


@pytest.mark.requirement("TRAIN-13")
@pytest.mark.parametrize("engine", ["plain", "deepspeed"])
def test_gradients_of_a_million_end_the_trial_as_diverged(tmp_path, engine):
    with pytest.raises(TrialDiverged, match="fold 0, step 3: gradient norm above 100000 in 3 consecutive steps"):
        list(run_trial(assignment(tmp_path, config={"loss_gain": 1e7, "lr": 1e-6}, engine=engine)))


@pytest.mark.parametrize("loss", [np.inf, -np.inf, np.nan])
def test_a_validation_loss_that_is_not_finite_ends_the_trial_as_diverged(tmp_path, monkeypatch, loss):
    def score(self, config, outputs, targets):
        return toy.Score(loss=np.full(len(targets), loss, dtype=np.float32), crps=None, forecasts={})

    monkeypatch.setattr(toy.ToyFamily, "score", score)
    with pytest.raises(TrialDiverged, match=f"fold 0, step 48: validation loss is {loss}"):
        list(run_trial(assignment(tmp_path)))


@pytest.mark.requirement("SEARCH-16")
def test_a_scale_shrinks_model_and_training_rows_and_leaves_what_is_scored(tmp_path):
    ladder = ((0, 1.0),)
    half = {"scale": "small", "width_frac": 0.4, "depth_frac": 0.5, "data_frac": 0.5}
    full, small = (
        list(run_trial(assignment(tmp_path / name, ladder=ladder, fidelity=fidelity)))
        for name, fidelity in (("full", {}), ("small", half))
    )
    assert small[0].n_scored == full[0].n_scored
    models = [load_model(tmp_path / name / "checkpoints" / "t0003") for name in ("full", "small")]
    assert [m.config.width for m in models] == [5, 2]
    times, scales = [], []
    for name in ("full", "small"):
        table = pq.read_table(tmp_path / name / "evidence" / "t0003" / "fold-00.parquet")
        times.append(table["timestamp"])
        scales.append(table.schema.metadata[b"scale"])
    assert times[0] == times[1]
    assert scales == [b"full", b"small"]
    dataset = toy.FAMILY.dataset(None, *_sections(), {}, tmp_path)
    first_scored = times[0][0].as_py()
    rows = np.flatnonzero((dataset.label_end < first_scored) & dataset.usable)[3:]
    kept = dataset.features[rows[-math.ceil(len(rows) / 2) :]]
    assert models[1].normaliser.centre == pytest.approx(kept.mean(axis=0), abs=2e-2), "the last half"
    with pytest.raises(CheckpointMismatch, match=r"fidelity\.data_frac: 0\.5 there, 1\.0 here"):
        next(run_trial(assignment(tmp_path / "small", ladder=ladder)))


@pytest.mark.requirement("TRAIN-12")
@pytest.mark.requirement("TRAIN-14")
def test_curves_hold_every_step_of_every_fold_also_after_a_kill(tmp_path):
    options = {"engine": "plain", "curves": True}
    trial = run_trial(assignment(tmp_path, options=options))
    next(trial)
    trial.close()
    list(run_trial(assignment(tmp_path, options=options)))
    for fold in (0, 1):
        curves = pq.read_table(tmp_path / "curves" / "t0003" / f"fold-{fold:02d}.parquet").to_pandas()
        assert curves["step"].tolist() == list(range(1, len(curves) + 1))
        names = ["batch/train_loss", "batch/gradient_norm", "batch/learning_rate", "tokens_per_s", "batch/next"]
        assert list(curves.columns)[1:] == names
        assert (curves["batch/train_loss"] - curves["batch/next"]).abs().max() < 1e-6
        assert (curves["tokens_per_s"] > 0).all()
    assert len(curves) >= 48


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ladder": ((1, 1.0), (0, 1.0))}, "in increasing order"),
        ({"ladder": ((0, 1.5),)}, r"shares in \(0, 1\]"),
        ({"ladder": ((99, 1.0),)}, "the data have 2 folds"),
        ({"config": {"widht": 3}}, "widht"),
        ({"options": {"engine": "fused"}}, "engine"),
        ({"config": {"precision": "fp16"}}, "expected a CUDA device for fp16"),
        ({"config": {"accum_steps": 4000}}, "at most as many micro-batches as training rows"),
    ],
)
def test_wrong_assignments_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        next(run_trial(assignment(tmp_path, **changes)))


class InformedConfig(toy.ToyConfig):
    mean: float | None = None


class InformedFamily(toy.ToyFamily):
    """Knows the mean of its training targets, forecasts twice what the model says, and begins with some rows."""

    def __init__(self, log):
        self.log = log

    def statistics(self, config, targets_train):
        self.log.append(("statistics", len(targets_train)))
        return config.model_copy(update={"mean": float(targets_train.mean())})

    def warmup_rows(self, config, dataset, train):
        self.log.append(("warmup", dataset.known_time[train].max()))
        return train[:40]

    def forecast(self, config, model, windows):
        return 2 * model(windows)

    def score(self, config, outputs, targets):
        assert config.mean is not None
        return super().score(config, outputs, targets)


def test_a_family_may_know_the_training_rows_of_a_fold(tmp_path, monkeypatch):
    log: list = []
    monkeypatch.setattr(toy, "FAMILY", InformedFamily(log))
    monkeypatch.setattr(toy, "ToyConfig", InformedConfig)
    config = {"warmup_steps": 3}
    list(run_trial(assignment(tmp_path / "a", config=config)))
    assert [what for what, _ in log] == ["statistics", "warmup"] * 2
    for fold in (0, 1):
        table = pq.read_table(tmp_path / "a" / "evidence" / "t0003" / f"fold-{fold:02d}.parquet")
        assert log[2 * fold + 1][1] < table["timestamp"][0].as_py()
    trained = load_model(tmp_path / "a" / "checkpoints" / "t0003")
    assert trained.config.mean is not None
    dataset = toy.ToyFamily().dataset(None, *_sections(), {}, tmp_path)
    ends = np.flatnonzero(np.isin(dataset.known_time, table["timestamp"].to_numpy()))
    rows = trained.normaliser.apply(dataset.features)
    with torch.no_grad():
        alone = trained.model(torch.from_numpy(np.stack([rows[end - 3 : end + 1] for end in ends])))
    np.testing.assert_allclose(table["prediction_1d"].to_numpy(), 2 * alone.numpy(), rtol=1e-5)


class ThinConfig(toy.ToyConfig):
    stride: int = 7

    @property
    def training_stride(self):
        return self.stride

    @property
    def scoring_stride(self):
        return self.stride

    @property
    def unscaled_columns(self):
        return ("level",)

    @property
    def measured_rows(self):
        return 5

    @property
    def has_curvature(self):
        return False


def test_a_config_can_thin_rows_and_keep_columns_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "ToyConfig", ThinConfig)
    every, thin = (
        next(iter(run_trial(assignment(tmp_path / str(stride), config={"stride": stride}, ladder=((0, 1.0),)))))
        for stride in (1, 7)
    )
    assert thin.n_scored == -(-every.n_scored // 7)
    assert "flatness" not in thin.metrics
    normaliser = load_model(tmp_path / "7" / "checkpoints" / "t0003").normaliser
    x = np.full((1, 3), 0.25)
    assert normaliser.exempt.tolist() == [False, True, False]
    assert normaliser.apply(x)[0, 1] == 0.25
    again = load_model(tmp_path / "1" / "checkpoints" / "t0003").normaliser
    assert again.to_json() == normaliser.to_json()  # scaling is fitted on all training rows
