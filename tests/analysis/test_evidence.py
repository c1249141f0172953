import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from analysis import evidence
from analysis.run_folder import RunFolder
from tests.analysis import fake_run

STATES = ("complete",) * 6 + ("stopped",) * 3


@pytest.fixture
def run_dir(tmp_path):
    return fake_run.write(tmp_path / "run", states=STATES)


def complete(run_dir):
    run = RunFolder(run_dir)
    return run.trials.filter(pl.col("state") == "complete").sort("number")["trial_id"].to_list()


def change(run_dir, trial, fold, function):
    file = run_dir / "evidence" / trial / f"fold-{fold:02d}.parquet"
    function(pl.read_parquet(file)).write_parquet(file)


def test_all_complete_trials_stand_on_the_same_timestamps(run_dir):
    found, left_out = evidence.gather(RunFolder(run_dir))
    assert list(found.trial_ids) == complete(run_dir)
    assert found.loss_TK.dtype == np.float32
    assert found.loss_TK.shape == found.signal_TK.shape == (6 * 126, 6)
    assert left_out == evidence.LeftOut()
    own = RunFolder(run_dir).evidence(found.trial_ids[2])
    assert np.array_equal(found.loss_TK[:, 2], own["loss"].to_numpy())
    assert found.signal_TK[:, 2].mean() == pytest.approx(
        spearmanr(own["prediction_1d"], own["target_1d"]).statistic, abs=1e-5
    )
    folds = RunFolder(run_dir).folds.filter(
        (pl.col("trial_id") == found.trial_ids[2]) & (pl.col("metric") == "val_loss")
    )
    assert np.allclose(found.fold_means()[0][:, 2], folds.sort("fold")["value"], rtol=1e-5)


def test_a_few_missing_rows_shorten_all_and_many_leave_the_trial_out(run_dir):
    names = complete(run_dir)
    change(run_dir, names[0], 2, lambda frame: frame.head(120))
    for fold in range(3):
        change(run_dir, names[1], fold, lambda frame: frame.head(40))
    found, left_out = evidence.gather(RunFolder(run_dir))
    assert names[1] not in found.trial_ids
    assert left_out.short == ((names[1], pytest.approx((6 * 126 - 3 * 86) / (6 * 126))),)
    assert len(found.timestamp) == 6 * 126 - 6
    own = RunFolder(run_dir).evidence(names[2])
    kept = own.filter(pl.col("timestamp").dt.epoch("ns").is_in(found.timestamp))
    column = found.trial_ids.index(names[2])
    assert np.array_equal(found.loss_TK[:, column], kept["loss"].to_numpy())


def test_each_reason_is_named(run_dir):
    names = complete(run_dir)
    for file in (run_dir / "evidence" / names[0]).iterdir():
        file.unlink()
    cut = run_dir / "evidence" / names[1] / "fold-03.parquet"
    cut.write_bytes(cut.read_bytes()[:-40])
    change(run_dir, names[2], 1, lambda frame: frame.with_columns(loss=pl.lit(math.inf, pl.Float32)))
    for fold in range(6):
        change(run_dir, names[3], fold, lambda frame: frame.with_columns(loss=pl.lit(0.5, pl.Float32)))
        change(run_dir, names[4], fold, lambda frame: frame.with_columns(prediction_1d=pl.lit(0.1, pl.Float32)))
    found, left_out = evidence.gather(RunFolder(run_dir))
    assert found.trial_ids == (names[4], names[5])
    assert left_out.missing == (names[0],)
    assert left_out.broken[0] == (names[1], "fold-03.parquet cannot be read")
    assert left_out.broken[1][0] == names[2]
    assert "expected finite losses, found 126 of 756" in left_out.broken[1][1]
    assert left_out.constant_loss == (names[3],)
    assert left_out.constant_prediction == (names[4],)
    assert not found.signal_TK[:, 0].any()
    assert found.n_expected == 6


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda frame: frame.drop("loss"), "fold-00.parquet cannot be read"),
        (lambda frame: frame.with_columns(prediction_1d=pl.lit(math.inf, pl.Float32)), "expected finite predictions"),
        (lambda frame: frame.with_columns(timestamp=frame["timestamp"].reverse()), "timestamps that increase"),
        (lambda frame: frame.clear(), "increase|finite losses|cannot be compared|expected"),
    ],
    ids=["no loss", "infinite", "unsorted", "empty"],
)
def test_unusable_evidence_says_why(run_dir, function, why):
    name = complete(run_dir)[0]
    for fold in range(6):
        change(run_dir, name, fold, function)
    found, left_out = evidence.gather(RunFolder(run_dir))
    assert name not in found.trial_ids
    ((trial, reason),) = left_out.broken
    assert trial == name
    assert pytest.importorskip("re").search(why, reason)


def test_other_columns_leave_the_comparison_with_the_naive_forecast_out(run_dir):
    name = complete(run_dir)[0]
    for fold in range(6):
        change(run_dir, name, fold, lambda frame: frame.drop("scale_1d"))
    found, _ = evidence.gather(RunFolder(run_dir))
    assert found.advantage_TK is None
    assert found.measure == ""
    assert found.signal_TK is not None


def test_profit_is_read_where_all_have_it(run_dir):
    for name in complete(run_dir):
        for fold in range(6):
            change(run_dir, name, fold, lambda frame: frame.with_columns(pnl=pl.col("target_1d")))
    assert evidence.gather(RunFolder(run_dir))[0].pnl_TK.shape == (756, 6)


@pytest.mark.parametrize("states", [("failed",), ("stopped", "stopped")])
def test_nothing_complete_is_nothing(tmp_path, states):
    found, left_out = evidence.gather(RunFolder(fake_run.write(tmp_path / "run", states=states)))
    assert found is None
    assert left_out == evidence.LeftOut()
