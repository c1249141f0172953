"""Weights pass inside a fold or forward in time, and nowhere else (architecture decision 5)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.trainables.training.test_walk import _toy_family, assignment, weights  # noqa: F401
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.folds import FoldWindow
from trainables.errors import LeakError
from trainables.train import Ancestor, TrainFile, _parser, train
from trainables.training.inheritance import refuse_leak, source_fold
from trainables.training.walk import run_trial

instants = st.integers(0, 40)


@st.composite
def window(draw: st.DrawFn) -> FoldWindow:
    times = sorted(draw(st.lists(instants, min_size=3, max_size=3, unique=True)))
    return FoldWindow(
        index=draw(st.integers(0, 9)), train_start=times[0], train_end=times[1],
        validation_start=times[1], validation_end=times[2], vault_start=99,
    )  # fmt: skip


@given(window(), window())
def test_weights_that_pass_have_seen_no_row_that_the_fold_is_scored_on(source, target):
    try:
        refuse_leak(source, target)
    except LeakError:
        assert source != target
        assert source.train_end >= target.train_end
    else:
        seen = range(source.train_start, source.train_end)
        assert not set(seen) & set(range(target.validation_start, target.validation_end + 99))
        assert source == target or source.train_end < target.train_end


@given(st.lists(window(), min_size=1, max_size=6), st.data())
def test_a_lineage_of_allowed_steps_is_allowed_as_a_whole(chain, data):
    try:
        for source, target in pairwise(chain):
            refuse_leak(source, target)
    except LeakError:
        return
    seen = {row for w in chain for row in range(w.train_start, w.train_end)}
    assert not seen & set(range(chain[-1].validation_start, 200))


def windows(n: int) -> list[FoldWindow]:
    return [
        FoldWindow(
            index=k,
            train_start=0,
            train_end=10 + k,
            validation_start=10 + k,
            validation_end=11 + k,
            vault_start=99,
        )
        for k in range(n)
    ]


@given(st.integers(0, 4), st.integers(-2, 7))
def test_the_fold_of_the_parent_is_checked(fold, parent):
    inherit = {"trial_id": "t0001", "folds": [[fold, parent]]}
    if 0 <= parent <= fold:
        assert source_fold(inherit, fold, windows(5)) == parent
    else:
        with pytest.raises(LeakError, match="inherit: expected"):
            source_fold(inherit, fold, windows(5))
    assert source_fold(inherit, fold + 1, windows(6)) is None


def run(run_dir, trial_id, inherit=None, **changes):
    wanted = assignment(run_dir, trial_id=trial_id, ladder=((0, 1.0), (1, 1.0)), inherit=inherit or {}, **changes)
    options = {**wanted.options, "keep_fold_weights": True, "reuse_dir": str(run_dir / "results")}
    return list(run_trial(replace(wanted, options=options)))


def kept(run_dir, trial_id, fold):
    return safetensors.torch.load_file(run_dir / "weights" / trial_id / f"fold-{fold:02d}.safetensors")


def test_a_child_begins_each_fold_with_the_weights_of_its_parent(tmp_path):
    frozen = {"lr": 1e-30, "weight_decay": 0.0}
    run(tmp_path, "t0001")
    run(tmp_path, "t0002", {"trial_id": "t0001", "folds": [[0, 0], [1, 0]]}, config=frozen)
    for fold in (0, 1):
        for name, tensor in kept(tmp_path, "t0001", 0).items():
            torch.testing.assert_close(kept(tmp_path, "t0002", fold)[name], tensor, rtol=0, atol=1e-6)


def test_a_child_goes_on_from_where_its_parent_was(tmp_path):
    parent = run(tmp_path, "t0001", config={"epochs": 2})
    child = run(tmp_path, "t0002", {"trial_id": "t0001", "folds": [[0, 0], [1, 1]]}, config={"epochs": 2})
    orphan = run(tmp_path, "t0003", config={"epochs": 2}, seed=12)
    assert all(c.metrics["train_loss"] < p.metrics["train_loss"] for c, p in zip(child, parent, strict=True))
    assert not any(r.reused_from for r in child + orphan)
    twin = run(tmp_path, "t0004", {"trial_id": "t0001", "folds": [[0, 0], [1, 1]]}, config={"epochs": 2})
    assert [r.reused_from for r in twin] == [f"{tmp_path.name}/t0002"] * 2
    other = run(tmp_path, "t0005", {"trial_id": "t0003", "folds": [[0, 0], [1, 1]]}, config={"epochs": 2})
    assert not any(r.reused_from for r in other)


def test_a_lineage_is_trained_again_to_the_same_child(tmp_path):
    """What `best_config.yaml` says of a child leads to the child's own results (a search's and a retraining's)."""
    same = [[0, 0], [1, 1]]
    first = run(tmp_path / "search", "t0001")[-1]
    run(tmp_path / "search", "t0002", {"trial_id": "t0001", "folds": same}, config={"lr": 5e-3}, seed=4)
    wanted = run(tmp_path / "search", "t0007", {"trial_id": "t0002", "folds": [[0, 0], [1, 0]]}, config={"lr": 2e-3})
    given = assignment(tmp_path / "again")
    file = TrainFile(
        family="toy", config={"lr": 2e-3}, data=DataConfig(**given.data), folds=FoldsConfig(**given.folds), seed=11,
        n_folds=2, inherit=((0, 0), (1, 0)),
        lineage=(
            Ancestor(config={}, seed=11),
            Ancestor(config={"lr": 5e-3}, seed=4, inherit=((0, 0), (1, 1))),
        ),
    )  # fmt: skip
    flags = ["--out", str(tmp_path / "again"), "--engine", "plain", "--threads", "1", "--deterministic"]
    found = train(file, _parser().parse_args(flags), Console(quiet=True))
    assert [r.metrics["val_loss"] for r in found] == [r.metrics["val_loss"] for r in wanted]
    assert found[-1].metrics["val_loss"] != first.metrics["val_loss"]


def test_weights_of_a_later_fold_are_refused_before_anything_is_trained(tmp_path):
    run(tmp_path, "t0001")
    with pytest.raises(LeakError, match="which has trained on rows that fold 0 is scored on"):
        run(tmp_path, "t0002", {"trial_id": "t0001", "folds": [[0, 1], [1, 1]]})
    assert not (tmp_path / "evidence" / "t0002").exists()


def test_weights_of_another_shape_and_absent_ones_are_told(tmp_path):
    run(tmp_path, "t0001")
    with pytest.raises(ValueError, match="expected inherited weights of this model's shapes"):
        run(tmp_path, "t0002", {"trial_id": "t0001", "folds": [[0, 0], [1, 1]]}, config={"width": 7})
    with pytest.raises(FileNotFoundError, match="expected the weights of a complete fold"):
        run(tmp_path, "t0003", {"trial_id": "t0077", "folds": [[0, 0], [1, 1]]})
