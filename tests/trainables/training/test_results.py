"""Fold results are taken over where everything that made them is equal, and only there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.trainables.training import toy
from tests.trainables.training.test_walk import _toy_family, assignment, weights  # noqa: F401
from trainables.training import results
from trainables.training.artifact import load_model, load_training_metrics
from trainables.training.fold import FoldTraining
from trainables.training.walk import run_trial


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """Folds that were really trained since."""
    folds: list[int] = []
    begin = FoldTraining.__init__

    def counting(self, *args, fold, **named):
        folds.append(fold)
        begin(self, *args, fold=fold, **named)

    monkeypatch.setattr(FoldTraining, "__init__", counting)
    return folds


def reusing(run_dir: Path, **changes):
    given = assignment(run_dir, **changes)
    return replace(given, options={**given.options, "reuse_dir": str(run_dir.parent / "results")})


def test_an_equal_trial_of_another_run_trains_nothing_and_leaves_the_same_files(tmp_path, trained):
    first = list(run_trial(reusing(tmp_path / "a")))
    assert trained == [0, 1]
    again = list(run_trial(reusing(tmp_path / "b", trial_id="t0009")))
    assert trained == [0, 1]
    assert [r.reused_from for r in again] == ["a/t0003"] * 4
    assert [replace(r, reused_from="", seconds=r0.seconds) for r, r0 in zip(again, first, strict=True)] == first
    for fold in (0, 1):
        old, new = (
            pq.read_table(tmp_path / run / "evidence" / trial / f"fold-{fold:02d}.parquet")
            for run, trial in (("a", "t0003"), ("b", "t0009"))
        )
        assert new.equals(old)
    model = load_model(tmp_path / "b" / "checkpoints" / "t0009")
    assert model.description["trial_id"] == "t0009"
    assert all(torch.equal(t, model.model.state_dict()[n]) for n, t in weights(tmp_path / "a").items())
    assert [r.fold for r in load_training_metrics(tmp_path / "b" / "checkpoints" / "t0009")] == [0, 1]
    assert load_model(tmp_path / "a" / "checkpoints" / "t0003").description["trial_id"] == "t0003"


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"lr": 2e-3}},
        {"seed": 12},
        {"ladder": ((0, 0.25), (0, 1.0), (1, 0.25), (1, 1.0))},
        {"folds": {"train_months": 18, "validation_months": 2, "test_months": 2, "embargo_days": 9}},
        {"data": {"source": "arch_sp500", "start": "2016-01-01", "end": "2018-02-01"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_is_trained(tmp_path, trained, change):
    list(run_trial(reusing(tmp_path / "a", ladder=((0, 0.5), (0, 1.0), (1, 0.5), (1, 1.0)))))
    changed = list(run_trial(reusing(tmp_path / "b", **change)))
    assert trained[:3] == [0, 1, 0]
    assert not any(report.reused_from for report in changed)


def test_other_code_trains_again(tmp_path, trained, monkeypatch):
    list(run_trial(reusing(tmp_path / "a")))
    monkeypatch.setattr("trainables.training.visit.code_digest", lambda family: "changed")
    list(run_trial(reusing(tmp_path / "b")))
    assert trained == [0, 1, 0, 1]


def test_the_digest_follows_the_family_and_what_is_shared():
    digests = {family: results.code_digest(family) for family in ("mlp", "condor", "toy")}
    assert len(set(digests.values())) == 3
    assert all(len(digest) == 64 for digest in digests.values())


def test_folds_that_a_longer_ladder_adds_are_trained_and_the_others_are_not(tmp_path, trained):
    list(run_trial(reusing(tmp_path / "a", ladder=((0, 1.0),))))
    longer = list(run_trial(reusing(tmp_path / "b", ladder=((0, 1.0), (1, 1.0)))))
    assert [bool(r.reused_from) for r in longer] == [True, False]
    shorter = list(run_trial(reusing(tmp_path / "c", ladder=((0, 1.0),))))
    assert [r.reused_from for r in shorter] == ["a/t0003"]
    assert load_model(tmp_path / "c" / "checkpoints" / "t0003")


def test_a_fold_without_its_model_cannot_be_the_last(tmp_path, trained):
    list(run_trial(reusing(tmp_path / "a", ladder=((0, 1.0), (1, 1.0)))))
    shorter = list(run_trial(reusing(tmp_path / "b", ladder=((0, 1.0),))))
    assert [r.reused_from for r in shorter] == [""]
    assert trained == [0, 1, 0]
    list(run_trial(reusing(tmp_path / "c", ladder=((0, 1.0),))))
    assert trained == [0, 1, 0]


@pytest.mark.parametrize("name", [results.EVIDENCE, results.REPORTS, results.MANIFEST])
def test_a_damaged_result_is_trained_again_and_replaced(tmp_path, trained, name, caplog):
    list(run_trial(reusing(tmp_path / "a", ladder=((0, 1.0),))))
    (file,) = (tmp_path / "results").rglob(name)
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    list(run_trial(reusing(tmp_path / "b", ladder=((0, 1.0),))))
    assert trained == [0, 0]
    assert "expected a whole result" in caplog.text
    list(run_trial(reusing(tmp_path / "c", ladder=((0, 1.0),))))
    assert trained == [0, 0]


def test_a_crash_while_keeping_leaves_nothing_that_is_believed(tmp_path, trained, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("trainables.training.results.os.rename", crash)
    with pytest.raises(KeyboardInterrupt):
        results.keep_result(tmp_path / "results", "ab" * 32, [], {results.EVIDENCE: Path(__file__)}, origin="x")
    assert results.find_result(tmp_path / "results", "ab" * 32, []) is None


def test_a_store_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "results").write_text("in the way")
    reports = list(run_trial(reusing(tmp_path / "a", ladder=((0, 1.0),))))
    assert len(reports) == 1
    assert "it will be trained again" in caplog.text


def test_files_are_linked_and_never_written_in_place(tmp_path):
    list(run_trial(reusing(tmp_path / "a", ladder=((0, 1.0),))))
    list(run_trial(reusing(tmp_path / "b", ladder=((0, 1.0),))))
    (stored,) = (tmp_path / "results").rglob(results.EVIDENCE)
    copies = [tmp_path / run / "evidence" / "t0003" / "fold-00.parquet" for run in "ab"]
    assert {os.stat(path).st_ino for path in copies} == {os.stat(stored).st_ino}
    kept = json.loads((stored.parent / results.MANIFEST).read_text())
    assert set(kept["files"]) == {results.EVIDENCE, results.REPORTS, "model.json", "model.safetensors"}


def test_a_trial_that_was_killed_among_reused_folds_goes_on(tmp_path, trained):
    whole = list(run_trial(reusing(tmp_path / "a")))
    killed = run_trial(reusing(tmp_path / "b"))
    next(killed)
    killed.close()
    again = list(run_trial(reusing(tmp_path / "b")))
    assert trained == [0, 1]
    assert [r.metrics for r in again] == [r.metrics for r in whole]
    assert toy.without_times(replace(r, reused_from="") for r in again) == toy.without_times(whole)
