from __future__ import annotations

import numpy as np
import pytest

from analysis.measures.importance import axis
from analysis.reports import flat, leaderboard
from analysis.run_folder import RunFolder
from tests.analysis import fake_run
from tests.analysis.reports.test_leaderboard import loss, run_of


def run_in_which_flatness(tmp_path, *, tells: bool, n_trials: int = 30, n_folds: int = 6) -> RunFolder:
    """A run in which sharp folds are followed by high losses, or not."""
    generator = np.random.default_rng(2)
    sharp = generator.standard_normal((n_folds, n_trials))
    losses = 1 + 0.2 * generator.standard_normal((n_folds, n_trials))
    if tells:
        losses[1:] += sharp[:-1]
    folds = [
        {"trial_id": f"t{t:04d}", "fold": k, "metric": metric, "value": float(values[k, t]), "n_scored": 50}
        for metric, values in (("val_loss", losses), ("flatness", np.exp(sharp)))
        for t in range(n_trials)
        for k in range(n_folds)
    ]
    trials = [loss(t, 1.0, 0.5, **{"metric.flatness": float(np.exp(sharp[:, t]).mean())}) for t in range(n_trials)]
    return run_of(tmp_path, trials, folds)


@pytest.mark.requirement("SEARCH-7", "RANK-1")
def test_flatness_breaks_ties_where_it_told_of_the_next_fold(tmp_path):
    board = leaderboard.build(run_in_which_flatness(tmp_path, tells=True))
    assert board.foresight.is_told
    assert [c.metric for c in board.criteria] == ["val_loss", "flatness"]
    values = [e.values["flatness"] for e in board.ranked]
    assert values[0] == min(values)  # all losses are equal
    assert "flatness breaks ties here" in flat.sentences(board, None)[0]


@pytest.mark.requirement("RANK-1", "ANALYSIS-6")
def test_flatness_that_told_nothing_decides_nothing_and_ties_stay_ties(tmp_path):
    board = leaderboard.build(run_in_which_flatness(tmp_path, tells=False))
    assert board.is_flatness_silent
    assert [c.metric for c in board.criteria] == ["val_loss"]
    assert {e.rank for e in board.ranked} == {1}
    assert "flatness decides nothing here" in flat.sentences(board, None)[0]


def test_with_too_few_trials_it_is_not_asked_and_that_is_said(tmp_path):
    board = leaderboard.build(run_in_which_flatness(tmp_path, tells=True, n_trials=4))
    assert board.foresight is None
    assert "could not be asked" in flat.sentences(board, None)[0]


def test_the_neighbours_of_the_winner_are_named(tmp_path):
    places = np.linspace(0, 1, 12)
    losses = np.where(np.arange(12) == 6, 0.0, 1.0 + places)
    board = leaderboard.build(run_of(tmp_path, [loss(k, float(v)) for k, v in enumerate(losses)]))
    order = [int(e.trial_id[1:]) for e in board.ranked]
    alone = flat.around({"x": axis(list(places[order]), low=0, high=1)}, board.ranked)
    (text,) = flat.sentences(board, alone)
    assert "stands alone among its neighbours" in text
    assert "t0005" in text
    assert "t0007" in text


def test_a_run_without_flatness_says_nothing_of_it(tmp_path):
    board = leaderboard.build(run_of(tmp_path, [loss(0, 1.0), loss(1, 2.0)]))
    assert flat.sentences(board, None) == []
    assert flat.foresights(RunFolder(tmp_path), board) == {}


def test_every_measure_of_a_run_is_asked(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    found = flat.foresights(run, leaderboard.build(run))
    assert set(found) == {"flatness"}
    assert found["flatness"].n_trials == 14


def test_neighbours_that_are_all_other_trials_say_nothing(tmp_path):
    places = np.linspace(0, 1, 5)
    board = leaderboard.build(run_of(tmp_path, [loss(k, 1.0 + float(v)) for k, v in enumerate(places)]))
    near = flat.around({"x": axis(list(places), low=0, high=1)}, board.ranked)
    assert len(near.neighbours) == 4
    assert flat.sentences(board, near) == []
