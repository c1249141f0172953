from __future__ import annotations

import pytest
import torch

from trainables.training.schedule import effective_warmup, learning_rate_factor


@pytest.mark.requirement("TRAIN-1")
def test_cosine_rises_from_zero_to_the_peak_and_falls_to_the_floor():
    def factor(step: int) -> float:
        return learning_rate_factor("cosine", step, total_steps=20_000, warmup_steps=2_000, floor=0.01)

    assert factor(0) == 0.0
    assert factor(1_000) == 0.5
    assert factor(2_000) == 1.0
    assert factor(11_000) == pytest.approx(0.505)
    assert factor(20_000) == pytest.approx(0.01)
    rising = [factor(s) for s in range(0, 2_001, 100)]
    falling = [factor(s) for s in range(2_000, 20_001, 100)]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


@pytest.mark.requirement("TRAIN-1")
@pytest.mark.parametrize(("total", "expected"), [(4_000, 2_000), (3_999, 399), (100, 10), (5, 0)])
def test_a_warm_up_longer_than_half_of_all_steps_is_shortened_to_a_tenth(total, expected):
    assert effective_warmup(2_000, total) == expected


def test_constant_stays_at_the_peak_after_warm_up():
    factors = [learning_rate_factor("constant", s, total_steps=10, warmup_steps=4) for s in range(11)]
    assert factors == [0, 0.25, 0.5, 0.75, *[1.0] * 7]


def test_onecycle_is_that_of_torch():
    total = 51  # torch counts its steps from 0 to total - 1, so its last step is our end point
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    judge = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total, pct_start=16 / total)
    for step in range(total):
        ours = learning_rate_factor("onecycle", step, total_steps=total - 1, warmup_steps=15)
        assert ours == pytest.approx(judge.get_last_lr()[0], rel=1e-6, abs=1e-9)
        optimizer.step()
        if step < total - 1:
            judge.step()


@pytest.mark.parametrize("step", [-1, 11])
def test_a_step_outside_the_fold_is_refused(step):
    with pytest.raises(ValueError, match=r"expected a step in 0\.\.10"):
        learning_rate_factor("cosine", step, total_steps=10)
