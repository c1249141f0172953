"""Wrong input at the front door: one line, the right exit code, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.run import main

DAY = 86_400 * 10**9


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--space", "spaces/nowhere.yaml"], "spaces/nowhere.yaml"),
        (["--space", "spaces/mlp.yaml", "--profile", "lapton"], "laptop"),
        (["--space", "spaces/mlp.yaml", "--set", "parameters.learning_rte=1"], "learning_rte"),
        (["--space", "spaces/mlp.yaml", "--set", "family=mpl"], "mlp"),
        (["--space", "spaces/mlp.yaml", "--set", "budget.trials=0"], "budget.trials"),
        (["--space", "spaces/mlp.yaml", "--seed", "-1"], "--seed"),
        (["--space", "spaces/mlp.yaml", "--num-samples", "ten"], "--num-samples"),
        (["--space", "spaces/mlp.yaml", "--num-sample", "3"], "unrecognized"),
        (["--space", "spaces/mlp.yaml", "--set", "search.optimizer=random"], "search.n_startup: expected a setting"),
        (["--resume", "spaces"], "--resume spaces"),
        ([], "--space"),
    ],
)
def test_configuration_errors_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    code, err = run(capsys, *arguments, "--dry-run")
    assert (code, says in err) == (2, True), err
    assert "Traceback" not in err


def bars(path: Path, close: np.ndarray, *, step: int = DAY) -> Path:
    stamps = np.datetime64("2010-01-04T14:30", "ns").astype(np.int64) + np.arange(len(close)) * step
    rows = [f"{t},{c},{c},{c},{c},1000" for t, c in zip(stamps, close, strict=True)]
    path.write_text("timestamp,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    return path


def wavy(n: int) -> np.ndarray:
    return 100 + 10 * np.sin(np.arange(n) / 9) + np.arange(n) % 5


BROKEN = {
    "empty": (lambda path: path.write_text("timestamp,open,high,low,close,volume\n"), "header only"),
    "absent": (lambda path: None, "bars.csv"),
    "unsorted": (lambda path: bars(path, wavy(900), step=-DAY), "increas"),
    "repeated": (lambda path: bars(path, wavy(900), step=0), "timestamp"),
    "not a number": (lambda path: bars(path, np.where(np.arange(900) == 70, np.nan, wavy(900))), "NaN"),
    "negative": (lambda path: bars(path, np.where(np.arange(900) == 70, -3.0, wavy(900))), "price"),
    "too short": (lambda path: bars(path, wavy(200)), "months"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_data_errors_exit_3_and_leave_nothing(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make, says = BROKEN[name]
    make(tmp_path / "bars.csv")
    out = tmp_path / "run"
    code, err = run(
        capsys, "--space", "spaces/mlp.yaml", "--profile", "smoke", "--out", out,
        "--set", "data.source=files", "--set", f"data.bars={tmp_path / 'bars.csv'}", "--set", "data.calendar=24/7",
        "--set", "data.session=all",
    )  # fmt: skip
    assert (code, says.lower() in err.lower()) == (3, True), err
    assert len(err.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.requirement("WF-4")
def test_a_purge_that_leaves_no_training_rows_exits_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, err = run(
        capsys, "--space", "spaces/mlp.yaml", "--profile", "smoke", "--out", tmp_path / "run",
        "--set", "folds.embargo_days=9000",
    )  # fmt: skip
    assert code == 3, err
    assert "training" in err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_exits_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, err = run(capsys, "--space", "spaces/mlp.yaml", "--profile", "smoke", "--out", tmp_path / "file" / "run")
    assert (code, "--out" in err, err.count("\n")) == (4, True, 1)


def test_a_folder_that_holds_something_is_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    code, err = run(capsys, "--space", "spaces/mlp.yaml", "--profile", "smoke", "--out", tmp_path)
    assert (code, "--resume" in err) == (4, True)
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("space", "setting", "says"),
    [
        ("spaces/mlp.yaml", "parameters.feature_stage=50+", "name their files in data.series"),
        ("spaces/condor.yaml", "parameters.sequence_axis=per_contract", "name its file in data.chain"),
    ],
)
def test_a_plan_says_what_data_the_family_lacks(
    space: str, setting: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = run(capsys, "--space", space, "--profile", "smoke", "--set", setting, "--dry-run")
    assert (code, says in err) == (3, True), err
    assert len(err.strip().splitlines()) == 1
