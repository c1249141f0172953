"""Early stopping: when it stops, what it goes back to, which rows it looks at, and that a resume changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.trainables.training import toy
from trainables import catalogue
from trainables.data.dataset import NO_LABEL
from trainables.data.folds import FoldRows
from trainables.protocol import Assignment
from trainables.training import fold
from trainables.training.early_stopping import EarlyStopping, hold_out
from trainables.training.walk import run_trial

DATA = {"source": "arch_sp500", "start": "2016-01-01", "end": "2018-01-01"}
FOLDS = {"train_months": 18, "validation_months": 2, "test_months": 2}


@pytest.fixture(autouse=True)
def _toy_family(monkeypatch):
    monkeypatch.setitem(catalogue.CONFIGS, "toy", "tests.trainables.training.toy:ToyConfig")
    monkeypatch.setitem(catalogue.FAMILIES, "toy", "tests.trainables.training.toy:FAMILY")


def assignment(run_dir: Path, config: dict, ladder=((0, 1.0),), engine="plain") -> Assignment:
    return Assignment(
        trial_id="t0",
        family="toy",
        config=config,
        data=DATA,
        folds=FOLDS,
        reach={},
        ladder=ladder,
        seed=3,
        run_dir=str(run_dir),
        options={"engine": engine, "threads": 1, "deterministic": True, "flatness_steps": 0},
    )


@pytest.mark.requirement("TRAIN-3")
def test_it_is_over_so_many_epochs_after_the_last_improvement():
    stopping = EarlyStopping(patience=10)
    losses = [3.0, 2.0, float("nan"), 1.0, *[1.0] * 9]
    for loss in losses:
        assert not stopping.is_over
        stopping.hear(loss, {"w": torch.tensor([loss])})
    assert not stopping.is_over
    stopping.hear(5.0, {"w": torch.tensor([5.0])})
    assert stopping.is_over
    assert (stopping.n_epochs, stopping.best_epoch, stopping.best_loss) == (14, 4, 1.0)
    assert stopping.best["w"].item() == 1.0


@pytest.mark.requirement("TRAIN-3")
def test_a_fold_stops_and_its_best_weights_are_scored_and_saved(tmp_path, monkeypatch):
    heard = iter([0.5, 0.3, *[0.4] * 50])
    kept: list[dict[str, torch.Tensor]] = []
    original = EarlyStopping.hear

    def hear(self, loss, weights):
        kept.append({name: tensor.clone() for name, tensor in weights.items()})
        original(self, next(heard), weights)

    monkeypatch.setattr(fold.EarlyStopping, "hear", hear)
    config = {"epochs": 30, "patience": 10}
    report = list(run_trial(assignment(tmp_path, config)))[-1]
    assert (report.metrics["epochs_trained"], report.metrics["best_epoch"]) == (12, 2)
    saved = safetensors.torch.load_file(tmp_path / "checkpoints" / "t0" / "model.safetensors")
    assert len(kept) == 12
    for name, tensor in saved.items():
        assert torch.equal(tensor, kept[1][name])
        assert not torch.equal(tensor, kept[-1][name])


@pytest.mark.requirement("TRAIN-15")
@pytest.mark.parametrize("engine", ["plain", "deepspeed"])
@pytest.mark.parametrize("stop_rows", ["training_tail", "validation"])
def test_a_resume_stops_where_the_whole_run_does(tmp_path, engine, stop_rows):
    config = {"epochs": 24, "patience": 2, "lr": 0.3, "lr_schedule": "constant", "stop_rows": stop_rows}
    ladder = ((0, 0.1), (0, 1.0), (1, 1.0))
    whole = list(run_trial(assignment(tmp_path / "a", config, ladder, engine)))
    killed = run_trial(assignment(tmp_path / "b", config, ladder, engine))
    next(killed)
    killed.close()
    resumed = list(run_trial(assignment(tmp_path / "b", config, ladder, engine)))
    assert toy.without_times(resumed) == toy.without_times(whole)
    assert whole[1].metrics["epochs_trained"] < 24
    left = [safetensors.torch.load_file(tmp_path / run / "checkpoints" / "t0" / "model.safetensors") for run in "ab"]
    assert all(torch.equal(left[0][name], left[1][name]) for name in left[0])


def test_the_tail_is_held_out_and_labels_that_reach_into_it_are_purged():
    data = toy.FAMILY.dataset(None, *_sections(), {}, Path())
    data = replace(data, label_end=np.append(data.known_time[3:], [NO_LABEL] * 3))  # three rows ahead
    rows = FoldRows(train=np.arange(10, 110), validation=np.arange(120, 140))
    kept, held = hold_out(toy.ToyConfig(patience=1), data, rows)
    assert held.tolist() == list(range(100, 110))
    assert kept.train.tolist() == list(range(10, 97))
    assert kept.validation is rows.validation
    kept, held = hold_out(toy.ToyConfig(patience=1, stop_rows="validation"), data, rows)
    assert kept is rows
    assert held is rows.validation
    kept, held = hold_out(toy.ToyConfig(), data, rows)
    assert kept is rows
    assert len(held) == 0
    with pytest.raises(ValueError, match="patience: expected training rows beside the 1 that early stopping holds out"):
        hold_out(toy.ToyConfig(patience=1), data, replace(rows, train=np.arange(10, 12)))


def _sections():
    from trainables.data.config import DataConfig, FoldsConfig

    return DataConfig(**DATA), FoldsConfig(**FOLDS)
