from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from trainables.training.batches import Windows
from trainables.training.evaluation import (
    GRADIENTS_OF_FLATNESS,
    flatness_rows,
    loss_blocks,
    sample_rows,
    score_metrics,
    training_metrics,
)
from trainables.training.evidence import write_evidence
from trainables.training.family import Score
from trainables.training.options import RunOptions


class Quadratic(nn.Module):
    """Gives the same prediction, the sum of its weights times constants, for every row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, windows):
        return self.weight.expand(len(windows), 2)


class QuadraticFamily:
    def reference_loss(self, config, outputs, batch):
        return 0.5 * (outputs**2 * torch.tensor([1.0, 3.0])).sum(dim=1)


@pytest.mark.requirement("ANALYSIS-6")
def test_flatness_is_the_top_eigenvalue_over_the_loss():
    windows = Windows(
        np.zeros((9, 1), np.float32), np.zeros((9, 1), np.float32), lookback=1, device=torch.device("cpu")
    )
    metrics = training_metrics(QuadraticFamily(), None, Quadratic(), windows, np.arange(9), flatness_steps=4)
    loss = 0.5 * (1 * 1**2 + 3 * 2**2)
    assert metrics == {
        "train_loss": pytest.approx(loss),
        "flatness": pytest.approx(3 / loss, rel=1e-3),
        "flatness_adaptive": pytest.approx(3 * 2**2 / loss, rel=1e-3),  # diag(w) H diag(w) at w = (1, 2)
        "flatness_trace": pytest.approx((1 + 3) / loss, rel=1e-3),
        "flatness_sam": pytest.approx(0.1, abs=0.02),  # a step of 5 % of the norm, uphill
        **dict.fromkeys(("flatness_relative", "flatness_low_pass", "flatness_random"), 0.0),  # the weight is a vector
    }
    without = training_metrics(QuadraticFamily(), None, Quadratic(), windows, np.arange(9), flatness_steps=0)
    assert without == {"train_loss": pytest.approx(loss)}


@pytest.mark.requirement("ANALYSIS-6")
@pytest.mark.parametrize(("n_train", "n_rows"), [(100, 128), (300_000, 389), (10_000_000, 1024)])
def test_flatness_costs_at_most_a_tenth_of_an_epoch_where_there_are_rows_enough(n_train, n_rows):
    options = RunOptions(flatness_steps=10)
    assert flatness_rows(n_train, options) == n_rows
    if n_train > 100:
        assert n_rows * (GRADIENTS_OF_FLATNESS + 4 * 10) <= 0.1 * n_train


def test_constant_predictions_have_no_information_coefficient():
    target = np.arange(5, dtype=np.float32)
    constant = Score(loss=np.ones(5, np.float32), crps=None, forecasts={"1d": (np.ones(5, np.float32), target)})
    assert score_metrics(constant) == {"val_loss": 1.0}
    mixed = Score(
        loss=np.ones(5, np.float32),
        crps=target,
        forecasts={"1d": (np.ones(5, np.float32), target), "2d": (target, target), "3d": (-target, target)},
        metrics={"undefined": float("nan"), "known": 0.5},
    )
    assert score_metrics(mixed) == {"val_loss": 1.0, "crps": 2.0, "ic_2d": 1.0, "ic_3d": -1.0, "ic": 0.0, "known": 0.5}


def test_the_sample_is_the_same_whoever_asks():
    rows = np.arange(1000)
    assert np.array_equal(sample_rows(rows, 50, 3), sample_rows(rows, 50, 3))
    assert len(np.unique(sample_rows(rows, 50, 3))) == 50
    assert np.array_equal(sample_rows(rows, 5000, 3), rows)


def test_evidence_of_unequal_lengths_is_refused_and_nothing_is_written(tmp_path):
    score = Score(loss=np.ones(4, np.float32), crps=None, forecasts={})
    with pytest.raises(ValueError, match=r"evidence\.loss: expected 5 rows, found 4"):
        write_evidence(tmp_path / "fold-00.parquet", np.arange(5), score, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.requirement("SEARCH-14")
def test_blocks_are_means_over_equal_stretches_in_time_order():
    loss = np.arange(32, dtype=np.float32)
    assert loss_blocks(loss) == tuple(2 * k + 0.5 for k in range(16))
    assert loss_blocks(loss[:3]) == (0.0, 1.0, 2.0)
    odd = np.random.default_rng(1).random(1000, dtype=np.float32)
    assert len(loss_blocks(odd)) == 16
    assert loss_blocks(odd)[0] == pytest.approx(odd[:63].mean(dtype=np.float64), rel=1e-8)
