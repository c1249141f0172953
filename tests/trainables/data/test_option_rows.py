"""The stream of option rows of a chain: how many, which, and how little memory it takes."""

import tracemalloc
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.trainables.data.chains import chain_columns
from tests.trainables.data.files import MINUTE, START
from trainables.data.config import ChainConfig, DataConfig
from trainables.data.listed_option import checked_chain, listed_option
from trainables.data.option_rows import contracts_of, option_rows
from trainables.data.options import nearest_strikes
from trainables.errors import DataError


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A session of minutes and a chain of 60 strikes and two expiries, quoted at the end of every minute."""
    path = tmp_path_factory.mktemp("chain") / "c.parquet"
    columns = chain_columns(390, strikes=range(440, 500), days=(17, 31), start=START + MINUTE)
    columns["volume"] = np.where(columns["strike"] == 470, 0.0, 10.0)  # the one at the money was not traded
    pq.write_table(pa.table(columns), path)
    data = DataConfig(source="files", chain=ChainConfig(path=str(path)))
    known = START + MINUTE * np.arange(1, 391)
    close = 470.0 + 0.4 * np.sin(np.arange(390) / 20)
    return data, known, close


@cache
def _checked(data):
    return checked_chain(data)


@pytest.mark.requirement("DATA-16")
def test_a_day_of_minutes_streams_39_000_rows_in_little_more_memory_than_the_array(day):
    data, known, close = day
    contracts = contracts_of(_checked(data), data)
    list(option_rows(contracts, known[:2], close[:2], data))  # compiled outside of the count
    tracemalloc.start()
    array = np.empty((39_000, 52), dtype=np.float32)
    n, before = 0, tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for rows in option_rows(contracts, known, close, data, bars_at_once=1):
        for column, name in enumerate(("strike", "delta", "gamma", "vega", "theta", "option_iv", "spread_ratio")):
            array[n : n + len(rows), column] = getattr(rows, name)
        n += len(rows)
    above = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert n == 390 * 100 == 39_000
    assert above < 0.05 * array.nbytes, f"{above / array.nbytes:.1%} of the array"


@pytest.mark.requirement("DATA-14")
def test_rows_are_the_fifty_strikes_nearest_to_the_money_of_one_expiry(day):
    data, known, close = day
    checked = _checked(data)
    stream = list(option_rows(contracts_of(checked, data), known, close, data))
    bar, strike = (np.concatenate([getattr(rows, name) for rows in stream]) for name in ("bar", "strike"))
    chain = checked.chain.take(checked.chain.expiry == checked.chain.expiry.max())  # 31 days are nearest to 30
    spot = close[(chain.timestamp - known[0]) // MINUTE]
    kept = nearest_strikes(chain, spot, n_strikes=50, min_volume=1.0)
    for at in (0, 20, 200, 389):
        expected = np.sort(chain.strike[kept & (chain.timestamp == known[at])])
        np.testing.assert_array_equal(np.sort(strike[bar == at]), expected)
    assert (strike != 470).all()


def test_the_reference_row_is_the_option_of_the_bar_and_numbers_of_contracts_last(day):
    data, known, close = day
    plain = data.model_copy(update={"chain": data.chain.model_copy(update={"min_volume": 0.0})})
    checked = _checked(data)
    blocks = [list(option_rows(contracts_of(checked, plain), known, close, plain, bars_at_once=n)) for n in (7, 390)]
    names = ("bar", "contract", "is_reference", "strike", "theta", "is_call")
    small, whole = ({name: np.concatenate([getattr(r, name) for r in rows]) for name in names} for rows in blocks)
    for name in names:
        np.testing.assert_array_equal(small[name], whole[name])
    option = listed_option(checked, known, close, plain)
    np.testing.assert_array_equal(whole["bar"][whole["is_reference"]], np.arange(390))
    np.testing.assert_array_equal(whole["strike"][whole["is_reference"]], option.strike)
    np.testing.assert_array_equal(whole["theta"][whole["is_reference"]], option.theta)
    keys = np.stack([whole["contract"], whole["strike"], whole["is_call"]])
    assert len(np.unique(keys, axis=1).T) == len(np.unique(whole["contract"]))


def test_a_quote_that_is_too_old_makes_no_row_and_one_of_the_future_none_before(day):
    data, known, close = day
    contracts = contracts_of(_checked(data), data)
    late = known + 6 * MINUTE
    rows = next(option_rows(contracts, late[-1:], close[-1:], data))
    assert len(rows) == 0
    rows = next(option_rows(contracts, known[:1] - 1, close[:1], data))
    assert len(rows) == 0


def test_a_chain_without_volume_is_refused_unless_none_is_asked_for(day):
    data, _, _ = day
    checked = _checked(data)
    silent = type(checked)(
        chain=checked.chain.replace(volume=np.full(len(checked.chain), np.nan)), is_good=checked.is_good, mark=""
    )
    with pytest.raises(DataError, match=r"lower data\.chain\.min_volume"):
        contracts_of(silent, data)
    none = data.model_copy(update={"chain": data.chain.model_copy(update={"min_volume": 0.0})})
    assert contracts_of(silent, none).is_usable.any()
