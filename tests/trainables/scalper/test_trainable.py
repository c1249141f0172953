"""The scalper family on synthetic seconds: its rows, its statistics, its score, a run, and the files that it leaves."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr

from tests.trainables.features.market_fixture import changed_from
from tests.trainables.scalper.markets import FOLDS, folds, section
from trainables.catalogue import family
from trainables.data import shared
from trainables.data.config import DataConfig
from trainables.data.folds import fold_rows, plan_folds
from trainables.data.loader import load_market, load_times
from trainables.data.windows import gather, history_length
from trainables.data.zones import NS_PER_DAY, NS_PER_SECOND, local_day, local_time
from trainables.errors import DataError
from trainables.protocol import Assignment
from trainables.scalper import artifact
from trainables.scalper.config import CLASSES, ScalperConfig
from trainables.scalper.labels import NAMES
from trainables.scalper.trainable import FAMILY, ranked_probability_score, regular_hours
from trainables.training.walk import run_trial

DATA = section()
REAL = Path(__file__).parents[4] / "shared" / "data" / "spy_1s_lean_2013.parquet"
LEAN = {"htf": False, "ticks_x": 6}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def dataset(store, reach=None, data=DATA, **fields):
    config = ScalperConfig(**{**LEAN, **fields})
    return config, FAMILY.dataset(config, data, folds(), reach or {}, store)


def test_catalogue_finds_the_family():
    assert family("scalper") is FAMILY


@pytest.mark.requirement("DATA-9")
def test_regular_hours_begin_and_end_with_new_york():
    market = load_market(section(session="all", n_sessions=3), folds())
    regular = regular_hours(market)
    clock = local_time(market.event_time) // NS_PER_SECOND % 86_400
    assert (clock[regular].min(), clock[regular].max()) == (9 * 3600 + 1800, 16 * 3600 - 1)
    assert regular.sum() % 23_400 == 0
    assert (~regular).sum() > regular.sum()


@pytest.mark.requirement("SEARCH-14")
def test_all_trials_of_a_search_are_scored_on_the_same_seconds(tmp_path):
    data = section(session="all", n_sessions=3)
    reach = {
        "htf": (False, True),
        "horizon_s": (5, 300),
        "session": ("rth", "rth_plus_eth"),
        "arch": ("ffn", "gru"),
        "seq_len": (30, 60),
    }
    window = plan_folds(load_times(data, folds()), folds()).windows[0]
    found, trained = [], []
    for fields in (
        {"arch": "ffn", "horizon_s": 5, "ticks_x": 1},
        {"arch": "gru", "seq_len": 60, "htf": True, "horizon_s": 300},
        {"session": "rth_plus_eth", "horizon_s": 60, "price_norm": "minmax", "feature_groups": "price"},
    ):
        config, data_set = dataset(tmp_path, reach, data, **fields)
        rows = fold_rows(window, data_set, lookback=config.lookback, scored_lookback=60)
        found.append(data_set.known_time[rows.validation])
        trained.append(rows.train)
        assert np.isfinite(data_set.features[rows.train]).all()
        assert np.isfinite(data_set.targets[rows.train]).all()
    assert len(found[0]) > 10_000
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    assert len(trained[2]) > 1.5 * len(trained[0])  # hours outside of the regular ones are trained on, not scored
    clock = local_time(found[0]) // NS_PER_SECOND % 86_400
    assert clock.min() > 9 * 3600 + 1800
    assert clock.max() <= 16 * 3600


def test_hours_that_the_data_leave_out_are_refused(store):
    with pytest.raises(ValueError, match=r"session: rth_plus_eth needs data\.session: all, found rth"):
        dataset(store, session="rth_plus_eth")


def test_a_tick_that_does_not_fit_the_market_is_refused(store):
    with pytest.raises(
        DataError, match=r"ticks_x: expected moves of 6 ticks of 100 in some of \d+ seconds .* all flat"
    ):
        dataset(store, tick=100.0)


@pytest.mark.requirement("SCALP-9")
@pytest.mark.requirement("DATA-30")
def test_sequences_end_at_the_second_of_decision_and_labels_begin_after_it(store, monkeypatch, tmp_path):
    config, data = dataset(store, arch="gru", seq_len=20)
    row = int(np.flatnonzero(data.usable & (history_length(data) >= 20))[1000])
    window = gather(np.asarray(data.features), np.array([row]), config.lookback)[0].numpy()
    np.testing.assert_array_equal(window[-1], data.features[row])
    assert data.label_end[row] == data.known_time[row] + config.horizon_s * NS_PER_SECOND
    market = load_market(DATA, folds())
    move = (market.close[row + config.horizon_s] - market.close[row]) / config.tick
    assert data.targets[row, NAMES.index("move_ticks")] == pytest.approx(move, abs=1e-4)
    monkeypatch.setattr(shared, "market", lambda data, folds: changed_from(market, row + 1))
    _, changed = dataset(tmp_path, arch="gru", seq_len=20)
    np.testing.assert_array_equal(changed.features[: row + 1], data.features[: row + 1])
    assert changed.targets[row, NAMES.index("move_ticks")] != data.targets[row, NAMES.index("move_ticks")]


@pytest.mark.requirement("LOSS-10")
@pytest.mark.requirement("WF-5")
def test_statistics_and_draws_come_from_the_training_rows():
    targets = np.zeros((100, len(NAMES)), dtype=np.float32)
    targets[:, NAMES.index("direction")] = [0] * 80 + [1] * 10 + [2] * 10
    targets[:, NAMES.index("move_ticks")] = np.linspace(-3, 3, 100)
    targets[:, NAMES.index("volatility_ticks")] = 5.0
    fitted = FAMILY.statistics(ScalperConfig(), targets)
    assert fitted.class_counts == (80, 10, 10)
    assert fitted.move_scale_ticks == pytest.approx(np.linspace(-3, 3, 100).std())
    assert fitted.volatility_scale_ticks == pytest.approx(5.0)
    assert FAMILY.statistics(ScalperConfig(), np.zeros_like(targets)).move_scale_ticks is None
    drawn = FAMILY.draws(ScalperConfig(imbalance="oversample"), targets)
    assert np.bincount(targets[drawn, 0].astype(int)).tolist() == [80, 80, 80]
    assert set(drawn.tolist()) == set(range(100))
    assert FAMILY.draws(ScalperConfig(imbalance="oversample", approach="rl"), targets).tolist() == list(range(100))
    assert ScalperConfig(train_stride=7).training_stride == 7


def test_ranked_probability_score_by_hand():
    found = ranked_probability_score(np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]]), np.array([1.0, 0.0]))
    assert found == pytest.approx([0.2**2 + 0.3**2, 2.0])


@pytest.mark.requirement("ACC-1")
@pytest.mark.requirement("DATA-25")
def test_a_score_is_what_its_parts_say():
    direction = np.array([0, 0, 1, 2, 2, 2])
    targets = np.zeros((6, len(NAMES)), dtype=np.float32)
    targets[:, NAMES.index("direction")] = direction
    targets[:, NAMES.index("move_ticks")] = [-3, -4, 0, 2, 5, 3]
    targets[:, NAMES.index("volatility_ticks")] = 4.0
    logits = torch.tensor(np.eye(3)[[0, 2, 1, 2, 1, 2]] * 4.0, dtype=torch.float32)
    config = ScalperConfig(cost_ticks=1.0, class_counts=(20, 60, 20), volatility_scale_ticks=2.0)
    outputs = {"direction": logits, "volatility": torch.full((6,), 1.5), "exit": torch.zeros(6, 2)}
    score = FAMILY.score(config, outputs, torch.from_numpy(targets))
    metrics = score.metrics
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["majority_rate"] == pytest.approx(3 / 6)
    said = np.sign(score.forecasts["60s"][0])[direction != 1]  # of the row that says flat the sign is that of the tails
    assert metrics["directional_accuracy"] == pytest.approx(np.mean(said == [-1, -1, 1, 1, 1]))
    assert metrics["net_ticks"] == pytest.approx((3 - 4 + 0 + 2 + 0 + 3 - 4 * 1.0) / 6)
    assert metrics["entry_rate"] == pytest.approx(4 / 6)
    counts = {name: metrics[f"scored_{name}"] for name in CLASSES}
    assert counts == {"down": 2, "flat": 1, "up": 3}
    assert [metrics[f"trained_{name}"] for name in CLASSES] == [20, 60, 20]
    shares = np.array([21, 61, 21]) / 103
    assert metrics["prior_loss"] == pytest.approx(-np.log(shares)[direction].mean())
    assert metrics["loss_gain"] == pytest.approx(metrics["prior_loss"] - score.loss.mean(), abs=1e-6)
    assert metrics["mae_volatility_ticks"] == pytest.approx(1.0)
    assert metrics["mae_volatility_ticks_of_mean"] == pytest.approx(2.0)
    assert score.scales["60s"].tolist() == [3.0] * 6
    assert {len(v) for v in (score.loss, score.crps, *score.columns.values())} == {6}


def run(run_dir: Path, trial_id: str, config: dict, **changes) -> list:
    given = {
        "trial_id": trial_id,
        "family": "scalper",
        "config": {**LEAN, "epochs": 3, "patience": 1, "lr": 1e-3, "train_stride": 5, "hidden": "128-64-32", **config},
        "data": DATA.model_dump(mode="json"),
        "folds": FOLDS,
        "reach": {},
        "ladder": ((0, 1.0), (1, 1.0)),
        "seed": 1,
        "run_dir": str(run_dir),
        "options": {"engine": "plain", "flatness_samples": 64, "flatness_steps": 2},
    }
    return list(run_trial(Assignment(**{**given, **changes})))


@pytest.mark.requirement("ART-1")
@pytest.mark.requirement("NORM-4")
@pytest.mark.requirement("WF-6")
def test_a_planted_signal_is_learned_and_the_files_give_the_model_back(tmp_path):
    reports = run(tmp_path, "t0000", {"approach": "classification", "imbalance": "none"})
    for report in reports:
        assert report.metrics["ic"] > 0.03
        assert report.metrics["val_loss"] < 1.2
        assert {"accuracy", "majority_rate", "crps", "flatness", "scored_up", "trained_up"} <= report.metrics.keys()
    folder = tmp_path / "checkpoints" / "t0000"
    for name in ("models/scalper_v1.pt", "scalper_v1_config.json", "feature_scaler.pkl", "training_metrics.json"):
        assert (folder / name).is_file()
    again = artifact.load(folder)
    assert again.config.class_counts is not None
    assert sum(again.config.class_counts) > 20_000
    assert pickle.loads((folder / "feature_scaler.pkl").read_bytes()) == json.loads(again.normaliser.to_json())
    evidence = pq.read_table(tmp_path / "evidence" / "t0000" / "fold-01.parquet")
    data = FAMILY.dataset(again.config, DATA, folds(), {}, tmp_path / "store")
    rows = np.searchsorted(data.known_time, evidence["timestamp"].to_numpy())
    windows = torch.from_numpy(again.normaliser.apply(data.features[rows]))[:, None]
    with torch.no_grad():
        score = FAMILY.score(again.config, again.model(windows), torch.from_numpy(np.asarray(data.targets[rows])))
    np.testing.assert_allclose(score.loss, evidence["loss"].to_numpy(), atol=1e-6)
    assert spearmanr(*score.forecasts["60s"]).statistic == pytest.approx(reports[1].metrics["ic_60s"], abs=1e-6)
    stored = json.loads((folder / "training_metrics.json").read_text())
    assert len(stored["folds"]) == 2
    assert {"mean", "std", "min", "max"} <= stored["aggregates"]["accuracy"].keys()


@pytest.mark.requirement("DATA-11")
def test_price_columns_are_scaled_by_training_rows_in_their_own_way(tmp_path):
    changes = {"ladder": ((0, 1.0),), "options": {"engine": "plain", "flatness_steps": 0}}
    run(tmp_path, "t0001", {"price_norm": "minmax", "epochs": 1, "feature_groups": "price+level"}, **changes)
    scaler = artifact.load(tmp_path / "checkpoints" / "t0001").normaliser
    close, other = scaler.names.index("close"), scaler.names.index("log_return_60s")
    market = load_market(DATA, folds())
    span = 1 / scaler.gain[close]
    assert market.close.min() - 1e-2 <= scaler.centre[close] < scaler.centre[close] + span <= market.close.max() + 1e-2
    assert 1 / scaler.gain[other] < 1e-2  # a deviation, not a range of prices
    assert scaler.kind == "zscore"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL.name} is not there")
@pytest.mark.requirement("DATA-10")
def test_a_week_of_real_seconds(tmp_path):
    """SPY, October 2013: seconds without a trade are filled and seen; decisions are made and scored at real bars."""
    data = DataConfig(source="files", bars=str(REAL), grid="regular", max_gap_bars=300)
    config = ScalperConfig(tick=0.01, ticks_x=3, htf=False)
    found = FAMILY.dataset(config, data, folds(), {}, tmp_path)
    days = plan_folds(load_times(data, folds()), folds())
    assert len(days.windows) == 3
    rows = [fold_rows(window, found, lookback=1, scored_lookback=1) for window in days.windows]
    stamps = np.sort(pq.read_table(REAL, columns=["timestamp"])["timestamp"].to_numpy())
    for fold in rows:
        known = found.known_time[fold.validation]
        assert np.isin(known - NS_PER_SECOND, stamps).all()
        begin = local_day(known[:1])[0]
        clock = local_time(stamps)
        seconds = (clock - begin * NS_PER_DAY) // NS_PER_SECOND
        history, label = 9 * 3600 + 1800 + 900, 16 * 3600 - 60  # a quarter of an hour before, a minute after
        assert len(known) == ((seconds >= history) & (seconds < label)).sum()
    shares = np.bincount(found.targets[rows[2].train, 0].astype(int)) / len(rows[2].train)
    assert (shares > 0.2).all()
