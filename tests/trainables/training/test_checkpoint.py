"""Checkpoints under the faults F19, F21, F22 and F24: what validates is whole, and one always does."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

import pytest
import torch

from trainables.protocol import RungReport
from trainables.training import checkpoint as module
from trainables.training.checkpoint import Checkpoint, CheckpointMismatch, newest_checkpoint, write_checkpoint
from trainables.training.engine import EngineState

IDENTITY = {"family": "toy", "config": {"lr": 0.1, "width": 4}, "seed": 3}


def checkpoint(rung: int) -> Checkpoint:
    flat = torch.arange(20, dtype=torch.float32) + rung
    weights = {"a.weight": flat[:12].view(3, 4), "a.bias": flat[12:15], "count": torch.tensor(rung)}
    report = RungReport(
        rung=rung, fold=rung // 2, share=0.5, metrics={"val_loss": 0.25 * rung}, n_scored=9, seconds=1.5
    )
    return Checkpoint(
        report=report,
        step=10 * rung,
        completed=(report,),
        engine=EngineState(weights=weights, moments={"exp_avg": {"a.bias": flat[15:18]}}, updates=rung),
        random={"torch": torch.get_rng_state()},
        stability={"n_steps": rung},
    )


def write(folder, *rungs, keep=2):
    for rung in rungs:
        write_checkpoint(folder, checkpoint(rung), IDENTITY, keep=keep)


def assert_is(found, rung):
    expected = checkpoint(rung)
    assert (found.report, found.step, found.completed) == (expected.report, expected.step, expected.completed)
    assert found.stability == expected.stability
    assert found.engine.updates == rung
    for name, tensor in expected.engine.weights.items():
        assert torch.equal(found.engine.weights[name], tensor)
    assert torch.equal(found.engine.moments["exp_avg"]["a.bias"], expected.engine.moments["exp_avg"]["a.bias"])


def test_what_was_written_is_read_back_and_only_the_newest_two_stay(tmp_path):
    assert newest_checkpoint(tmp_path / "none", IDENTITY) is None
    write(tmp_path, 1, 2, 3)
    assert_is(newest_checkpoint(tmp_path, IDENTITY), 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rung-0002", "rung-0003"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", [module.TENSORS, module.PLACE, module.MANIFEST])
def test_a_truncated_checkpoint_is_passed_over(tmp_path, caplog, name, share):
    write(tmp_path, 1, 2)
    file = tmp_path / "rung-0002" / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert_is(newest_checkpoint(tmp_path, IDENTITY), 1)
    assert "rung-0002: expected a whole checkpoint" in caplog.text


def test_one_flipped_bit_is_found(tmp_path):
    write(tmp_path, 1, 2)
    file = tmp_path / "rung-0002" / module.TENSORS
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert_is(newest_checkpoint(tmp_path, IDENTITY), 1)
    write(tmp_path, 2)
    assert_is(newest_checkpoint(tmp_path, IDENTITY), 2)


def test_without_a_manifest_there_is_no_checkpoint(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "rung-0001" / module.MANIFEST).unlink()
    assert newest_checkpoint(tmp_path, IDENTITY) is None


@pytest.mark.parametrize("failing", range(1, 7))
@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path, monkeypatch, function, failing):
    write(tmp_path, 1)
    calls = 0
    original = getattr(os, function)

    def fail(*args):
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*args)

    monkeypatch.setattr(os, function, fail)
    with contextlib.suppress(OSError):  # with few calls to the function, the last cases fail nowhere
        write(tmp_path, 2)
    monkeypatch.setattr(os, function, original)
    found = newest_checkpoint(tmp_path, IDENTITY)
    assert_is(found, found.report.rung)
    assert not list(tmp_path.glob(".*"))


def test_a_crash_before_the_old_ones_are_deleted_leaves_valid_ones(tmp_path, monkeypatch):
    write(tmp_path, 1, 2)

    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 3)
    assert_is(newest_checkpoint(tmp_path, IDENTITY), 2)


def test_another_configuration_is_refused_naming_the_fields(tmp_path):
    write(tmp_path, 1)
    other = {"family": "toy", "config": {"lr": 0.2, "width": 4, "depth": 1}, "seed": 3}
    with pytest.raises(CheckpointMismatch) as caught:
        newest_checkpoint(tmp_path, other)
    assert "config.depth: None there, 1 here; config.lr: 0.1 there, 0.2 here; use another run folder" in str(
        caught.value
    )
    assert "width" not in str(caught.value)
