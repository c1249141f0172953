"""The grok family on a synthetic market of minutes: rows, masks, statistics, scores, a run through the walk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import scoringrules
import torch
from scipy.stats import spearmanr

from tests.trainables.features.market_fixture import changed_from
from trainables.catalogue import family
from trainables.data import shared
from trainables.data.config import DataConfig, FoldsConfig, SyntheticConfig
from trainables.data.dataset import NO_LABEL
from trainables.data.loader import load_market
from trainables.data.windows import gather, history_length
from trainables.errors import DataError
from trainables.features.nq import calendar_inputs
from trainables.features.schemas import NQ
from trainables.grok import rows
from trainables.grok.config import CONTEXT, HORIZON_MINUTES, LEVELS, GrokConfig
from trainables.grok.trainable import FAMILY, LABELS
from trainables.protocol import Assignment
from trainables.training.family import Batch
from trainables.training.walk import run_trial

DATA = DataConfig(
    source="synthetic",
    synthetic=SyntheticConfig(
        bars="minutes",
        n_sessions=70,
        first_day="2023-01-03",
        planted_ic=0.3,
        planted_horizon=5,
        planted_persistence=0.9,
    ),
)
FOLDS = FoldsConfig(train_months=1, validation_months=1, test_months=1)
TINY = {
    "d_model": 8,
    "n_heads": 2,
    "n_blocks": 1,
    "ffn_mult": 2,
    "window_bars": 32,
    "batch_size": 32,
    "mc_samples": 1,
    "train_stride": 4,
    "eval_stride": 10,
    "sma_windows": "2,4,8,12,16,20",
    "grad_checkpoint": False,
    "epochs": 2,
    "lr": 5e-3,
    "warmup_steps": 10,
    "lr_schedule": "constant",
    "dropout": 0.0,
}
REACH = {"sma_windows": ("2,4,8,12,16,20", "5,10,20,30,40,50"), "window_bars": (32, 64)}

pytestmark = pytest.mark.usefixtures("shared_market")


@pytest.fixture(scope="module")
def market():
    return load_market(DATA, FOLDS)


def dataset(folder, reach=REACH, **fields):
    config = GrokConfig(**{**TINY, **fields})
    return config, FAMILY.dataset(config, DATA, FOLDS, reach, folder)


def test_catalogue_finds_the_family():
    assert family("grok") is FAMILY


@pytest.mark.requirement("DATA-3")
def test_rows_without_features_are_masked_not_filled(tmp_path):
    _, data = dataset(tmp_path)
    valid = data.features[:, data.feature_names.index("valid")] == 1
    assert data.feature_names == (*NQ, *CONTEXT)
    assert 0.85 < valid.mean() < 1
    assert (data.features[~valid] == 0).all()
    assert np.isfinite(data.features).all()
    first_rows = np.flatnonzero(np.diff(data.known_time) > 60 * 10**9) + 1
    assert not valid[first_rows].any()  # a session's first bars have no return (DATA-10)
    assert history_length(data)[-1] > 390 * 20  # yet windows may hold them


@pytest.mark.requirement("FEAT-NQ-8")
def test_context_columns_tell_time_and_return(tmp_path, market):
    _, data = dataset(tmp_path)
    column = {name: np.asarray(data.features[:, i]) for i, name in enumerate(data.feature_names)}
    valid = column["valid"] == 1
    positions, angles = calendar_inputs(market.event_time)
    np.testing.assert_allclose(column["minute_sin"][valid], np.sin(angles[valid, 0]), atol=1e-6)
    np.testing.assert_allclose(column["year_cos"][valid], np.cos(angles[valid, 3]), atol=1e-6)
    np.testing.assert_array_equal(column["weekday"][valid], positions[valid, 1])
    returns = np.append(np.nan, np.diff(np.log(market.close)))
    np.testing.assert_allclose(column["raw_return"][valid], returns[valid], atol=1e-8)


@pytest.mark.requirement("SEARCH-14")
def test_rows_that_count_do_not_depend_on_a_trial_s_genes(tmp_path):
    a = dataset(tmp_path)[1]
    for fields in ({"sma_windows": "5,10,20,30,40,50"}, {"window_bars": 64}, {"volume_delta": "signed"}):
        b = dataset(tmp_path, **fields)[1]
        np.testing.assert_array_equal(a.usable, b.usable)
        np.testing.assert_array_equal(a.label_end, b.label_end)
        np.testing.assert_array_equal(a.targets[:, :6], b.targets[:, :6])
    narrow = dataset(tmp_path, reach={})[1]
    assert narrow.usable.sum() > a.usable.sum()
    assert dataset(tmp_path, lr=1e-2)[1].snapshot == a.snapshot


@pytest.mark.requirement("DATA-4")
def test_usable_rows_have_a_horizon_and_may_lack_others(tmp_path):
    _, data = dataset(tmp_path)
    known = np.isfinite(data.targets[:, :6])
    assert known[data.usable].any(axis=1).all()
    assert not known[data.usable].all()
    assert (data.label_end[~known.any(axis=1)] == NO_LABEL).all()
    assert (data.label_end[data.usable] > data.known_time[data.usable]).all()


def test_later_bars_change_nothing_before(tmp_path, market, monkeypatch):
    before = dataset(tmp_path / "one")[1]
    cut = 10_000
    monkeypatch.setattr(shared, "market", lambda data, folds: changed_from(market, cut))
    after = dataset(tmp_path / "two")[1]
    np.testing.assert_array_equal(after.features[:cut], before.features[:cut])
    settled = before.label_end < market.known_time[cut]
    np.testing.assert_array_equal(after.targets[settled], before.targets[settled])
    np.testing.assert_array_equal(after.targets[:cut, 6], before.targets[:cut, 6])


@pytest.mark.parametrize("name", ["eval_stride", "max_pause_minutes"])
def test_what_is_scored_may_not_vary_in_a_search(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}: expected one value, found 2 in the space"):
        dataset(tmp_path, reach={name: (1, 2)})


def test_markets_that_do_not_fit_are_refused(tmp_path, market, monkeypatch):
    daily = replace(market, known_time=market.event_time + 86_400 * 10**9)
    monkeypatch.setattr(shared, "market", lambda data, folds: daily)
    with pytest.raises(DataError, match="expected bars of one minute for family grok, found 86400 s"):
        dataset(tmp_path / "daily")
    silent = replace(market, volume=np.full(len(market), np.nan), snapshot="silent")
    monkeypatch.setattr(shared, "market", lambda data, folds: silent)
    with pytest.raises(DataError, match=r"set feature_groups: price\+trend\+momentum\+volatility\+volume_weighted"):
        dataset(tmp_path / "silent")
    _, data = dataset(tmp_path / "silent", feature_groups="price+trend+momentum+volatility+volume_weighted")
    assert data.usable.sum() > 1000
    assert "each bar counts once" in data.marks["volume"]


def on_fold(tmp_path, n_train=15_000, **fields):
    config, data = dataset(tmp_path, reach={}, **fields)
    usable = np.flatnonzero(data.usable & (history_length(data) >= config.window_bars))
    train, scored = usable[usable < n_train], usable[usable >= n_train][::20]
    config = FAMILY.statistics(config, np.asarray(data.targets[train]))
    torch.manual_seed(0)
    net = FAMILY.build_model(config, data.feature_names).eval()
    windows = gather(np.asarray(data.features), scored, config.window_bars)
    targets = torch.from_numpy(np.asarray(data.targets)[scored])
    return config, data, net, windows, targets, train


@pytest.mark.requirement("WF-5")
@pytest.mark.requirement("LOSS-11")
def test_statistics_are_those_of_the_training_rows(tmp_path):
    config, data, *_, train = on_fold(tmp_path)
    known = np.asarray(data.targets[train, :6], dtype=np.float64)
    np.testing.assert_allclose(config.target_deviation, np.nanstd(known, axis=0))
    np.testing.assert_allclose(config.target_quantiles, np.nanquantile(known, LEVELS, axis=0).T)
    ratio = np.array(config.target_deviation) / config.target_deviation[0]
    assert ratio == pytest.approx(np.sqrt(np.array(HORIZON_MINUTES) / 5), rel=0.5)
    changed = replace(data, targets=np.where(np.arange(len(data))[:, None] > train[-1], 9.0, data.targets))
    assert FAMILY.statistics(config, changed.targets[train]).target_deviation == config.target_deviation
    with pytest.raises(ValueError, match="found none at 5m, 15m, 30m, 60m, 120m, 240m"):
        FAMILY.statistics(config, data.targets[train[:1]])


@pytest.mark.requirement("GROK-12")
@pytest.mark.requirement("ANALYSIS-3")
def test_a_score_is_what_its_parts_say(tmp_path):
    config, _, net, windows, targets, _ = on_fold(tmp_path)
    with torch.no_grad():
        outputs = FAMILY.forecast(config, net, windows)
    score = FAMILY.score(config, outputs, targets)
    batch = Batch(windows=windows, targets=targets)
    np.testing.assert_allclose(score.loss, FAMILY.reference_loss(config, outputs, batch).numpy(), rtol=1e-5)
    assert list(score.forecasts) == list(score.scales) == list(LABELS)
    q, y = np.sort(outputs["quantiles"].numpy(), axis=-1).astype(float), targets[:, :6].numpy().astype(float)
    judge = 2 * scoringrules.quantile_score(y[..., None], q, np.array(LEVELS))
    judge = judge @ np.array([0.075, 0.1, 0.2, 0.25, 0.2, 0.1, 0.075]) / config.target_deviation
    np.testing.assert_allclose(score.crps, np.nanmean(judge, axis=1), rtol=1e-4)
    np.testing.assert_allclose(score.columns["q05_15m"], q[:, 1, 0], rtol=1e-6)
    np.testing.assert_array_equal(score.forecasts["240m"][1], targets[:, 5].numpy())
    names = [f"q{round(100 * level):02d}_30m" for level in LEVELS if level != 0.5]
    ordered = np.stack([score.columns[n] for n in names])
    assert (np.diff(ordered, axis=0) >= 0).all()
    known = np.isfinite(y)
    inside = (y >= q[..., 0]) & (y <= q[..., -1])
    assert score.metrics["coverage_90"] == pytest.approx(inside[known].mean())
    assert score.metrics["crps_60m"] == pytest.approx(np.nanmean(judge[:, 3]), rel=1e-4)
    spreads = [
        spearmanr((q[..., -1] - q[..., 0])[known[:, h], h], np.abs(y[known[:, h], h])).statistic for h in range(6)
    ]
    assert score.metrics["spread_ic"] == pytest.approx(np.mean(spreads), abs=1e-6)
    assert np.isfinite(score.loss).all()
    assert np.isfinite(score.crps).all()
    assert np.isfinite(score.outcomes["baseline_crps"]).all()


@pytest.mark.requirement("ANALYSIS-4")
def test_the_naive_forecast_is_the_better_of_two(tmp_path):
    config, _, net, windows, targets, _ = on_fold(tmp_path)
    with torch.no_grad():
        outputs = net(windows)
    y, moving = targets[:, :6].numpy().astype(float), targets[:, 6].numpy().astype(float)
    fixed = np.broadcast_to(config.target_quantiles, (len(y), 6, 7))
    from scipy.stats import norm

    normal = norm.ppf(LEVELS) * (moving[:, None] * np.sqrt(HORIZON_MINUTES))[..., None]
    widths = np.array([0.075, 0.1, 0.2, 0.25, 0.2, 0.1, 0.075])
    scores = [
        np.nanmean(
            2 * scoringrules.quantile_score(y[..., None], q, np.array(LEVELS)) @ widths / config.target_deviation,
            axis=1,
        )
        for q in (fixed, normal)
    ]
    expected = min(scores, key=np.mean)
    np.testing.assert_allclose(FAMILY.score(config, outputs, targets).outcomes["baseline_crps"], expected, rtol=1e-4)


def test_moving_volatility_is_the_recursion(tmp_path):
    _, data = dataset(tmp_path)
    part = np.asarray(data.features[:700])
    found = rows.moving_volatility(part, data.feature_names, 10.0)
    r, valid = part[:, data.feature_names.index("raw_return")], part[:, data.feature_names.index("valid")] > 0
    state, expected = np.nan, []
    for value, known in zip(r.astype(float), valid, strict=True):
        if known:
            state = value**2 if np.isnan(state) else state + (value**2 - state) * 2 / 11
        expected.append(np.sqrt(state))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.requirement("TRAIN-2")
def test_warm_up_is_limited_to_calm_windows(tmp_path):
    config, data, _, _, _, train = on_fold(tmp_path, lowvol_curriculum=True)
    calm = FAMILY.warmup_rows(config, data, train)
    returns = np.asarray(data.features[:, data.feature_names.index("raw_return")], dtype=float)
    valid = np.asarray(data.features[:, data.feature_names.index("valid")]) > 0
    volatility = np.array([np.sqrt(np.mean(returns[t - 31 : t + 1][valid[t - 31 : t + 1]] ** 2)) for t in train])
    np.testing.assert_array_equal(calm, train[volatility <= np.median(volatility) * (1 + 1e-12)])
    assert len(calm) == pytest.approx(len(train) / 2, abs=2)
    assert FAMILY.warmup_rows(GrokConfig(**TINY), data, train) is None


def test_without_the_statistics_of_a_fold_there_is_no_score():
    with pytest.raises(ValueError, match="expected one with the statistics of a fold"):
        FAMILY.reference_loss(
            GrokConfig(**TINY), {"quantiles": torch.zeros(1, 6, 7)}, Batch(windows=None, targets=torch.zeros(1, 7))
        )


@pytest.mark.parametrize("switches", [{}, {"teacher_forcing_ratio": 0.5}, {"scale_conditioning": "none"}], ids=str)
def test_training_lowers_the_loss(tmp_path, switches):
    config, data, net, *_, train = on_fold(tmp_path, **switches)
    fold_rows = train[:: len(train) // 48]
    windows = gather(np.asarray(data.features), fold_rows, config.window_bars)
    batch = Batch(windows=windows, targets=torch.from_numpy(np.asarray(data.targets)[fold_rows]))
    optimizer, losses = torch.optim.AdamW(net.train().parameters(), lr=5e-3), []
    for _ in range(25):
        loss = FAMILY.loss(config, net(batch.windows), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.97 * losses[0]


@pytest.mark.requirement("WF-7")
@pytest.mark.requirement("DATA-5")
def test_trials_are_scored_on_the_same_timestamps_and_find_a_planted_signal(tmp_path):
    reports, tables = {}, {}
    for trial, fields in {
        "t0000": {},
        "t0001": {"window_bars": 64, "patch": 8, "lowvol_curriculum": True, "epochs": 1},
    }.items():
        assignment = Assignment(
            trial_id=trial,
            family="grok",
            config={**TINY, **fields},
            data=DATA.model_dump(mode="json"),
            folds=FOLDS.model_dump(mode="json"),
            reach=REACH,
            ladder=((0, 1.0),),
            seed=1,
            run_dir=str(tmp_path),
            options={"engine": "plain", "flatness_samples": 16, "flatness_steps": 2, "threads": 1},
        )
        (reports[trial],) = run_trial(assignment)
        tables[trial] = pq.read_table(tmp_path / "evidence" / trial / "fold-00.parquet")
    assert tables["t0000"]["timestamp"].equals(tables["t0001"]["timestamp"])
    minutes = np.diff(tables["t0000"]["timestamp"].to_numpy()) / 60e9
    assert minutes.min() >= TINY["eval_stride"]
    metrics = reports["t0000"].metrics
    assert {"ic_5m", "ic_240m", "crps", "crps_5m", "coverage_90", "spread_ic", "flatness"} <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["ic_5m"] > 0.06  # 0.28 is planted in the newest bar's volume
    assert 0.75 < metrics["coverage_90"] < 0.97
    own, naive = (tables["t0000"][name].to_numpy().mean() for name in ("crps", "baseline_crps"))
    assert own == pytest.approx(naive, rel=0.15)
