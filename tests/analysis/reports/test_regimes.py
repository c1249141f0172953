from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis import naive
from analysis.evidence import CommonEvidence, LeftOut
from analysis.reports import regimes

N = 600
NS_PER_DAY = 86_400 * 10**9


@pytest.fixture
def rows() -> pl.DataFrame:
    """Daily targets that are small, then large, then middling."""
    generator = np.random.default_rng(0)
    scale = np.repeat([0.5, 3.0, 1.2], N // 3)
    target = scale * generator.standard_normal(N)
    time = np.arange(N, dtype=np.int64) * NS_PER_DAY
    return pl.DataFrame({"timestamp": time, "prediction_1d": target, "target_1d": target})


def evidence(loss: np.ndarray) -> CommonEvidence:
    return CommonEvidence(
        trial_ids=tuple(f"t{k}" for k in range(loss.shape[1])),
        timestamp=np.arange(N, dtype=np.int64) * NS_PER_DAY,
        fold=np.zeros(N, dtype=np.int64),
        loss_TK=loss.astype(np.float32),
        advantage_TK=None, measure="", baseline="", signal_TK=None, signal_horizon="", horizon_rows=1, pnl_TK=None,
        left_out=LeftOut(), n_expected=loss.shape[1],
    )  # fmt: skip


def test_states_follow_the_size_of_past_moves_and_not_that_of_the_row(rows):
    state = regimes.states(rows)
    assert np.bincount(state[N // 3 + 60 : 2 * N // 3]).argmax() == 2
    assert np.bincount(state[1 : N // 3] + 1).argmax() == 1
    later = rows.with_columns(
        pl.when(pl.int_range(pl.len()) >= 300).then(99.0).otherwise(pl.col("target_1d")).alias("target_1d")
    )
    assert np.array_equal(naive.past_scale(later)[:301], naive.past_scale(rows)[:301], equal_nan=True)


def test_a_trial_that_is_best_in_calm_and_worst_in_storm_is_told(rows):
    generator = np.random.default_rng(1)
    storm = regimes.states(rows) == 2
    quality = np.array([0.0, 0.1, 0.2, 0.3])
    loss = 1 + np.where(storm[:, None], 0.12 - quality / 2, quality) + 0.01 * generator.standard_normal((N, 4))
    found = regimes.by_regime(evidence(loss), rows)
    assert list(found) == list(regimes.REGIMES)
    assert found["quiet"].best == "t0"
    assert found["unquiet"].best == "t3"
    assert found["unquiet"].agreement == pytest.approx(-1.0)
    assert found["unquiet"].place == 4
    assert sum(r.n_rows for r in found.values()) == N - 1
    (text,) = regimes.sentences(found, 4)
    assert "in unquiet times agrees least" in text
    assert "4 in unquiet times" in text


def test_too_little_is_not_split(rows):
    assert regimes.by_regime(None, rows) == {}
    assert regimes.by_regime(evidence(np.ones((N, 2))), rows) == {}
    assert regimes.by_regime(evidence(np.random.default_rng(0).random((N, 4))), rows.drop("target_1d")) == {}
    assert regimes.sentences({}, 0) == []
