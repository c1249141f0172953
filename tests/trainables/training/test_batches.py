from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.training.batches import StepPlan, Windows


@given(
    n=st.integers(4, 200),
    batch=st.integers(1, 40),
    accum=st.integers(1, 4),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_every_epoch_visits_every_row_once_in_even_pieces(n, batch, accum, epochs, seed):
    rows = np.arange(n) * 3
    plan = StepPlan(rows, batch_size=batch, accum_steps=accum, epochs=epochs, seed=seed)
    assert plan.n_steps == epochs * plan.steps_per_epoch
    for epoch in range(epochs):
        steps = [plan.micro_batches(epoch * plan.steps_per_epoch + i) for i in range(plan.steps_per_epoch)]
        assert sorted(np.concatenate([r for step in steps for r in step]).tolist()) == rows.tolist()
        totals = [sum(map(len, step)) for step in steps]
        assert max(totals) - min(totals) <= 1
        for step in steps:
            assert len(step) == accum
            assert max(map(len, step)) <= batch
            assert max(map(len, step)) - min(map(len, step)) <= 1


def test_rows_of_a_step_depend_on_seed_and_step_alone():
    def plan(seed: int) -> StepPlan:
        return StepPlan(np.arange(100), batch_size=7, accum_steps=2, epochs=3, seed=seed)

    forwards, backwards = plan(1), plan(1)
    there = [np.concatenate(forwards.micro_batches(i)) for i in range(forwards.n_steps)]
    back = [np.concatenate(backwards.micro_batches(i)) for i in reversed(range(forwards.n_steps))]
    assert all(np.array_equal(a, b) for a, b in zip(there, reversed(back), strict=True))
    assert not np.array_equal(there[0], np.concatenate(plan(2).micro_batches(0)))
    assert not np.array_equal(there[0], there[forwards.steps_per_epoch])


@given(n=st.integers(8, 200), run=st.integers(2, 4), accum=st.integers(1, 2), seed=st.integers(0, 9))
def test_runs_stay_whole_and_in_time_order(n, run, accum, seed):
    rows = np.arange(n) * 3
    plan = StepPlan(rows, batch_size=2 * run + 1, accum_steps=accum, epochs=2, seed=seed, run_length=run)
    micro_batches = [rows for step in range(plan.steps_per_epoch) for rows in plan.micro_batches(step)]
    for batch in micro_batches:
        assert len(batch) % run == 0
        assert len(batch) <= 2 * run
        assert (np.diff(batch.reshape(-1, run), axis=1) == 3).all()
    seen = np.concatenate(micro_batches)
    assert len(np.unique(seen)) == len(seen) == n // run * run


def test_a_micro_batch_smaller_than_a_run_is_refused():
    with pytest.raises(ValueError, match="at least one run of 16 rows, found 8"):
        StepPlan(np.arange(100), batch_size=8, accum_steps=1, epochs=1, seed=0, run_length=16)


def test_fewer_rows_than_micro_batches_are_refused():
    with pytest.raises(ValueError, match=r"training rows \(3\), found 4"):
        StepPlan(np.arange(3), batch_size=8, accum_steps=4, epochs=1, seed=0)


def test_batches_are_windows_and_the_targets_of_their_last_rows():
    features = np.arange(40, dtype=np.float32).reshape(20, 2)
    targets = np.arange(20, dtype=np.float32)[:, None]
    windows = Windows(features, targets, lookback=3, device=torch.device("cpu"), normalise=lambda w: w + 1)
    rows = np.array([7, 2, 19])
    batch = windows.batch(rows)
    for i, end in enumerate(rows):
        assert np.array_equal(batch.windows[i].numpy(), features[end - 2 : end + 1] + 1)
    assert batch.targets[:, 0].tolist() == [7, 2, 19]
    parts = list(windows.batches(np.arange(2, 20), 7))
    assert [len(part.targets) for part in parts] == [7, 7, 4]
    assert torch.cat([part.targets for part in parts])[:, 0].tolist() == list(range(2, 20))


@pytest.mark.requirement("TRAIN-2")
def test_first_steps_can_come_from_a_plan_of_their_own():
    rows, easy = np.arange(100), np.arange(0, 100, 2)
    plan, alone = (StepPlan(rows, batch_size=10, accum_steps=2, epochs=2, seed=0) for _ in range(2))
    plan.begin_with(StepPlan(easy, batch_size=10, accum_steps=2, epochs=1, seed=1), 6)
    taken = [np.concatenate(plan.micro_batches(step)) for step in range(plan.n_steps)]
    assert plan.n_steps == alone.n_steps == 10
    for step, found in enumerate(taken):
        if step < 6:
            assert np.isin(found, easy).all()
        else:
            np.testing.assert_array_equal(found, np.concatenate(alone.micro_batches(step)))
    visits = np.bincount(np.concatenate(taken[:6]), minlength=100)  # 120 rows of 50: two epochs and a part of a third
    assert visits[easy].min() >= 2
