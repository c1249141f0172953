"""The condor family on a synthetic market, and on the bars of the arch package."""

import numpy as np
import pytest
import scoringrules
import torch

from tests.trainables.features.market_fixture import changed_from, make_market
from trainables.catalogue import family
from trainables.condor import trainable
from trainables.condor.config import CondorConfig
from trainables.condor.losses import Targets, target_names
from trainables.condor.trainable import FAMILY
from trainables.data import shared
from trainables.data.config import DataConfig, FoldsConfig
from trainables.data.dataset import NO_LABEL
from trainables.data.windows import gather, history_length
from trainables.training.family import Batch

TINY = {"d_model": 8, "n_layers": 1, "headdim": 4, "d_state": 2, "lookback": 6, "batch_size": 8, "dropout": 0.0}
DATA, FOLDS = DataConfig(), FoldsConfig()
ALL_SCHEMAS = {"feature_schema": (24, 32, 52), "momentum_n": (5, 50)}

pytestmark = pytest.mark.usefixtures("shared_market")


@pytest.fixture(scope="module")
def market():
    return make_market(sessions=430, per_session=1, bar_seconds=23_400)


def dataset(tmp_path, reach=ALL_SCHEMAS, **fields):
    config = CondorConfig(**{**TINY, **fields})
    return config, FAMILY.dataset(config, DATA, FOLDS, reach, tmp_path)


def outputs_and_targets(config, data, n=20):
    rows = np.flatnonzero(data.usable)[-n:]
    torch.manual_seed(0)
    model = FAMILY.build_model(config, data.feature_names).eval()
    windows = torch.nan_to_num(gather(np.asarray(data.features), rows, config.lookback))
    windows = (windows - windows.mean((0, 1))) / (windows.std((0, 1)) + 1e-6)
    return model, windows, torch.from_numpy(np.asarray(data.targets)[rows])


def test_catalogue_finds_the_family():
    assert family("condor") is FAMILY


def test_rows_that_count_do_not_depend_on_schema_or_genes(tmp_path):
    found = [
        dataset(tmp_path, feature_schema=24)[1],
        dataset(tmp_path, feature_schema=32, ewma_alpha=0.2)[1],
        dataset(tmp_path, feature_schema=52, momentum_n=5)[1],
        dataset(tmp_path, feature_schema=52, momentum_n=50)[1],
    ]
    assert found[0].usable.sum() > 50
    for other in found[1:]:
        np.testing.assert_array_equal(other.usable, found[0].usable)
        np.testing.assert_array_equal(history_length(other), history_length(found[0]))
        np.testing.assert_array_equal(other.label_end, found[0].label_end)
        np.testing.assert_array_equal(other.targets, found[0].targets)
    assert [data.features.shape[1] for data in found] == [24, 32, 52, 52]


def test_a_narrower_reach_has_more_rows(tmp_path):
    wide = dataset(tmp_path, feature_schema=24)[1]
    narrow = dataset(tmp_path, reach={}, feature_schema=24)[1]
    assert narrow.usable.sum() > wide.usable.sum() + 100


def test_usable_rows_have_features_and_labels(tmp_path):
    _, data = dataset(tmp_path)
    assert np.isfinite(data.features[data.usable]).all()
    assert np.isfinite(data.targets[data.usable]).all()
    assert (data.label_end[data.usable] > data.known_time[data.usable]).all()
    assert np.isnan(data.targets[data.label_end == NO_LABEL]).all()
    assert data.target_names == target_names(0)


def test_trials_share_what_their_genes_do_not_change(tmp_path):
    names = []
    for fields in ({}, {"lr": 1e-3}, {"ewma_alpha": 0.2}, {"tda_window": 240}, {"d_model": 16}):
        names.append(dataset(tmp_path, feature_schema=24, **fields)[1].snapshot)
    assert len(set(names)) == 1
    entries = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert len(entries) == 4  # labels, rows, features, and which market they are of
    changed = dataset(tmp_path, feature_schema=32)[1].snapshot, dataset(tmp_path, feature_schema=32, ewma_alpha=0.2)[1]
    assert changed[0] != changed[1].snapshot


def test_labels_cover_the_longest_path_within_reach(tmp_path):
    reach = {"trajectory": (False, True), "trajectory_sessions": (3, 50)}
    off = dataset(tmp_path, reach=reach, feature_schema=24)[1]
    on = dataset(tmp_path, reach=reach, feature_schema=24, trajectory=True, trajectory_sessions=3)[1]
    assert off.target_names == target_names(50)
    np.testing.assert_array_equal(off.usable, on.usable)
    np.testing.assert_array_equal(off.label_end, on.label_end)
    assert dataset(tmp_path, reach={}, feature_schema=24)[1].target_names == target_names(0)


@pytest.mark.parametrize("name", ["label_mode", "regime_label_horizon"])
def test_what_is_predicted_may_not_vary_in_a_search(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: expected one value, found 2 in the space"):
        dataset(tmp_path, reach={name: (1, 2)})


def test_later_bars_change_no_earlier_feature_nor_finished_label(tmp_path, market, monkeypatch):
    before = dataset(tmp_path / "one")[1]
    cut = 380
    monkeypatch.setattr(shared, "market", lambda data, folds: changed_from(market, cut))
    after = dataset(tmp_path / "two")[1]
    np.testing.assert_array_equal(after.features[:cut], before.features[:cut])
    known = before.label_end < market.known_time[cut]
    assert known.sum() > 300
    np.testing.assert_array_equal(after.targets[known], before.targets[known])


def test_moves_by_hand(market):
    days = np.full(len(market), np.nan)
    days[100] = 14.5
    expected, realised = trainable._moves(market, days)
    horizon = market.known_time[100] + int(14.5 * 86_400 * 1e9)
    last = np.flatnonzero(market.known_time <= horizon)[-1]
    sigma = market.close[100] * market.iv[100] * np.sqrt(14.5 / 365)
    assert expected[100] == pytest.approx(sigma)
    assert realised[100] == pytest.approx((market.close[last] - market.close[100]) / sigma)
    assert np.isnan(np.delete(realised, 100)).all()


def test_score_is_what_its_parts_say(tmp_path):
    config, data = dataset(tmp_path)
    model, windows, targets = outputs_and_targets(config, data)
    with torch.no_grad():
        outputs = model(windows)
    score = FAMILY.score(config, outputs, targets)
    np.testing.assert_allclose(
        score.loss, FAMILY.reference_loss(config, outputs, Batch(windows=windows, targets=targets)).numpy()
    )
    assert list(score.forecasts) == list(score.scales) == ["1d", "3d", "5d", "10d"]
    crps = np.mean([scoringrules.crps_normal(y, mu, score.scales[h]) for h, (mu, y) in score.forecasts.items()], axis=0)
    np.testing.assert_allclose(score.crps, crps, rtol=1e-4, atol=1e-7)
    names = list(data.target_names)
    np.testing.assert_array_equal(score.forecasts["5d"][1], targets[:, names.index("return_5")])
    error = np.abs(score.columns["target_dte"] - targets[:, names.index("target_dte")].numpy()).mean()
    assert score.metrics["mae_target_dte"] == pytest.approx(float(error), rel=1e-5)
    most_probable = np.stack([score.columns[f"p_{r}"] for r in ("low", "normal", "high")]).argmax(0)
    hits = most_probable == targets[:, names.index("regime")].numpy()
    assert score.metrics["regime_accuracy"] == pytest.approx(hits.mean())
    lengths = {len(v) for v in (score.loss, score.crps, *score.columns.values(), *score.scales.values())}
    assert lengths == {20}


@pytest.mark.requirement("LOSS-11")
def test_reference_loss_does_not_depend_on_how_a_trial_trains(tmp_path):
    config, data = dataset(tmp_path)
    model, windows, targets = outputs_and_targets(config, data)
    outputs, batch = model(windows), Batch(windows=windows, targets=targets)
    other = CondorConfig(**TINY, lambda_stk=5.0, target_scaling="none_documented", w_forecast=0.0)
    torch.testing.assert_close(
        FAMILY.reference_loss(config, outputs, batch), FAMILY.reference_loss(other, outputs, batch)
    )
    assert FAMILY.loss(config, outputs, batch) != FAMILY.loss(other, outputs, batch)


@pytest.mark.parametrize(
    "switches", [{}, {"moe": "topk"}, {"trajectory": True, "diffusion": True, "trajectory_sessions": 3}]
)
def test_training_lowers_the_loss(tmp_path, switches):
    config, data = dataset(tmp_path, reach={}, feature_schema=24, diffusion_hidden=8, gru_hidden=4, **switches)
    model, windows, targets = outputs_and_targets(config, data, n=64)
    model.train()
    optimizer, batch = torch.optim.AdamW(model.parameters(), lr=3e-3), Batch(windows=windows, targets=targets)
    losses = []
    for _ in range(60):
        loss = FAMILY.loss(config, model(windows), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert Targets.split(config, targets).regime.min() >= 0


@pytest.mark.slow
def test_bars_of_the_arch_package(tmp_path, monkeypatch):
    from trainables.data.loader import load_market

    monkeypatch.setattr(shared, "market", lambda data, folds: load_market(data, folds))
    config = CondorConfig(**TINY, feature_schema=24)
    data = FAMILY.dataset(config, DataConfig(price_scale=0.1), FOLDS, {"feature_schema": (24, 52)}, tmp_path)
    assert data.usable.sum() > 4000
    assert "modelled" in data.marks["iv"]
    assert "modelled" in data.marks["chain"]
    model, windows, targets = outputs_and_targets(config, data, n=100)
    with torch.no_grad():
        score = FAMILY.score(config, model(windows), targets)
    assert np.isfinite(score.loss).all()
    assert np.isfinite(score.crps).all()
    assert all(np.isfinite(value) for value in score.metrics.values())
