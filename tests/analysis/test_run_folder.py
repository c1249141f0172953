import json
import math
import os

import polars as pl
import pytest

from analysis import atomic
from analysis.run_folder import RunFolder, RunFolderError, write_plan, write_tables
from tests.analysis import fake_run


@pytest.fixture
def run_dir(tmp_path):
    return fake_run.write(tmp_path / "run")


def row(number: int = 0, **more):
    base = {"trial_id": f"t{number:04d}", "number": number, "state": "complete", "origin": "random", "generation": 0}
    return base | {"parents": "[]", "reason": "", "seed": 1, "attempts": 1, "seconds": 1.0, "n_folds": 2} | more


def test_tables_come_back_with_types_of_their_own(tmp_path):
    trials = [
        row(
            0,
            **{
                "param.lr": 0.1,
                "param.n": 2,
                "param.on": True,
                "param.kind": "a",
                "param.mixed": 1,
                "param.many": [1, 2],
            },
        ),
        row(1, **{"param.lr": 1, "param.kind": "b", "param.mixed": "auto", "metric.ic": math.nan, "metric.ic.se": 0.1}),
    ]
    write_tables(tmp_path, trials, [])
    found = pl.read_parquet(tmp_path / "trials.parquet")
    types = {name: found.schema[f"param.{name}"] for name in ("lr", "n", "on", "kind", "mixed", "many")}
    assert types == {
        "lr": pl.Float64,
        "n": pl.Int64,
        "on": pl.Boolean,
        "kind": pl.String,
        "mixed": pl.String,
        "many": pl.String,
    }
    assert found["param.mixed"].to_list() == ["1", '"auto"']
    assert found["param.n"].to_list() == [2, None]
    assert found["metric.ic"].to_list() == [None, None]
    assert found["metric.ic.se"].to_list() == [None, 0.1]


def test_a_search_without_trials_has_tables_all_the_same(tmp_path):
    write_plan(tmp_path, fake_run.plan())
    write_tables(tmp_path, [], [])
    run = RunFolder(tmp_path)
    assert (len(run.trials), len(run.folds), run.parameters) == (0, 0, ())


def test_columns_outside_the_contract_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found \['colour'\]"):
        write_tables(tmp_path, [row(colour="red")], [])
    incomplete = row()
    del incomplete["seed"]
    with pytest.raises(ValueError, match=r"trials: row 0.*missing \['seed'\]"):
        write_tables(tmp_path, [incomplete], [])
    assert not list(tmp_path.iterdir())


def test_plan_keeps_what_it_does_not_know_and_refuses_gaps_and_nan(tmp_path, run_dir):
    plan = RunFolder(run_dir).plan
    assert plan.more == {"optimizer": "tpe"}
    assert plan.marks["chain"] == "modelled by Black-Scholes"
    short = fake_run.plan()
    del short["marks"]
    with pytest.raises(ValueError, match="missing marks"):
        write_plan(tmp_path, short)
    with pytest.raises(ValueError, match="JSON"):
        write_plan(tmp_path, fake_run.plan(wall_s=math.nan))


def test_evidence_is_one_table_over_folds_in_time_order(run_dir):
    run = RunFolder(run_dir)
    complete = run.trials.filter(pl.col("state") == "complete")["trial_id"][0]
    evidence = run.evidence(complete)
    assert len(evidence) == 126 * fake_run.N_FOLDS
    assert evidence["fold"].unique().to_list() == list(range(fake_run.N_FOLDS))
    assert evidence["timestamp"].is_sorted()
    assert run.evidence("t9999") is None


def test_missing_and_broken_evidence_is_named_and_counted(run_dir):
    complete = RunFolder(run_dir).trials.filter(pl.col("state") == "complete")["trial_id"].to_list()
    for file in (run_dir / "evidence" / complete[0]).iterdir():
        file.unlink()
    cut = run_dir / "evidence" / complete[1] / "fold-02.parquet"
    cut.write_bytes(cut.read_bytes()[:-40])
    run = RunFolder(run_dir)
    check = run.check_evidence()
    assert check.missing == (complete[0],)
    assert [file for file, _ in check.broken] == [f"evidence/{complete[1]}/fold-02.parquet"]
    assert check.n_expected == run.trials.filter(pl.col("n_folds") > 0).height
    with pytest.raises(RunFolderError, match=r"fold-02.parquet: expected a Parquet file"):
        run.evidence(complete[1])


def test_evidence_without_its_columns_is_refused(run_dir):
    pl.DataFrame({"timestamp": [1]}).write_parquet(run_dir / "evidence" / "odd.parquet")
    folder = run_dir / "evidence" / "t0099"
    folder.mkdir()
    os.replace(run_dir / "evidence" / "odd.parquet", folder / "fold-00.parquet")
    with pytest.raises(RunFolderError, match="expected the columns loss"):
        RunFolder(run_dir).evidence("t0099")


def spoil(name: str, content: bytes | None):
    def change(run_dir):
        (run_dir / name).unlink()
        if content is not None:
            (run_dir / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("plan.json", None), "plan.json: expected a plan.*is this a run folder"),
        (spoil("plan.json", b"{"), "plan.json: expected JSON"),
        (spoil("plan.json", b"[]"), "expected format 1, found list"),
        (spoil("plan.json", json.dumps({"format": 2}).encode()), "expected format 1, found 2"),
        (spoil("plan.json", json.dumps({"format": 1}).encode()), "expected the fields family"),
        (spoil("trials.parquet", None), "trials.parquet: expected the table of a search.*--resume"),
        (spoil("trials.parquet", b"PAR1"), "trials.parquet: expected a Parquet file"),
        (spoil("folds.parquet", b""), "folds.parquet: expected a Parquet file"),
    ],
)
def test_a_broken_folder_says_what_is_broken(run_dir, change, message):
    change(run_dir)
    with pytest.raises(RunFolderError, match=message):
        RunFolder(run_dir)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(RunFolderError, match="no such folder"):
        RunFolder(tmp_path / "nowhere")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    file = tmp_path / "report.html"
    atomic.write_text(file, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_was_refused_before_it_began_was_not_tried_and_what_failed_a_constraint_later_was(tmp_path):
    trials = [
        row(0),
        row(1, state="infeasible", attempts=0, n_folds=0),
        row(2, state="infeasible"),
        row(3, state="failed"),
    ]
    write_tables(tmp_path, trials, [])
    write_plan(tmp_path, fake_run.plan(inherited_trials=7))
    run = RunFolder(tmp_path)
    assert (run.n_tried, run.n_ever_tried) == (3, 10)
