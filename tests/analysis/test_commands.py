import json

import polars as pl
import pytest

from analysis import compare, gates, paired, rank
from analysis.run_folder import RunFolder, write_plan
from tests.analysis import fake_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return fake_run.write(tmp_path_factory.mktemp("commands") / "run")


def lines(capsys):
    return capsys.readouterr().out.splitlines()


@pytest.mark.requirement("RANK-1")
def test_rank_prints_either_order_and_writes_nothing(run_dir, capsys):
    before = sorted(p.name for p in run_dir.iterdir())
    assert rank.main([str(run_dir)]) == 0
    assert "rank" in lines(capsys)[0]
    assert rank.main([str(run_dir), "--json"]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert rank.main([str(run_dir), "--order", "condor_doc", "--json"]) == 0
    documented = json.loads(capsys.readouterr().out)
    assert len(merged) == len(documented) == len(fake_run.STATES)
    assert [r["rank"] for r in merged if r["rank"]] == sorted(r["rank"] for r in merged if r["rank"])
    assert [r["rank"] for r in merged] != [r["rank"] for r in documented]
    assert sorted(p.name for p in run_dir.iterdir()) == before


@pytest.mark.requirement("GATE-5")
def test_gates_of_the_leader(run_dir, capsys):
    assert gates.main([str(run_dir)]) == 0
    table = capsys.readouterr().out
    assert "GATE-0" in table
    assert gates.main([str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [g["name"] for g in found["gates"]]
    assert names == [*(f"GATE-{k}" for k in range(5)), *(f"ACC-{k}" for k in range(1, 8))]
    outcomes = {g["name"]: g["outcome"] for g in found["gates"]}
    assert outcomes["GATE-0"] == "fail"  # the fake scale is no better than the naive one
    assert outcomes["ACC-2"] == "inconclusive"


@pytest.mark.requirement("GATE-2")
def test_phase_1_must_have_the_same_folds(run_dir, tmp_path, capsys):
    assert gates.main([str(run_dir), "--json", "--phase-1", str(run_dir)]) == 0
    found = {g["name"]: g for g in json.loads(capsys.readouterr().out)["gates"]}
    assert found["GATE-2"]["outcome"] == "fail"
    other = fake_run.write(tmp_path / "other")
    write_plan(other, fake_run.plan(folds=fake_run.plan()["folds"][:3]))
    assert gates.main([str(run_dir), "--phase-1", str(other)]) == 2
    assert "compares the same folds" in capsys.readouterr().err


def test_a_run_without_a_leader_has_no_gates(tmp_path, capsys):
    empty = fake_run.write(tmp_path / "run", states=("failed", "stopped"))
    assert gates.main([str(empty)]) == 2
    assert "found none" in capsys.readouterr().err


def test_a_run_is_equal_to_itself(run_dir, capsys):
    assert compare.main([str(run_dir), str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["a_minus_b"] == 0
    assert found["confidence_set"][0] == found["confidence_set"][1]
    assert found["n_timestamps"] == 756
    assert compare.main([str(run_dir), str(run_dir)]) == 0
    assert "Their losses are equal on every one of 756 common timestamps." in capsys.readouterr().out


def test_the_better_run_is_found_on_common_timestamps(run_dir, tmp_path, capsys):
    worse = fake_run.write(tmp_path / "worse")
    for file in worse.glob("evidence/*/*.parquet"):
        frame = pl.read_parquet(file).with_columns(pl.col("loss") + 3.0)
        (frame.head(100) if file.stem == "fold-05" else frame).write_parquet(file)
    found = paired.compare(RunFolder(run_dir), RunFolder(worse))
    assert found.difference.mean == pytest.approx(-3.0, abs=1e-5)
    assert found.difference.n_rows == 756 - 26
    assert found.members_a
    assert not found.members_b
    assert any("730 of 756" in note for note in found.notes)
    assert compare.main([str(run_dir), str(worse)]) == 0
    assert "A minus B on 730 common timestamps: -3" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused_in_one_line(run_dir, tmp_path, capsys):
    other = fake_run.write(tmp_path / "mlp", family="mlp")
    assert compare.main([str(run_dir), str(other)]) == 2
    assert "expected family condor, found mlp" in capsys.readouterr().err
    empty = fake_run.write(tmp_path / "empty", states=("stopped",))
    assert compare.main([str(run_dir), str(empty)]) == 2
    assert "expected evidence of a complete trial" in capsys.readouterr().err
    for file in other.glob("evidence/*/*.parquet"):
        pl.read_parquet(file).with_columns(pl.col("timestamp").dt.offset_by("10957d")).write_parquet(file)
    write_plan(other, fake_run.plan())
    assert compare.main([str(run_dir), str(other)]) == 2
    error = capsys.readouterr().err
    assert "found 0" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [rank.main, gates.main])
def test_a_folder_that_is_no_run_is_refused(command, tmp_path, capsys):
    assert command([str(tmp_path)]) == 2
    assert "plan.json" in capsys.readouterr().err


@pytest.mark.requirement("SEARCH-16")
def test_runs_of_different_scales_are_not_compared(run_dir, tmp_path, capsys):
    small = fake_run.write(tmp_path / "small")
    write_plan(small, fake_run.plan(scale="small"))
    assert compare.main([str(run_dir), str(small)]) == 2
    assert "expected scale full, found small" in capsys.readouterr().err
    shares = [str(fake_run.write(tmp_path / f"{share}", states=("complete",), data_frac=share)) for share in (1.0, 0.3)]
    assert compare.main(shares) == 2
    assert "expected data_frac 1.0, found 0.3" in capsys.readouterr().err
