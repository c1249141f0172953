import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scoringrules
from scipy import stats

from analysis import naive
from analysis.reports import skill


def evidence(n: int = 300, quality: float = 0.7, seed: int = 0, **more) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    target = generator.standard_normal(n)
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return pl.DataFrame(
        {
            "timestamp": [start + timedelta(days=k) for k in range(n)],
            "loss": target**2,
            "prediction_1d": quality * target,
            "target_1d": target,
            "scale_1d": np.full(n, math.sqrt(1 - quality**2)),
            "fold": np.repeat(np.arange(3), n // 3),
        }
        | more
    )


@pytest.mark.requirement("ANALYSIS-4")
def test_naive_forecast_knows_earlier_folds_only():
    rows = evidence()
    (found,) = skill.against_baseline(rows)
    y, fold = rows["target_1d"].to_numpy(), rows["fold"].to_numpy()
    later = fold > 0
    spread = [math.sqrt(np.mean(y[fold < f] ** 2)) for f in fold[later]]
    naive = scoringrules.crps_normal(y[later], 0.0, np.array(spread))
    own = scoringrules.crps_normal(
        y[later], rows["prediction_1d"].to_numpy()[later], rows["scale_1d"].to_numpy()[later]
    )
    assert found.reduction == pytest.approx(1 - own.mean() / naive.mean(), rel=1e-9)
    assert found.n_rows == 200
    assert found.p < 1e-3


@pytest.mark.requirement("ANALYSIS-4")
def test_scores_that_the_evidence_brings_are_used_and_equal_scores_save_nothing():
    rows = evidence(baseline_loss=evidence()["loss"].to_numpy() * 2)
    (found,) = skill.against_baseline(rows)
    assert (found.measure, found.reduction, found.n_rows) == ("loss", 0.5, 300)
    (same,) = skill.against_baseline(evidence(baseline_loss=evidence()["loss"].to_numpy()))
    assert (same.reduction, same.t, same.p) == (0.0, None, None)


def test_evidence_that_allows_no_comparison():
    assert skill.against_baseline(evidence().drop("scale_1d")) == []
    one_fold = evidence().filter(pl.col("fold") == 0)
    assert skill.against_baseline(one_fold) == []


@pytest.mark.requirement("ANALYSIS-2")
def test_ic_of_each_horizon_in_order_of_length():
    target = evidence()["target_1d"].to_numpy()
    rows = evidence(prediction_5m=-target, target_5m=target, prediction_2h=np.zeros(300), target_2h=target)
    found = skill.ic_by_horizon(rows)
    assert naive.horizons(rows.columns) == ["5m", "2h", "1d"]
    assert list(found) == ["5m", "1d"]  # a constant forecast has no correlation
    judge = stats.spearmanr(rows["prediction_1d"], target).statistic
    assert found["1d"].value == pytest.approx(judge)
    assert found["5m"].value == pytest.approx(-1.0)


@pytest.mark.parametrize(("horizon", "n"), [("5d", 5), ("1d", 1), ("30m", 1), ("next", 1)])
def test_rows_that_a_horizon_spans(horizon, n):
    assert naive.horizon_rows(evidence()["timestamp"], horizon) == n
