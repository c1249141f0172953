from pathlib import Path

import numpy as np
import pytest

from tests.trainables.data.chains import chain_columns
from tests.trainables.data.files import START, session_columns, write_parquet, write_text
from trainables.data.config import ChainConfig, DataConfig, FoldsConfig
from trainables.data.greek_units import FACTORS, GreekUnits, convert_greeks, detect_units, with_spot
from trainables.data.implied_volatility import implied_volatility
from trainables.data.listed_option import checked_chain, listed_option
from trainables.data.loader import load_market
from trainables.data.options import (
    REASONS,
    count_reasons,
    implied_forward,
    nearest_strikes,
    quote_reasons,
    read_chain,
)
from trainables.data.zones import NS_PER_SECOND
from trainables.errors import DataError
from trainables.trading.black_scholes import price

SAMPLES = Path(__file__).resolve().parents[3].parent / "shared" / "data"
DAY = 86_400 * NS_PER_SECOND


def chain_of(tmp_path, columns, **settings):
    return read_chain(ChainConfig(path=write_parquet(tmp_path / "chain.parquet", columns), **settings), None)


def sample(name, **settings):
    path = SAMPLES / f"{name}.parquet"
    if not path.is_file():
        pytest.skip("the real files are not here")
    return read_chain(ChainConfig(path=str(path), **settings), None)


def test_text_and_parquet_give_the_same_rows(tmp_path):
    columns = chain_columns(1, days=(17,))
    as_text = {**columns, "expiry": [d.isoformat() for d in columns["expiry"].to_pylist()]}
    chain = chain_of(tmp_path, columns)
    other = read_chain(ChainConfig(path=write_text(tmp_path / "chain.csv", as_text)), None)
    for name in chain.__slots__:
        np.testing.assert_allclose(getattr(other, name), getattr(chain, name), rtol=1e-12)


def test_b35_an_expiry_ends_with_its_session_also_on_a_half_day_and_a_saturday(tmp_path):
    """2024-07-03 closed at 13:00 New York, 17:00 UTC; the Saturday after ends with Friday's session (B35)."""
    chain = chain_of(tmp_path, chain_columns(1, days=(183, 186), strikes=(470,)))
    ends = np.unique(chain.expiry).astype("datetime64[ns]").astype("datetime64[m]").astype(str)
    assert ends.tolist() == ["2024-07-03T17:00", "2024-07-05T20:00"]


def faulty(tmp_path, **changes):
    """The reasons of a chain whose at-the-money call of the first instant is changed."""
    columns = chain_columns(1, days=(31,), strikes=(450, 470, 490))
    row = next(i for i in range(6) if columns["strike"][i] == 470 and columns["type"][i] == "call")
    for name, value in changes.items():
        columns[name][row] = value
    chain = chain_of(tmp_path, columns)
    return REASONS[quote_reasons(chain, 0.02)[(chain.strike == 470) & (chain.is_call == 1)][0]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "good"),
        ({"bid": np.nan}, "no bid or no ask"),  # B32
        ({"bid": 0.0}, "zero bid"),  # B33
        ({"bid": -1.0}, "negative bid or ask"),
        ({"bid": 12.0, "ask": 11.0}, "crossed"),
        ({"bid": 12.0, "ask": 12.0}, "locked"),
        ({"bid": 480.0, "ask": 481.0}, "outside no-arbitrage bounds"),  # B34
    ],
)
def test_b32_to_b34_bad_quotes_are_masked_with_a_reason(tmp_path, changes, reason):
    assert faulty(tmp_path, **changes) == reason


def test_b34_an_option_offered_below_its_payoff_and_one_that_has_expired(tmp_path):
    columns = chain_columns(1, days=(31,))
    row = next(i for i, k in enumerate(columns["strike"]) if k == 450 and columns["type"][i] == "call")
    columns["bid"][row], columns["ask"][row] = 15.0, 15.5
    chain = chain_of(tmp_path, columns)
    assert count_reasons(quote_reasons(chain, 0.02)) == {"outside no-arbitrage bounds": 1}
    late = chain_of(tmp_path, chain_columns(1, days=(17,), start=START + 20 * DAY))
    assert count_reasons(quote_reasons(late, 0.02)) == {"expired": len(late)}


def test_the_forward_of_parity_knows_of_dividends(tmp_path):
    """Black (1976): with a dividend yield q the forward is S exp((r - q) T); prices made on S exp(-q T) have it."""
    dividend = 0.03
    columns = chain_columns(1, days=(31,))
    chain = chain_of(tmp_path, columns)
    spot = 470 * np.exp(-dividend * chain.years)
    value = price(spot, chain.strike, chain.years, 0.2, 0.02, chain.is_call)
    chain = chain.replace(bid=value * 0.99, ask=value * 1.01)
    np.testing.assert_allclose(implied_forward(chain, 0.02), 470 * np.exp((0.02 - dividend) * chain.years), rtol=1e-9)


def test_b34_a_chain_of_one_strike_and_type_is_read(tmp_path):
    columns = {name: values[:1] for name, values in chain_columns(1, days=(31,), strikes=(470,)).items()}
    chain = chain_of(tmp_path, columns)
    assert len(chain) == 1
    assert quote_reasons(chain, 0.02).tolist() == [0]


@pytest.mark.requirement("DATA-18")
@pytest.mark.parametrize("gamma", FACTORS["gamma"])
@pytest.mark.parametrize("vega", FACTORS["vega"])
@pytest.mark.parametrize("theta", FACTORS["theta"])
def test_units_are_found_and_undone(tmp_path, gamma, vega, theta):
    chain = chain_of(tmp_path, chain_columns(1))
    quoted = chain.replace(
        gamma=chain.gamma * (FACTORS["gamma"][gamma] or chain.underlying_price / 100),
        vega=chain.vega * FACTORS["vega"][vega],
        theta=chain.theta * FACTORS["theta"][theta],
    )
    units = detect_units(quoted, 0.0, "chain")
    assert (units.gamma, units.vega, units.theta) == (gamma, vega, theta)
    converted = convert_greeks(quoted, units)
    for name in ("delta", "gamma", "vega", "theta"):
        np.testing.assert_allclose(getattr(converted, name), getattr(chain, name), rtol=1e-12)


def test_greeks_in_no_known_unit_are_refused(tmp_path):
    chain = chain_of(tmp_path, chain_columns(1))
    with pytest.raises(DataError, match=r"expected vega in one of the units .* found a median of 7 times"):
        detect_units(chain.replace(vega=chain.vega * 7), 0.02, "chain")
    with pytest.raises(DataError, match=r"expected 20 rows near the money .* declare data.chain.greek_units"):
        detect_units(chain.take(np.arange(5)), 0.02, "chain")
    with pytest.raises(DataError, match=r"data\.chain\.greek_units: expected vega in one of"):
        GreekUnits.declared(("per dollar", "per dollar", "per inch", "per year"))


def test_the_price_of_the_underlying_follows_from_delta(tmp_path):
    columns = chain_columns(2)
    columns["underlying_price"][:] = np.nan
    chain, n_inferred = with_spot(chain_of(tmp_path, columns), 0.02)
    assert n_inferred == len(chain)
    np.testing.assert_allclose(chain.underlying_price, 470.0, rtol=1e-9)


@pytest.mark.requirement("DATA-18")
@pytest.mark.parametrize(
    ("name", "underlying", "expected"),
    [
        ("vxx_options_eod_201612", None, ("x 100", "per 1.00 of volatility", "per day x 100")),
        ("spx_options_eod_201101", None, ("per dollar", "per point of volatility", "per day")),
        ("spy_spx_options_eod_lean", "SPX", ("per dollar", "per point of volatility", "per day")),
    ],
)
def test_units_of_real_chains(name, underlying, expected):
    chain, _ = with_spot(sample(name, underlying=underlying), 0.003)
    units = detect_units(chain, 0.003, name)
    assert (units.delta, units.gamma, units.vega, units.theta) == ("per dollar", *expected)


def test_faults_of_real_chains_are_counted():
    found = {
        name: count_reasons(quote_reasons(sample(name), 0.003))
        for name in ("vxx_options_eod_201612", "spx_options_eod_201101", "goog_options_1m_20151224")
    }
    assert found["vxx_options_eod_201612"]["zero bid"] == 3486
    assert found["spx_options_eod_201101"]["zero bid"] == 967
    assert found["goog_options_1m_20151224"]["no bid or no ask"] > 0.4 * 275_552 - 1000


@pytest.mark.requirement("DATA-14")
def test_the_fifty_nearest_strikes_of_both_types(tmp_path):
    """Of 422 to 522 around 472.0 the kept ones are 447 to 496: of 447 and 497 the lower."""
    chain = chain_of(tmp_path, chain_columns(2, spot=472.0, strikes=range(422, 523), days=(31,)))
    kept = chain.take(nearest_strikes(chain, np.full(len(chain), 472.0)))
    for sign in (1.0, -1.0):
        strikes = np.unique(kept.strike[kept.is_call == sign])
        assert strikes.tolist() == list(range(447, 497))
    assert len(kept) == 2 * 100
    assert 423.0 not in kept.strike


@pytest.mark.requirement("DATA-14")
def test_contracts_without_trades_are_left_out_first(tmp_path):
    chain = chain_of(tmp_path, chain_columns(1, days=(31,)))
    chain.volume[chain.strike == 470] = 0.0
    spot = np.full(len(chain), 470.0)
    assert np.unique(chain.strike[nearest_strikes(chain, spot, n_strikes=2)]).tolist() == [469, 471]
    assert 470 in chain.strike[nearest_strikes(chain, spot, n_strikes=2, min_volume=0)]
    assert nearest_strikes(chain, spot, keep_far_strikes=True).sum() == len(chain) - 2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_implied_volatility_gives_the_price_back(sign):
    strike, volatility = np.meshgrid(np.linspace(400, 540, 8), [0.05, 0.2, 1.0, 4.0])
    value = price(470.0, strike, 0.1, volatility, 0.02, sign)
    found = implied_volatility(value, 470.0, strike, 0.1, 0.02, sign)
    has_time_value = value - price(470.0, strike, 0.1, 1e-3, 0.02, sign) > 1e-6
    np.testing.assert_allclose(found[has_time_value], volatility[has_time_value], rtol=1e-6)
    assert has_time_value.sum() > 24


def test_b34_a_price_without_a_volatility_has_none():
    """At the payoff, below it, above the underlying, after expiry, and no price at all."""
    values = np.array([20.0, 10.0, 471.0, 5.0, np.nan])
    years = np.array([0.1, 0.1, 0.1, -0.1, 0.1])
    assert np.isnan(implied_volatility(values, 470.0, 450.0, years, 0.0, 1.0)).all()


def test_bad_chain_files_are_refused_by_name(tmp_path):
    columns = chain_columns(1)

    def refusal(**changes):
        with pytest.raises(DataError) as caught:
            chain_of(tmp_path, {**columns, **changes})
        return str(caught.value)

    n = len(columns["strike"])
    assert "row 1: expected a strike above zero, found 0.0" in refusal(strike=np.zeros(n))
    assert "row 1: expected type call or put, found future" in refusal(type=["future"] * n)
    assert "expected one underlying, found QQQ, SPY; set data.chain.underlying" in refusal(
        underlying=["QQQ"] + ["SPY"] * (n - 1)
    )
    assert "expected one row per timestamp, expiry, strike and type" in refusal(strike=np.full(n, 470.0))
    del columns["expiry"]
    assert "expected a column expiry" in refusal()


def test_the_reference_option_is_the_fresh_put_nearest_the_close_and_thirty_days(tmp_path):
    data = DataConfig(source="files", chain=ChainConfig(path=write_parquet(tmp_path / "c.parquet", chain_columns(3))))
    checked = checked_chain(data)
    known = START + np.array([-1, 0, 1, 2, 3, 6, 8]) * 60 * NS_PER_SECOND
    close = np.array([470.0, 470.4, 470.6, 471.5, 480.0, 470.0, 470.0])
    option = listed_option(checked, known, close, data)
    np.testing.assert_array_equal(option.strike, [np.nan, 470, 471, 471, 480, 470, np.nan])
    assert (np.abs(option.years[1:-1] * 365 - 31) < 0.5).all()
    np.testing.assert_allclose(option.spread_ratio[1:-1], 0.02)
    np.testing.assert_allclose(option.iv[1:-1], 0.2)


def test_a_chain_without_greeks_has_those_of_its_prices(tmp_path):
    columns = chain_columns(1)
    full = DataConfig(source="files", chain=ChainConfig(path=write_parquet(tmp_path / "a.parquet", columns)))
    bare = {k: v for k, v in columns.items() if k not in ("iv", "delta", "gamma", "theta", "vega")}
    data = DataConfig(source="files", chain=ChainConfig(path=write_parquet(tmp_path / "b.parquet", bare)))
    now, close = np.array([START]), np.array([470.0])
    a, b = (listed_option(checked_chain(d), now, close, d) for d in (full, data))
    for name in ("iv", "delta", "gamma", "vega", "theta"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-6)


def test_b32_too_few_good_quotes_are_refused(tmp_path):
    columns = chain_columns(1)
    columns["bid"][: int(0.7 * len(columns["bid"]))] = np.nan
    data = DataConfig(source="files", chain=ChainConfig(path=write_parquet(tmp_path / "c.parquet", columns)))
    with pytest.raises(DataError, match=r"expected good quotes in 50% of 164 rows, found 30.5% \(masked: 114 no bid"):
        checked_chain(data)


def test_a_market_with_a_chain_is_measured_and_later_quotes_change_nothing(tmp_path):
    bars = write_parquet(tmp_path / "bars.parquet", session_columns(70))
    columns = chain_columns(300, days=(17, 31), strikes=range(440, 501, 5), step=60 * NS_PER_SECOND)

    def market(columns):
        path = write_parquet(tmp_path / "chain.parquet", columns)
        data = DataConfig(source="files", bars=bars, chain=ChainConfig(path=path))
        return load_market(data, FoldsConfig(train_months=1))

    before = market(columns)
    assert before.marks["chain"].startswith("measured, 100.0% of")
    assert before.marks["iv"].startswith("measured (put of the chain")
    assert np.isfinite(before.option_iv).sum() == 304  # 300 minutes of quotes, each good for up to 5 minutes
    late = columns["timestamp"] > START + 100 * 60 * NS_PER_SECOND
    after = market({**columns, "ask": np.where(late, columns["ask"] * 1.3, columns["ask"])})
    seen = before.known_time <= START + 100 * 60 * NS_PER_SECOND
    np.testing.assert_array_equal(before.spread_ratio[seen], after.spread_ratio[seen])
    assert not np.array_equal(before.spread_ratio[~seen], after.spread_ratio[~seen], equal_nan=True)
    assert before.snapshot != after.snapshot
