"""Scaling: figures of the specification, SciPy, round trips, and statistics of training rows only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from trainables.features.normalisers import (
    KINDS,
    Normaliser,
    fit_normaliser,
    instance_normalise,
    trailing_mad,
    trailing_zscore,
)

NAMES = ("open", "close", "volume", "rsi", "atr", "psar_mark", "call_put")


@pytest.fixture
def rows() -> np.ndarray:
    generator = np.random.default_rng(2)
    close = 400.0 + generator.normal(0, 5, 200).cumsum()
    columns = (close * 1.001, close, generator.lognormal(8, 1, 200), generator.uniform(20, 80, 200), close * 0.01)
    mark = generator.choice([-1.0, 1.0], 200)
    x = np.stack([*columns, mark, np.full(200, -1.0)], axis=1)
    x[generator.random(x.shape) < 0.02] = np.nan
    return x


@pytest.mark.requirement("NORM-2")
def test_zscore_equals_scipy_and_is_clipped(rows: np.ndarray) -> None:
    fitted = fit_normaliser("zscore", rows, NAMES, 10.0)
    expected = stats.zscore(rows[:, :6], nan_policy="omit")
    np.testing.assert_allclose(fitted.apply(rows)[:, :6], expected, rtol=1e-5, atol=1e-6)
    far = np.full((1, 7), 1e9)
    np.testing.assert_array_equal(fitted.apply(far)[0, :6], np.full(6, 10.0))
    assert fitted.apply(far)[0, 6] == 0.0


@pytest.mark.requirement("NORM-3")
def test_mad_of_the_documented_vector() -> None:
    x = np.array([[1, 1], [2, -1], [3, 1], [4, 1], [100, -1]], dtype=float)
    fitted = fit_normaliser("mad", x, ("rsi", "psar_mark"), 10.0)
    assert (100 - 3) * fitted.gain[0] == pytest.approx(65.43, abs=0.005)
    found = fitted.apply(x)
    assert found[4, 0] == 10.0
    assert found[2, 0] == 0.0
    np.testing.assert_array_equal(found[:, 1], x[:, 1])


@pytest.mark.requirement("NORM-3")
def test_mad_equals_scipy_and_falls_back_to_the_deviation_then_to_zero(rows: np.ndarray) -> None:
    fitted = fit_normaliser("mad", rows, NAMES, 1e9)
    for j in range(5):
        column = rows[:, j]
        spread = stats.median_abs_deviation(column, nan_policy="omit", scale=1 / 1.4826)
        np.testing.assert_allclose(
            fitted.apply(rows)[:, j], (column - np.nanmedian(column)) / spread, rtol=1e-4, atol=1e-5
        )
    mostly_equal = np.array([[5.0]] * 9 + [[6.0]])
    fallen = fit_normaliser("mad", mostly_equal, ("rsi",), 10.0)
    assert fallen.apply(np.array([[6.0]]))[0, 0] == pytest.approx(1 / 0.3)
    assert fit_normaliser("mad", np.full((9, 1), 0.1), ("rsi",), 10.0).apply(np.array([[7.0]]))[0, 0] == 0.0


def test_names_mean_what_their_own_family_says() -> None:
    x = np.arange(12.0).reshape(4, 3)
    of_condor = fit_normaliser("mad", x, ("adx_normalized", "macd_signal", "bandwidth"), 10.0)
    of_scaling = fit_normaliser("mad", x, ("rsi_14", "macd_signal", "stoch_d"), 10.0)
    assert of_condor.exempt.tolist() == [False, True, False]
    assert not of_scaling.exempt.any()


@pytest.mark.requirement("NORM-4")
def test_minmax_maps_the_training_range_to_zero_and_one(rows: np.ndarray) -> None:
    found = fit_normaliser("minmax", rows, NAMES, 10.0).apply(rows)
    np.testing.assert_allclose(np.nanmin(found[:, :6], axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.nanmax(found[:, :6], axis=0), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(found[~np.isnan(rows[:, 6]), 6], 0.0)


@pytest.mark.requirement("DATA-11")
def test_returns_make_prices_relative_to_the_close_of_the_row() -> None:
    generator = np.random.default_rng(0)
    close = generator.uniform(100, 1000, 50)
    ratio, share = generator.normal(1, 0.01, 50), generator.uniform(0.01, 0.02, 50)
    names = ("open", "close", "atr", "rsi")
    x = np.stack([close * ratio, close, close * share, generator.uniform(0, 100, 50)], axis=1)
    found = fit_normaliser("returns", x, names, 10.0).apply(x)
    np.testing.assert_allclose(found[:, 0], stats.zscore(ratio), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[:, 1], 0.0)
    np.testing.assert_allclose(found[:, 2], stats.zscore(share), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 3], stats.zscore(x[:, 3]), rtol=1e-5, atol=1e-6)


@pytest.mark.requirement("NORM-4")
@pytest.mark.requirement("NORM-6")
@pytest.mark.parametrize("kind", KINDS)
def test_stored_and_read_again_it_scales_to_the_same_bits(kind: str, rows: np.ndarray) -> None:
    fitted = fit_normaliser(kind, rows, NAMES, 7.5)
    again = Normaliser.from_json(fitted.to_json())
    np.testing.assert_array_equal(again.apply(rows), fitted.apply(rows))
    assert again.to_json() == fitted.to_json()
    assert fitted.apply(rows).dtype == np.float32
    unknown = np.isnan(rows)
    if kind == "returns":
        unknown[:, [0, 1, 4]] |= unknown[:, [1]]
    np.testing.assert_array_equal(np.isnan(fitted.apply(rows)), unknown)
    if kind in ("none", "instance"):
        np.testing.assert_array_equal(fitted.apply(rows), rows.astype(np.float32))


@pytest.mark.requirement("NORM-6")
@pytest.mark.parametrize("kind", KINDS)
def test_applying_leaves_rows_and_statistics_alone(kind: str, rows: np.ndarray) -> None:
    train, validation = rows[:150], rows[150:].copy()
    fitted = fit_normaliser(kind, train, NAMES, 10.0)
    before = fitted.to_json(), fitted.apply(train)
    rows[150:] *= 100
    fitted.apply(rows[150:])
    assert fit_normaliser(kind, rows[:150], NAMES, 10.0).to_json() == before[0] == fitted.to_json()
    np.testing.assert_array_equal(rows[150:], validation * 100)


def test_blocks_make_no_difference(rows: np.ndarray) -> None:
    many = np.tile(rows, (400, 1))
    fitted = fit_normaliser("zscore", rows, NAMES, 10.0)
    np.testing.assert_array_equal(fitted.apply(many)[-200:], fitted.apply(rows))


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ("zscor", (5, 7), "expected one of zscore"),
        ("zscore", (5, 6), r"with 7 features, found \(5, 6\)"),
        ("zscore", (0, 7), "expected training rows, found none"),
    ],
)
def test_wrong_calls_are_refused(kind: str, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_normaliser(kind, np.zeros(shape), NAMES, 10.0)


def test_infinite_values_are_refused() -> None:
    with pytest.raises(ValueError, match="column 'rsi': expected finite values"):
        fit_normaliser("mad", np.array([[1.0], [np.inf]]), ("rsi",), 10.0)


@pytest.mark.requirement("NORM-1")
def test_instance_normalisation_equals_torch_and_leaves_categories() -> None:
    windows = torch.randn(4, 30, 3, generator=torch.Generator().manual_seed(0)) * 3 + 5
    windows[:, :, 2] = torch.sign(windows[:, :, 2] - 5)
    found = instance_normalise(windows, ("close", "rsi", "psar_mark"), 10.0)
    expected = torch.nn.functional.instance_norm(windows.transpose(1, 2), eps=1e-5).transpose(1, 2)
    torch.testing.assert_close(found[:, :, :2], expected[:, :, :2])
    torch.testing.assert_close(found[:, :, 2], windows[:, :, 2])
    flat = instance_normalise(torch.full((1, 5, 1), 3.0), ("rsi",), 10.0)
    assert (flat == 0).all()
    holey = torch.tensor([[[1.0], [float("nan")], [3.0]]])
    torch.testing.assert_close(
        instance_normalise(holey, ("rsi",), 10.0)[0, :, 0],
        torch.tensor([-1.0, float("nan"), 1.0]),
        equal_nan=True,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.requirement("NORM-5")
@pytest.mark.parametrize("window", [None, 20])
def test_trailing_statistics_see_no_later_row(window: int | None, rows: np.ndarray) -> None:
    found = trailing_zscore(rows, 10.0, window)
    changed = rows.copy()
    changed[120:] *= 50
    np.testing.assert_array_equal(trailing_zscore(changed, 10.0, window)[:120], found[:120])
    past = rows[: 100 + 1, 3]
    past = past[~np.isnan(past)][-(window or len(past)) :]
    assert found[100, 3] == pytest.approx((past[-1] - past.mean()) / past.std(), rel=1e-4)


@pytest.mark.requirement("NORM-5")
@pytest.mark.parametrize("window", [None, 20])
def test_trailing_median_and_deviation_are_those_of_scipy_and_see_no_later_row(
    window: int | None, rows: np.ndarray
) -> None:
    found = trailing_mad(rows, 10.0, window)
    changed = rows.copy()
    changed[120:] *= 50
    np.testing.assert_array_equal(trailing_mad(changed, 10.0, window)[:120], found[:120])
    past = rows[:101, 3]
    past = past[~np.isnan(past)][-(window or len(past)) :]
    expected = (past[-1] - np.median(past)) / (1.4826 * stats.median_abs_deviation(past))
    assert found[100, 3] == pytest.approx(expected, rel=1e-4)
    mostly_one = np.append(np.ones(30), 5.0)[:, None]
    assert trailing_mad(mostly_one, 10.0, window)[-1, 0] == pytest.approx(
        4.0 / mostly_one[-(window or 31) :].std(), rel=1e-4
    )
    assert (trailing_mad(np.full((30, 1), 7.0), 10.0, window)[25:] == 0).all()


@pytest.mark.requirement("DATA-11")
@pytest.mark.parametrize("kind", ["zscore", "mad", "minmax"])
def test_price_columns_may_be_scaled_in_another_way_than_the_rest(rows: np.ndarray, kind: str) -> None:
    names = ("open", "close", "volume", "rsi")
    x = rows[:, :4]
    whole = {price: fit_normaliser(price, x, names, 1e9).apply(x) for price in ("returns", "zscore", "minmax")}
    rest = fit_normaliser(kind, x, names, 1e9).apply(x)
    for price, expected in whole.items():
        mixed = fit_normaliser(kind, x, names, 1e9, price)
        found = Normaliser.from_json(mixed.to_json()).apply(x)
        np.testing.assert_array_equal(found[:, :2], expected[:, :2])
        np.testing.assert_array_equal(found[:, 2:], rest[:, 2:])
