import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kurtosis, pearsonr, spearmanr

from trainables.data.config import DataConfig, FoldsConfig, RollConfig, SyntheticConfig
from trainables.data.loader import load_market
from trainables.data.placement import place_bars
from trainables.data.synthetic import make_market
from trainables.data.validation import find_defects
from trainables.data.zones import local_day, local_time
from trainables.errors import DataError


def section(roll=None, **settings):
    return DataConfig(source="synthetic", synthetic=SyntheticConfig(**settings), roll=roll)


def ahead(values, horizon):
    """Sum of the next `horizon` values after each."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[1 + horizon :] - total[1:-horizon]


def test_bars_are_without_defects_and_returns_have_the_wanted_volatility():
    for bars, n_sessions in (("days", 5000), ("minutes", 60), ("seconds", 2)):
        made = make_market(section(bars=bars, n_sessions=n_sessions))
        assert find_defects(made.bars()) == ()
        truth = made.truth
        assert abs(truth.shock.std() - 1) < 5 / np.sqrt(2 * len(truth.shock))
        returns = np.log(made.table["close"] / made.table["open"])
        np.testing.assert_allclose(returns.std(), np.sqrt((truth.bar_sigma**2).mean()), rtol=0.1)


def test_volatility_clusters_and_tails_are_fat_as_with_garch():
    made = make_market(section(n_sessions=5000))
    returns = np.log(made.table["close"] / made.table["open"])
    assert kurtosis(returns) > 1
    assert spearmanr(np.abs(returns[:-1]), np.abs(returns[1:])).statistic > 0.1
    assert abs(spearmanr(returns[:-1], returns[1:]).statistic) < 4 / np.sqrt(5000)


def test_variance_is_a_u_over_the_session():
    made = make_market(section(bars="minutes", n_sessions=300, regime_factors=(1.0,)))
    minute = np.arange(len(made.truth.session)) - np.searchsorted(made.truth.session, made.truth.session)
    squares = np.log(made.table["close"] / made.table["open"]) ** 2
    ends = squares[(minute < 30) | (minute >= 360)].mean()
    noon = squares[(minute > 165) & (minute < 225)].mean()
    assert 1.6 < ends / noon < 2.0


def test_regimes_stay_as_long_as_they_should():
    regime = make_market(section(n_sessions=5_000, regime_stay=0.95)).truth.regime
    changes = (np.diff(regime) != 0).mean()
    assert abs(changes - 0.05 * 2 / 3) < 0.01  # a fresh draw is the same regime one time in three
    assert set(regime) == {0, 1, 2}


@pytest.mark.parametrize(
    ("ic", "horizon", "persistence"), [(0.1, 1, 0.0), (-0.1, 1, 0.9), (0.1, 5, 0.0), (0.2, 5, 0.8), (0.15, 20, 0.95)]
)
def test_the_planted_correlation_is_there_within_sampling_error(ic, horizon, persistence):
    found, returns_too = [], []
    for seed in range(8):
        made = make_market(
            section(
                seed=seed,
                bars="minutes",
                n_sessions=52,
                planted_ic=ic,
                planted_horizon=horizon,
                planted_persistence=persistence,
                regime_factors=(1.0,),
            )
        )
        seen = np.log(made.table["volume"])[:-horizon]
        found.append(pearsonr(seen, ahead(made.truth.shock, horizon)).statistic)
        returns_too.append(spearmanr(seen, ahead(np.diff(np.log(made.table["close"]), prepend=0.0), horizon)).statistic)
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert abs(np.mean(found) - ic) < 4 * error + 1e-3
    assert error < 0.02
    assert abs(np.mean(returns_too) - ic) < 0.3 * abs(ic)  # ranks of returns whose volatility changes see a little less


def test_pure_noise_has_no_correlation():
    for seed in range(5):
        made = make_market(section(seed=seed, n_sessions=5_000))
        seen, returns = np.log(made.table["volume"][:-1]), np.diff(np.log(made.table["close"]))
        assert not made.truth.signal.any()
        for values in (seen, returns[:-1]):
            later = returns[len(returns) - len(values) :]
            assert abs(spearmanr(values, later).statistic) < 4 / np.sqrt(5_000)


def test_a_correlation_that_cannot_be_is_refused():
    with pytest.raises(DataError, match=r"planted_ic: expected a correlation that a signal of persistence 0 can have"):
        make_market(section(planted_ic=0.6, planted_horizon=5))


def test_sessions_are_those_of_the_calendar():
    """2024-07-03 and 2024-11-29 are half days; 2024-07-04 and 2024-11-28 are holidays."""
    made = make_market(section(bars="minutes", n_sessions=252, first_day="2024-01-02"))
    day, counts = np.unique(local_day(made.table["timestamp"]), return_counts=True)
    bars = dict(zip(day.astype("datetime64[D]").astype(str), counts.tolist(), strict=True))
    assert bars["2024-07-03"] == bars["2024-11-29"] == 210
    assert "2024-07-04" not in bars
    assert "2024-11-28" not in bars
    assert sorted(set(counts.tolist())) == [210, 390]
    clock = local_time(made.table["timestamp"]) % (86_400 * 10**9) // (60 * 10**9)
    assert (clock.min(), clock.max()) == (9 * 60 + 30, 15 * 60 + 59)


def test_missing_bars_are_missing_and_known():
    made = make_market(section(bars="minutes", n_sessions=50, missing_frac=0.1))
    assert abs(1 - made.truth.kept.mean() - 0.1) < 0.01
    assert len(made.table["close"]) == made.truth.kept.sum()
    assert np.diff(made.table["timestamp"]).max() > 60 * 10**9


def test_contracts_roll_four_times_a_year():
    settings = {"bars": "minutes", "n_sessions": 252, "rolls": True, "first_day": "2024-01-02"}
    placed = place_bars(section(RollConfig(), **settings))
    assert placed.marks["rolls"].startswith("4 by volume over SYNH24, SYNM24, SYNU24, SYNZ24, SYNH25")
    assert len(np.unique(placed.session)) == 251
    within = np.diff(placed.segment) == 0
    moves = np.abs(np.diff(np.log(placed.bars.close)))
    assert (np.sort(moves[~within])[-4:] > 0.003).all()
    plain = place_bars(section(**{**settings, "rolls": False}))
    rolled = place_bars(section(RollConfig(adjust="ratio_back_adjust"), **settings))
    tail = np.diff(np.log(plain.bars.close))[-len(rolled.bars) + 1 :]
    np.testing.assert_allclose(np.diff(np.log(rolled.bars.close)), tail, atol=1e-12)
    with pytest.raises(DataError, match=r"data\.roll: expected a section"):
        place_bars(section(**settings))
    with pytest.raises(DataError, match=r"data\.roll: expected none"):
        place_bars(section(RollConfig(), bars="minutes", n_sessions=30))


def test_same_seed_same_market_in_another_process():
    program = (
        "import hashlib\n"
        "from trainables.data.config import DataConfig, SyntheticConfig\n"
        "from trainables.data.synthetic import make_market\n"
        "data = DataConfig(source='synthetic', synthetic=SyntheticConfig(seed=7, n_sessions=300, planted_ic=0.1))\n"
        "print(hashlib.sha256(make_market(data).table['close'].tobytes()).hexdigest())\n"
    )
    root = __file__.rsplit("/tests/", 1)[0]
    there = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    here, other = (
        hashlib.sha256(make_market(section(seed=s, n_sessions=300, planted_ic=0.1)).table["close"].tobytes())
        for s in (7, 8)
    )
    assert there.stdout.strip() == here.hexdigest() != other.hexdigest()


def test_a_search_may_run_on_it():
    market = load_market(section(n_sessions=400), FoldsConfig())
    assert market.marks["market"] == "synthetic, seed 0, planted correlation 0"
    assert np.isfinite(market.delta).mean() > 0.99
    assert np.isfinite(market.iv_rank).sum() > 50
    known = market.known_time
    late = load_market(section(n_sessions=400), FoldsConfig(), vault="open")
    assert known[-1] < late.known_time[-1]
    np.testing.assert_array_equal(market.iv, late.iv[: len(market)])


def test_volatility_is_the_expected_one_with_its_premium():
    made = make_market(section(n_sessions=5000, iv_premium=0.25))
    realised = np.log(made.table["close"] / made.table["open"])[1:] ** 2 * 252
    implied = (made.volatility.value[:-1] / 1.25) ** 2
    assert abs(realised.mean() / implied.mean() - 1) < 0.1
