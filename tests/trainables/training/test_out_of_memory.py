"""A trial that does not fit goes on once with half the micro-batch, and ends as out of memory the second time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.trainables.training import toy
from tests.trainables.training.test_walk import _toy_family, assignment, weights  # noqa: F401 - a fixture
from trainables.protocol import is_out_of_memory
from trainables.training.batches import StepPlan
from trainables.training.walk import run_trial
from trainables.training.workers import Workers

CONFIG = {"dropout": 0.0, "batch_size": 32, "epochs": 2}


@pytest.fixture
def memory(monkeypatch):
    """Make micro-batches above `most` windows not fit; returns the sizes that were tried."""
    sizes: list[int] = []

    def limit(most: int, error: Exception | None = None) -> list[int]:
        loss = toy.ToyFamily.loss

        def limited(self, config, outputs, batch):
            sizes.append(len(batch.targets))
            if len(batch.targets) > most:
                raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return loss(self, config, outputs, batch)

        monkeypatch.setattr(toy.ToyFamily, "loss", limited)
        return sizes

    return limit


@pytest.mark.requirement("SEARCH-9")
@pytest.mark.requirement("TRAIN-6")
@pytest.mark.parametrize("engine", ["plain", "deepspeed"])
def test_half_the_micro_batch_and_twice_the_accumulation_train_the_same(tmp_path, memory, engine):
    whole = list(run_trial(assignment(tmp_path / "a", engine=engine, config=CONFIG)))
    sizes = memory(most=16)
    split = list(run_trial(assignment(tmp_path / "b", engine=engine, config=CONFIG)))
    assert max(sizes) > 16 >= max(sizes[1:]), "one try with the whole micro-batch"
    assert [r.metrics["micro_batches"] for r in whole] == [1] * 4
    assert [r.metrics["micro_batches"] for r in split] == [2] * 4
    for before, after in zip(whole, split, strict=True):
        assert after.metrics["val_loss"] == pytest.approx(before.metrics["val_loss"], rel=1e-5)
        assert after.metrics["train_objective"] == pytest.approx(before.metrics["train_objective"], rel=1e-5)
    for name, tensor in weights(tmp_path / "a").items():
        torch.testing.assert_close(weights(tmp_path / "b")[name], tensor, rtol=1e-5, atol=1e-6)


def test_what_did_not_fit_in_a_later_fold_goes_on_from_the_checkpoint_and_stays_split(tmp_path, memory):
    reports = run_trial(assignment(tmp_path, config=CONFIG))
    before = [next(reports), next(reports)]
    sizes = memory(most=16)
    third = next(reports)
    reports.close()
    assert [r.rung for r in (*before, third)] == [0, 1, 2]
    assert third.metrics["micro_batches"] == 2
    sizes.clear()
    resumed = list(run_trial(assignment(tmp_path, config=CONFIG)))
    assert [r.rung for r in resumed] == [2, 3]
    assert max(sizes) <= 16, "a resumed trial does not try again what did not fit"


@pytest.mark.requirement("SEARCH-9")
@pytest.mark.parametrize(
    "error", [None, MemoryError("no more"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_the_second_time_it_is_over(tmp_path, memory, error):
    sizes = memory(most=7, error=error)
    with pytest.raises((torch.OutOfMemoryError, MemoryError, RuntimeError)) as caught:
        list(run_trial(assignment(tmp_path, config=CONFIG)))
    assert is_out_of_memory(caught.value)
    assert len(sizes) == 2


def test_a_micro_batch_of_one_has_no_half(tmp_path, memory):
    sizes = memory(most=0)
    with pytest.raises(torch.OutOfMemoryError):
        list(run_trial(assignment(tmp_path, config={**CONFIG, "batch_size": 1})))
    assert sizes == [1]


def test_other_errors_are_not_tried_again(tmp_path, memory):
    sizes = memory(most=7, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(run_trial(assignment(tmp_path, config=CONFIG)))
    assert len(sizes) == 1


def test_torch_itself_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.requirement("TRAIN-4")
@pytest.mark.parametrize(
    ("n", "batch", "accum", "split", "size"), [(100, 8, 2, 1, 2), (97, 6, 2, 2, 1), (9, 3, 1, 2, 2), (5, 1, 4, 1, 1)]
)
def test_weights_make_the_mean_over_parts_and_processes_the_mean_over_rows(n, batch, accum, split, size):
    rows, values = np.arange(n), np.random.default_rng(0).standard_normal(n)
    whole = StepPlan(rows, batch_size=batch * size, accum_steps=accum, epochs=1, seed=3)
    parts = [
        StepPlan(
            rows, batch_size=batch, accum_steps=accum, epochs=1, seed=3, split=split,
            workers=Workers(rank=rank, size=size),
        )
        for rank in range(size)
    ]  # fmt: skip
    assert {plan.n_steps for plan in parts} == {whole.n_steps}
    for number in range(whole.n_steps):
        expected = np.concatenate(whole.micro_batches(number))
        steps = [plan.step(number) for plan in parts]
        means = [
            np.mean([w * values[r].mean() for r, w in zip(s.micro_batches, s.weights, strict=True)]) for s in steps
        ]
        assert np.mean(means) == pytest.approx(values[expected].mean(), abs=1e-12)
        assert all(1 <= len(r) <= math.ceil(batch / split) for s in steps for r in s.micro_batches)
        assert all(len(s.micro_batches) == accum * split for s in steps)
