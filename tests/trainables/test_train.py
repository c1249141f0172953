"""The command `python -m trainables.train`: what it reads, writes, prints and refuses, and what it runs without."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from trainables.protocol import RungReport
from trainables.train import _parser, main, read_request
from trainables.training.display import TrainingDisplay
from trainables.training.loop import StepReport

ROOT = Path(__file__).parents[2]
FILE = """
family: mlp
config: {epochs: 2, lr: 1e-3, label_horizon: 1}
data: {source: arch_sp500, start: "2012-01-01", end: "2018-01-01"}
folds: {train_months: 48, validation_months: 6, test_months: 3}
seed: 3
"""


def write(folder: Path, text: str = FILE) -> Path:
    path = folder / "best_config.yaml"
    path.write_text(text)
    return path


def run(path: Path, *flags: str) -> int:
    return main(
        ["--config", str(path), "--out", str(path.parent / "out"), "--engine", "plain", "--n-folds", "1", *flags]
    )


def test_a_configuration_is_trained_and_its_folder_named_last(tmp_path, capsys):
    assert run(write(tmp_path)) == 0
    out = capsys.readouterr().out
    assert run(tmp_path / "best_config.yaml") == 0
    assert capsys.readouterr().out.split("mlp: 1 folds")[1] == out.split("mlp: 1 folds")[1]
    assert out.splitlines()[-1] == str(tmp_path / "out")
    assert "mlp: 1 folds" in out
    assert "val_loss" in out
    assert (tmp_path / "out" / "evidence" / "final" / "fold-00.parquet").is_file()
    assert (tmp_path / "out" / "checkpoints" / "final" / "model.safetensors").is_file()


@pytest.mark.requirement("TRAIN-5")
def test_the_documented_flags_round_trip_to_the_config():
    flags = "--d-model 1024 --layers 32 --epochs 10 --batch-size 64 --accum-steps 4 --lr 1e-4 --lookback 128"
    switches = "--composite-loss --vol-gated-attn --topk-moe --grad-checkpoint"
    wanted = read_request(_parser().parse_args(f"--family condor --local-data bars.parquet {flags} {switches}".split()))
    expected = {
        "d_model": 1024,
        "n_layers": 32,
        "epochs": 10,
        "batch_size": 64,
        "accum_steps": 4,
        "lr": 1e-4,
        "lookback": 128,
        "loss": "composite",
        "vol_gated_attn": True,
        "moe": "topk",
        "grad_checkpoint": True,
    }
    assert expected.items() <= wanted.config.items()
    assert (wanted.data.source, wanted.data.bars) == ("files", "bars.parquet")


def test_the_display_moves_with_the_steps_and_tells_losses_and_speed():
    console = Console(force_terminal=True, width=120, file=StringIO())
    with TrainingDisplay(console, last_fold=1, lookback=4) as display:
        for step in (1, 2):
            display.stepped(
                StepReport(fold=0, step=step, n_steps=9, loss=0.5, gradient_norm=1.0, learning_rate=0.1, n_rows=8)
            )
        display._progress.refresh()
        display.reported(RungReport(rung=0, fold=0, share=1.0, metrics={"val_loss": 0.25}, n_scored=3, seconds=1.5))
    shown = console.file.getvalue()
    assert "fold 0 of 0-1" in shown
    assert "2/9" in shown
    assert "loss 0.5" in shown
    assert "tokens/s" in shown
    assert "fold 0: val_loss 0.25000, 1.5 s" in shown


def test_a_run_by_epoch_scores_every_epoch(tmp_path, capsys):
    assert run(write(tmp_path), "--by-epoch") == 0
    out = capsys.readouterr().out
    assert "fold 0, 50%: val_loss" in out
    assert "fold 0: val_loss" in out
    assert (tmp_path / "out" / "curves" / "final" / "fold-00.parquet").is_file()


def test_a_switch_that_the_family_does_not_have_is_refused_in_one_line(tmp_path, capsys):
    assert run(write(tmp_path), "--composite-loss") == 2
    assert "loss: Extra inputs are not permitted, found 'composite'" in " ".join(capsys.readouterr().err.split())


def test_flags_stand_over_the_file(tmp_path):
    given = _parser().parse_args(["--config", str(write(tmp_path)), "--epochs", "7", "--seed", "9"])
    wanted = read_request(given)
    assert (wanted.config["epochs"], wanted.config["lr"], wanted.seed) == (7, 1e-3, 9)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (FILE.replace("lr: 1e-3", "lr: -1"), 2, "lr: Input should be greater than 0, found -1"),
        (FILE.replace("epochs", "epohcs"), 2, "epohcs"),
        (FILE.replace("family: mlp", "family: mlq"), 2, "did you mean 'mlp'?"),
        (FILE.replace("seed: 3", "sede: 3"), 2, "sede"),
        ("family: [", 2, "expected YAML 1.2"),
        ("- 3", 2, "expected sections"),
        (FILE.replace("train_months: 48", "train_months: 480"), 3, "one fold needs"),
        (FILE.replace("source: arch_sp500", "source: files, bars: nowhere.parquet"), 3, "nowhere.parquet"),
    ],
)
def test_wrong_input_ends_with_one_line_and_its_code(tmp_path, capsys, text, code, message):
    assert run(write(tmp_path, text)) == code
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out" / "evidence").exists()


def test_a_missing_file_and_an_unwritable_folder_have_their_codes(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "out").write_text("a file where the folder should be")
    assert run(write(tmp_path)) == 4
    assert "out" in capsys.readouterr().err


def test_what_does_not_fit_ends_with_one_line(tmp_path, capsys, monkeypatch):
    def walk(assignment, on_step):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore about it")
        yield

    monkeypatch.setattr("trainables.training.walk.run_trial", walk)
    assert run(write(tmp_path)) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert error == (
        "out of memory, with half the micro-batch too: CUDA out of memory. Tried to allocate 2.00 GiB; "
        "lower --batch-size"
    )


@pytest.mark.requirement("TRAIN-17")
def test_it_trains_without_ray_optuna_mlflow_and_deepspeed(tmp_path):
    script = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"ray", "optuna", "mlflow", "deepspeed", "mamba_ssm", "flash_attn", "causal_conv1d"}}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
from trainables.train import main
sys.exit(main(["--config", {str(write(tmp_path))!r}, "--out", {str(tmp_path / "out")!r}, "--n-folds", "1"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out")
