from datetime import date, time
from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.files import MINUTE, write_parquet
from tests.trainables.data.markets import weekdays
from trainables.data.config import DataConfig, FoldsConfig, RollConfig
from trainables.data.loader import load_market
from trainables.data.placement import place_bars
from trainables.data.rolls import delivery, traded_contract
from trainables.data.zones import instant
from trainables.errors import DataError

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"
NOISE = 1e-4
BASIS = 0.01


def contracts_file(tmp_path, volumes, *, n_bars=20, contracts=("ESH24", "ESM24"), gap=None, seed=0):
    """Contracts at a constant basis to one another; volumes (n_sessions, n_contracts) per session."""
    random = np.random.default_rng(seed)
    opens = [instant(day, time(9, 30)) for day in weekdays(len(volumes))]
    times = np.concatenate([o + MINUTE * np.arange(n_bars) for o in opens])
    path = 4000 * np.exp(np.cumsum(random.normal(0, NOISE, len(times))))
    parts = {name: [] for name in ("timestamp", "open", "high", "low", "close", "volume", "symbol")}
    for code, symbol in enumerate(contracts):
        close = path * (1 + BASIS) ** code
        part = {"timestamp": times, "open": close, "high": close, "low": close, "close": close}
        part["volume"] = np.repeat(np.asarray(volumes, float)[:, code] / n_bars, n_bars)
        part["symbol"] = np.full(len(times), symbol)
        kept = part["volume"] > 0
        for name in parts:
            parts[name].append(part[name][kept])
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    order = np.argsort(columns["timestamp"], kind="stable")
    return write_parquet(tmp_path / "contracts.parquet", {name: values[order] for name, values in columns.items()})


VOLUMES = [(900, 100), (800, 200), (400, 600), (300, 700), (100, 900), (50, 950)]
"""The later contract is ahead for the first time in session 2."""


def settings(path, adjust="per_contract"):
    return DataConfig(source="files", bars=path, roll=RollConfig(adjust=adjust))


@pytest.mark.requirement("DATA-2")
def test_the_roll_is_in_the_session_after_the_crossing(tmp_path):
    placed = place_bars(settings(contracts_file(tmp_path, VOLUMES)))
    jump = np.flatnonzero(np.abs(np.diff(np.log(placed.bars.close))) > BASIS / 2)
    assert len(jump) == 1
    first_day = placed.event_time[jump[0] + 1]
    assert first_day == instant(weekdays(6)[3], time(9, 30))  # session 2 is complete only then
    assert placed.marks["rolls"] == "1 by volume over ESH24, ESM24; prices per_contract"
    assert placed.event_time[0] == instant(weekdays(6)[1], time(9, 30))  # no completed session before the first


@pytest.mark.requirement("DATA-2")
def test_no_return_within_a_segment_shows_the_basis(tmp_path):
    path = contracts_file(tmp_path, VOLUMES)
    placed = place_bars(settings(path))
    assert placed.segment.tolist() == [0] * 40 + [1] * 60
    within = np.diff(placed.segment) == 0
    assert np.abs(np.diff(np.log(placed.bars.close)))[within].max() < 6 * NOISE


@pytest.mark.requirement("DATA-2")
def test_ratios_make_contracts_meet_without_changing_what_came_before(tmp_path):
    path = contracts_file(tmp_path, VOLUMES)
    adjusted, plain = place_bars(settings(path, "ratio_back_adjust")), place_bars(settings(path, "none"))
    assert np.abs(np.diff(np.log(adjusted.bars.close))).max() < 6 * NOISE
    assert set(adjusted.segment) == set(plain.segment) == {0}
    np.testing.assert_array_equal(adjusted.bars.close[:40], plain.bars.close[:40])
    assert np.abs(np.diff(np.log(plain.bars.close))).max() > BASIS / 2


def test_it_never_rolls_back_and_may_pass_over_a_contract():
    volume = np.array([[9, 1, 0], [2, 8, 0], [9, 1, 0], [9, 2, 5], [9, 9, 9]], float)
    assert traded_contract(volume).tolist() == [-1, 0, 1, 1, 2]


@pytest.mark.requirement("DATA-2")
def test_what_happens_in_a_session_does_not_change_its_contract():
    random = np.random.default_rng(0)
    volume = random.integers(0, 100, (50, 4)).astype(float)
    changed = volume.copy()
    changed[30:] = random.integers(0, 100, (20, 4))
    np.testing.assert_array_equal(traded_contract(volume)[:31], traded_contract(changed)[:31])


@pytest.mark.parametrize(
    ("symbol", "near", "expected"),
    [
        ("ESZ13", 2013, ("ES", 12 * 2013 + 11)),
        ("ESH5", 2024, ("ES", 12 * 2025 + 2)),
        ("MESM9", 2030, ("MES", 12 * 2029 + 5)),
        ("NQU1999", 2024, ("NQ", 12 * 1999 + 8)),
        ("6EH25", 2024, ("6E", 12 * 2025 + 2)),
    ],
)
def test_symbols_name_their_delivery(symbol, near, expected):
    assert delivery(symbol, near, "file") == expected


def test_contracts_that_cannot_be_rolled_are_refused(tmp_path):
    path = contracts_file(tmp_path, VOLUMES, contracts=("ESH24", "SPY"))
    with pytest.raises(DataError, match="expected contracts such as ESZ24 to roll, found 'SPY'"):
        place_bars(settings(path))
    path = contracts_file(tmp_path, VOLUMES, contracts=("ESH24", "NQM24"))
    with pytest.raises(DataError, match="expected contracts of one future, found ES, NQ"):
        place_bars(settings(path))
    one = place_bars(settings(path).model_copy(update={"symbol": "ES"}))
    assert "rolls" in one.marks
    path = contracts_file(tmp_path, [(9, 0), (9, 0), (0, 9), (0, 9)])
    with pytest.raises(DataError, match="expected a bar of both ESH24 and ESM24 before the roll"):
        place_bars(settings(path, "ratio_back_adjust"))
    with pytest.raises(DataError, match="after the first session"):
        place_bars(settings(contracts_file(tmp_path, VOLUMES[:1])))


def test_a_rolled_market_says_so(tmp_path):
    volumes = [(900, 100)] * 40 + [(100, 900)] * 30
    market = load_market(settings(contracts_file(tmp_path, volumes)), FoldsConfig(train_months=1), vault="open")
    assert "holes" not in market.marks
    assert len(np.unique(market.segment)) == 2
    assert market.session[-1] == 65  # 70 weekdays less three holidays and the first session


@pytest.mark.requirement("DATA-2")
def test_real_contracts_roll_forward_by_volume():
    path = SAMPLES / "es_1m_lean_2013_2020.parquet"
    if not path.is_file():
        pytest.skip("the real files are not here")
    data = DataConfig(
        source="files",
        bars=str(path),
        roll=RollConfig(),
        calendar="CMES",
        session="all",
        max_missing_sessions_frac=1.0,  # weeks of 2013 and of 2020
    )
    placed = place_bars(data)
    assert placed.marks["rolls"].startswith("2 by volume over ESZ13, ESH14, ESH20")
    assert (np.diff(placed.event_time) > 0).all()
    close = np.log(placed.bars.close)
    within = np.diff(placed.segment) == 0
    assert np.abs(np.diff(close))[within].max() < 0.02
    year = placed.event_time.astype("datetime64[ns]").astype("datetime64[Y]").astype(int) + 1970
    assert set(year) == {2013, 2020}
    assert date(2013, 10, 6).year in year
