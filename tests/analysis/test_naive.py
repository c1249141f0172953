import math

import numpy as np
import polars as pl
import pytest

from analysis import naive
from analysis.measures import baselines, crps
from tests.analysis import fake_run


def evidence(**columns):
    return pl.DataFrame({"timestamp": [1, 2, 3, 4], "fold": [0, 0, 1, 1], "loss": [1.0, 2.0, 3.0, 4.0], **columns})


def test_scores_that_the_evidence_brings_come_first():
    found = naive.advantage(evidence(baseline_loss=[2.0, 2.0, 2.0, 2.0], p_up=[0.5] * 4, up=[0.0] * 4))
    assert found.values.tolist() == [1.0, 0.0, -1.0, -2.0]
    assert found.measure == "loss"


@pytest.mark.requirement("ANALYSIS-4")
def test_share_of_rises_knows_earlier_folds_only():
    found = naive.advantage(evidence(p_up=[0.5, 0.5, 0.25, 0.25], up=[1.0, 0.0, 1.0, 0.0]))
    assert np.allclose(found.values, [math.nan, math.nan, 0.25 - 0.5625, 0.25 - 0.0625], equal_nan=True)


@pytest.mark.requirement("ANALYSIS-4")
def test_the_better_of_two_naive_forecasts_is_the_baseline():
    generator = np.random.default_rng(0)
    fold = np.repeat([0, 1, 2], 300)
    calm = generator.standard_normal(900)
    found, words = naive.naive_crps(calm, fold, 1)
    assert "earlier folds" in words
    assert np.isnan(found[:300]).all()
    assert np.allclose(found[300:600], crps.gaussian(calm[300:600], 0.0, baselines.scale_of(calm[:300])))
    restless = calm * np.where(np.arange(900) % 300 < 150, 0.1, 3.0)
    found, words = naive.naive_crps(restless, fold, 1)
    assert "moving spread" in words
    scale = baselines.ewma_scale(restless, span_rows=naive.EWMA_SPAN_ROWS)
    assert found[450] == pytest.approx(crps.gaussian(restless[450:451], 0.0, scale[449])[0])


def test_naive_forecasts_do_not_know_what_comes(tmp_path):
    generator = np.random.default_rng(1)
    target, fold = generator.standard_normal(400) * np.linspace(0.1, 4, 400), np.repeat([0, 1], 200)
    for horizon in (1, 5):
        before, _ = naive.naive_crps(target, fold, horizon)
        changed = target.copy()
        changed[301:] *= 1.5
        after, _ = naive.naive_crps(changed, fold, horizon)
        assert np.array_equal(before[:301], after[:301], equal_nan=True)


def test_no_scale_and_no_probability_lets_nothing_be_compared():
    assert naive.advantage(evidence(prediction_1d=[0.0] * 4, target_1d=[0.0] * 4)) is None


def test_horizons_in_order_of_length_and_in_rows(tmp_path):
    columns = [f"{what}_{h}" for h in ("10d", "1d", "30m", "5b") for what in ("prediction", "target")]
    assert naive.horizons([*columns, "prediction_9d"]) == ["30m", "1d", "10d", "5b"]
    frame = fake_run.fold_evidence(np.random.default_rng(0), 0, 0.1, np.zeros((1, 126)))
    rows = [naive.horizon_rows(frame["timestamp"], h) for h in ("1d", "5d", "30m", "20b", "next")]
    assert rows == [1, 5, 1, 20, 1]
