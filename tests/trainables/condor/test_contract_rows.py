"""The condor data set along the three sequence axes, over a chain of two dozen contracts and daily bars."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainables.data.chains import chain_columns
from tests.trainables.features.market_fixture import make_market
from trainables.condor.config import CondorConfig
from trainables.condor.trainable import FAMILY
from trainables.data.config import ChainConfig, DataConfig, FoldsConfig
from trainables.data.folds import FoldWindow, fold_rows
from trainables.data.windows import gather, history_length
from trainables.features.registry import compute
from trainables.features.settings import FeatureSettings

DAY = 86_400 * 10**9
TINY = {"d_model": 8, "n_layers": 1, "headdim": 4, "d_state": 2, "lookback": 5, "batch_size": 8}

pytestmark = pytest.mark.usefixtures("shared_market")


@pytest.fixture(scope="module")
def market():
    return make_market(sessions=430, per_session=1, bar_seconds=23_400)


@pytest.fixture(scope="module")
def data(tmp_path_factory, market):
    """Quotes of every calendar day, all expiring after the last bar; the strike of 460 is missing for a fortnight."""
    n_days = int((market.known_time[-1] - market.known_time[0]) // DAY) + 1
    columns = chain_columns(
        n_days, strikes=range(440, 501, 10), days=(n_days + 30,), start=int(market.known_time[0]), step=DAY
    )
    day = (columns["timestamp"] - columns["timestamp"][0]) // DAY
    kept = ~((columns["strike"] == 460) & (day >= 500) & (day < 514))
    path = tmp_path_factory.mktemp("chain") / "c.parquet"
    pq.write_table(pa.table(columns).filter(pa.array(kept)), path)
    return DataConfig(chain=ChainConfig(path=str(path), max_age_minutes=600.0))


def dataset(tmp_path, data, axis, **fields):
    config = CondorConfig(**{**TINY, "sequence_axis": axis, **fields})
    return FAMILY.dataset(config, data, FoldsConfig(), {}, tmp_path)


@pytest.mark.requirement("DATA-19")
def test_windows_of_the_data_set_stay_in_a_contract_and_step_by_one_bar(tmp_path, data, market):
    found = dataset(tmp_path, data, "per_contract")
    names = found.feature_names
    option = np.asarray(found.features)[:, [names.index("strike"), names.index("call_put")]]
    position = {int(t): i for i, t in enumerate(market.known_time)}
    bar = np.array([position[int(t)] for t in found.known_time])
    ends = np.flatnonzero(found.usable & (history_length(found) >= 5))
    assert len(ends) > 1000
    windows = ends[:, None] + np.arange(-4, 1)
    assert (np.diff(bar[windows], axis=1) == 1).all()
    np.testing.assert_array_equal(option[windows], np.repeat(option[ends][:, None], 5, axis=1))
    gone = found.known_time[(option[:, 0] == 460)]
    assert len(np.unique(found.segment)) == 14 + 2, "seven strikes of two types, two of them in two pieces"
    assert 2 * len(market) - len(gone) == 2 * 10


@pytest.mark.requirement("DATA-19")
def test_flat_windows_are_slices_of_the_stream_by_time_and_contract(tmp_path, data):
    found = dataset(tmp_path, data, "flat")
    features = np.asarray(found.features)
    assert (np.diff(found.known_time) >= 0).all()
    assert (found.segment == 0).all()
    ends = np.flatnonzero(found.usable & (history_length(found) >= 20))[[0, 77, -1]]
    for end, window in zip(ends, gather(features, ends, 20), strict=True):
        assert window.numpy().tobytes() == features[end - 19 : end + 1].tobytes()


@pytest.mark.requirement("DATA-19")
@pytest.mark.parametrize("axis", ["per_contract", "flat"])
def test_every_row_has_the_features_of_its_bar_with_its_own_option(tmp_path, data, market, axis):
    found = dataset(tmp_path, data, axis, feature_schema=52)
    features, names = np.asarray(found.features), found.feature_names
    position = {int(t): i for i, t in enumerate(market.known_time)}
    for at in np.flatnonzero(found.usable)[[0, 333, -1]]:
        bar = position[int(found.known_time[at])]
        own = {"strike": features[at, names.index("strike")], "delta": features[at, names.index("delta")]}
        option = {"spread_ratio": 0.02, "is_call": features[at, names.index("call_put")], **own}
        changed = {name: np.full(len(market), np.float64(value)) for name, value in option.items()}
        expected, _ = compute("condor52", replace(market, **changed), FeatureSettings())
        same = [i for i, name in enumerate(names) if name not in ("gamma", "vega", "theta", "iv")]
        np.testing.assert_allclose(features[at, same], expected[bar, same], rtol=2e-6)


def test_one_row_of_each_moment_is_scored_in_order_of_time_and_all_are_trained_on(tmp_path, data, market):
    per_time, per_contract = (dataset(tmp_path, data, axis) for axis in ("time", "per_contract"))
    start, end = int(market.known_time[360]), int(market.known_time[385])
    window = FoldWindow(
        index=0, train_start=0, train_end=start, validation_start=start, validation_end=end,
        vault_start=2**62, purge_days=None,
    )  # fmt: skip
    by_time, by_contract = (
        fold_rows(window, found, lookback=5, scored_lookback=5) for found in (per_time, per_contract)
    )
    scored = per_contract.known_time[by_contract.validation]
    assert (np.diff(scored) > 0).all()
    assert set(scored) <= set(per_time.known_time[by_time.validation])
    assert len(by_contract.train) > 5 * len(by_time.train)
    assert per_contract.marks["rows"].startswith(f"{len(per_contract)} of 14 contracts over {len(market)} bars")
