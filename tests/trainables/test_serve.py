"""A trained model scores raw bars as it scored the validation rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from trainables import serve
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.placement import place_bars
from trainables.errors import DataError
from trainables.protocol import Assignment
from trainables.training.walk import run_trial

DATA = {"source": "synthetic", "synthetic": {"n_sessions": 900, "first_day": "2010-01-04"}}
FOLDS = {"train_months": 24, "validation_months": 3, "test_months": 3, "max_folds": 1}
CONFIG = {"label_horizon": 1, "epochs": 2, "hidden": "32-16"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for trial, seed in (("t0000", 1), ("t0001", 2)):
        assignment = Assignment(
            trial_id=trial,
            family="mlp",
            config=CONFIG,
            data=DataConfig(**DATA).model_dump(mode="json"),
            folds=FoldsConfig(**FOLDS).model_dump(mode="json"),
            reach={},
            ladder=((0, 1.0),),
            seed=seed,
            run_dir=str(folder),
            options={"engine": "plain", "flatness_steps": 0, "threads": 1},
        )
        list(run_trial(assignment))
    return folder


@pytest.fixture(scope="module")
def bars():
    """The bars of the synthetic market as somebody's table."""
    placed = place_bars(DataConfig(**DATA))
    columns = {name: getattr(placed.bars, name) for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame({"timestamp": pd.to_datetime(placed.event_time, utc=True), **columns})


def evidence(run_dir, trial):
    return pq.read_table(run_dir / "evidence" / trial / "fold-00.parquet").to_pandas()


@pytest.mark.requirement("ART-3")
def test_raw_bars_give_the_predictions_of_the_evidence(run_dir, bars):
    said = serve.load(run_dir / "checkpoints" / "t0000").predict(bars)
    before = evidence(run_dir, "t0000")
    times = said["timestamp"].astype("int64").to_numpy()
    place = np.searchsorted(times, before["timestamp"].to_numpy())
    assert np.array_equal(times[place], before["timestamp"].to_numpy())
    np.testing.assert_allclose(said["p_up"].to_numpy()[place], before["p_up"], rtol=1e-5)
    assert list(said.columns) == ["timestamp", "prediction_1b", "p_up"]
    assert times[-1] > before["timestamp"].iloc[-1]  # newest bars have no outcome yet, and a prediction all the same


def test_what_comes_later_changes_no_prediction(run_dir, bars):
    model = serve.load(run_dir / "checkpoints" / "t0000")
    whole, early = model.predict(bars), model.predict(bars.iloc[:-100])
    pd.testing.assert_frame_equal(early, whole.iloc[: len(early)])


@pytest.mark.requirement("ART-3")
def test_several_members_are_averaged(run_dir, bars):
    single = [serve.load(run_dir / "checkpoints" / t).predict(bars) for t in ("t0000", "t0001")]
    both = serve._load_pyfunc(str(run_dir / "checkpoints")).predict(bars)
    np.testing.assert_allclose(both["p_up"], (single[0]["p_up"] + single[1]["p_up"]) / 2, rtol=1e-6)
    assert not np.allclose(single[0]["p_up"], single[1]["p_up"])


def test_naive_times_are_those_of_utc(run_dir, bars):
    model = serve.load(run_dir / "checkpoints" / "t0000")
    naive = bars.assign(timestamp=bars["timestamp"].dt.tz_localize(None))
    pd.testing.assert_frame_equal(model.predict(naive), model.predict(bars))


def test_too_short_a_history_gives_nothing_and_bad_bars_are_refused(run_dir, bars):
    model = serve.load(run_dir / "checkpoints" / "t0000")
    assert len(model.predict(bars.iloc[:30])) < 30
    broken = bars.assign(high=bars["low"] - 1)
    with pytest.raises(DataError, match="high"):
        model.predict(broken)


def test_the_command_prints_the_newest_rows(run_dir, bars, tmp_path, capsys):
    path = tmp_path / "bars.parquet"
    bars.to_parquet(path)
    assert serve.main([str(run_dir / "checkpoints" / "t0001"), str(path)]) == 0
    assert "p_up" in capsys.readouterr().out
    out = tmp_path / "said.parquet"
    assert serve.main([str(run_dir / "checkpoints" / "t0001"), str(path), "--out", str(out)]) == 0
    assert len(pd.read_parquet(out)) > 500
    assert serve.main([str(tmp_path), str(path)]) == 2
    assert "expected model.json" in capsys.readouterr().err


def test_the_model_tells_what_it_predicts(run_dir):
    described = json.loads((run_dir / "checkpoints" / "t0000" / "model.json").read_text())
    assert described["predictions"] == ["prediction_1b", "p_up"]
