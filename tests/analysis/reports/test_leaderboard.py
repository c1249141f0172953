import csv

import numpy as np
import polars as pl
import pytest

from analysis.measures import ranking
from analysis.reports import leaderboard
from analysis.run_folder import RunFolder, write_plan, write_tables
from tests.analysis import fake_run
from tests.analysis.test_run_folder import row


def run_of(tmp_path, trials, folds=(), **plan):
    write_plan(tmp_path, fake_run.plan(**plan))
    write_tables(tmp_path, trials, folds)
    return RunFolder(tmp_path)


def loss(number, value, error=0.1, **more):
    return row(number, **{"metric.val_loss": value, "metric.val_loss.se": error}, **more)


@pytest.mark.requirement("RANK-1")
def test_only_complete_trials_rank_and_the_rest_is_listed_with_its_folds(tmp_path):
    board = leaderboard.build(RunFolder(fake_run.write(tmp_path / "run")))
    assert {e.state for e in board.ranked} == {"complete"}
    assert "complete" not in {e.state for e in board.unranked}
    assert len(board.ranked) + len(board.unranked) == len(fake_run.STATES)
    folds = [e.n_folds for e in board.unranked]
    assert folds == sorted(folds, reverse=True)
    assert board.counts()["stopped"] == 15


@pytest.mark.requirement("RANK-1")
def test_the_order_is_that_of_the_measure(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    board = leaderboard.build(run)
    complete = run.trials.filter(pl.col("state") == "complete").sort("number")
    names = [c.metric for c in board.criteria]
    assert names == ["val_loss", "ic", "crps"]  # flatness has told nothing here
    values, errors = (complete.select(f"metric.{n}{end}" for n in names).to_numpy() for end in ("", ".se"))
    expected = ranking.rank(values, errors, [c.direction for c in board.criteria])
    assert [e.rank for e in sorted(board.ranked, key=lambda e: e.number)] == expected.tolist()


def test_ties_are_ties_and_a_single_fold_has_no_error(tmp_path):
    board = leaderboard.build(run_of(tmp_path, [loss(0, 2.0, None), loss(1, 1.0, None), loss(2, 2.0, None)]))
    assert [(e.trial_id, e.rank, e.is_tied) for e in board.ranked] == [
        ("t0001", 1, False),
        ("t0000", 2, True),
        ("t0002", 2, True),
    ]
    assert [e.is_indistinct for e in board.ranked] == [True, False, False]


def test_distance_to_the_leader_is_paired_over_folds(tmp_path):
    values = {"t0000": [1.0, 5.0, 9.0], "t0001": [1.5, 5.4, 9.3]}
    folds = [
        {"trial_id": t, "fold": k, "metric": "val_loss", "value": v, "n_scored": 10}
        for t, losses in values.items()
        for k, v in enumerate(losses)
    ]
    board = leaderboard.build(run_of(tmp_path, [loss(0, 5.0, 2.3), loss(1, 5.4, 2.3)], folds))
    gap = np.array([0.5, 0.4, 0.3])
    assert board.ranked[1].is_indistinct
    assert board.ranked[1].behind.mean == pytest.approx(gap.mean())
    assert board.ranked[1].behind.error == pytest.approx(gap.std(ddof=1) / np.sqrt(3))
    assert board.leader.behind.mean == 0.0


def test_documented_order_is_an_option_and_an_unknown_one_is_refused(tmp_path):
    trials = [loss(0, 1.0, **{"metric.curve_flatness": 2.0}), loss(1, 1.01, **{"metric.curve_flatness": 1.0})]
    board = leaderboard.build(run_of(tmp_path, trials, order="condor_doc"))
    assert [e.trial_id for e in board.ranked] == ["t0001", "t0000"]
    with pytest.raises(ValueError, match="order: expected one of merged, condor_doc, found 'best'"):
        leaderboard.build(run_of(tmp_path, trials, order="best"))


def test_a_run_in_which_nothing_completed(tmp_path):
    board = leaderboard.build(run_of(tmp_path, [row(0, state="failed", n_folds=0)]))
    assert (board.leader, board.indistinct, board.counts()) == (None, [], {"failed": 1})


@pytest.mark.requirement("RANK-2")
def test_ranking_csv_has_a_row_for_each_trial(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    board = leaderboard.build(run)
    leaderboard.write_csv(run, board)
    with (run.path / "ranking.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(fake_run.STATES)
    assert rows[0]["trial_id"] == board.leader.trial_id
    assert float(rows[0]["val_loss"]) == board.leader.values["val_loss"]
    assert rows[-1]["rank"] == ""
    assert {"val_loss_se", "ic", "crps", "flatness", "behind_leader", "pareto", "lr"} <= set(rows[0])


@pytest.mark.requirement("RANK-1")
def test_a_tie_is_led_by_the_lowest_loss_and_stays_a_tie(tmp_path):
    board = leaderboard.build(run_of(tmp_path, [loss(0, 1.02, 0.5), loss(1, 1.0, 0.5), loss(2, 1.01, 0.5)]))
    assert [e.trial_id for e in board.ranked] == ["t0001", "t0002", "t0000"]
    assert {e.rank for e in board.ranked} == {1}
