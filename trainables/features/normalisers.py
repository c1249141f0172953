"""Scaling of features: fitted on the training rows of a fold, applied everywhere, stored with the model (NORM-2..6).

A column without spread in the training rows becomes 0. NaN stays NaN and takes no part in any statistic. Nothing here
imports torch; `instance_normalise` uses the methods of the tensor it is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from trainables.features.indicators import DEGENERATE
from trainables.features.registry import kinds
from trainables.features.rolling import rolling_mean, rolling_std

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["zscore", "mad", "minmax", "returns", "instance", "none"]
KINDS: tuple[Kind, ...] = ("zscore", "mad", "minmax", "returns", "instance", "none")

MAD_TO_STD = 1.4826
"""Standard deviation of a normal variable whose median absolute deviation is 1 (NORM-3)."""
BLOCK_ROWS = 65_536
"""Rows scaled at a time, so that the float64 work space stays small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normaliser:
    """A fitted scaling: (x - centre) x gain, clipped; price columns of `returns` are first divided by the row's close.

    Attributes:
        kind: How it was fitted. `none` and `instance` leave values as they are (`instance_normalise` scales windows).
        names: Column names.
        centre: (n_features,) subtracted.
        gain: (n_features,) multiplied; 0 for columns without spread.
        clip: Scaled values are cut to plus or minus this; exempt columns are not.
        exempt: (n_features,) bool. Columns left as they are.
    """

    kind: Kind
    names: tuple[str, ...]
    centre: NDArray[np.float64]
    gain: NDArray[np.float64]
    clip: float
    exempt: NDArray[np.bool_]

    def apply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Scale rows.

        Args:
            x: (n_rows, n_features) features, columns as `names`.

        Returns:
            (n_rows, n_features) float32, NaN where x is.

        Raises:
            ValueError: The number of columns differs.
        """
        _check_columns(x, self.names)
        if self.kind in ("none", "instance"):
            return np.array(x, dtype=np.float32)
        out = np.empty(x.shape, dtype=np.float32)
        for start in range(0, len(x), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            block = np.asarray(x[rows], dtype=np.float64)
            ratios = as_ratios(block, self.names) if self.kind == "returns" else block
            scaled = np.clip((ratios - self.centre) * self.gain, -self.clip, self.clip)
            out[rows] = np.where(self.exempt, block, scaled)
        return out

    def to_json(self) -> str:
        """Return the normaliser as text; `from_json` gives back the same bits."""
        return json.dumps(
            {
                "kind": self.kind,
                "names": self.names,
                "centre": self.centre.tolist(),
                "gain": self.gain.tolist(),
                "clip": self.clip,
                "exempt": self.exempt.tolist(),
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> Normaliser:
        """Read what `to_json` wrote."""
        stored = json.loads(text)
        return cls(
            kind=stored["kind"],
            names=tuple(stored["names"]),
            centre=np.array(stored["centre"], dtype=np.float64),
            gain=np.array(stored["gain"], dtype=np.float64),
            clip=stored["clip"],
            exempt=np.array(stored["exempt"], dtype=np.bool_),
        )


def fit_normaliser(
    kind: Kind, rows: NDArray[Any], names: Sequence[str], clip: float, price_kind: Kind | None = None
) -> Normaliser:
    """Fit a scaling on training rows.

    - `zscore`: mean and population standard deviation (NORM-2).
    - `mad`: median and 1.4826 x median absolute deviation; without such spread the standard deviation (NORM-3, C-29);
      categories are exempt.
    - `minmax`: the training range becomes [0, 1] (NORM-4).
    - `returns`: price columns become ratios to the row's close minus 1, then z-score (DATA-11).
    - `instance`, `none`: nothing is fitted.

    Args:
        kind: One of the above.
        rows: (n_rows, n_features) training rows; NaN allowed.
        names: Column names, in order.
        clip: Scaled values are cut to plus or minus this.
        price_kind: `returns`, `zscore` or `minmax` for price columns, where they are scaled in another way (DATA-11).

    Returns:
        The scaling.

    Raises:
        ValueError: Unknown kind, no rows, infinite values, or the number of names is not that of columns.
    """
    if kind not in KINDS:
        raise ValueError(f"normaliser: expected one of {', '.join(KINDS)}, found {kind!r}; correct normalizer")
    names = tuple(names)
    _check_columns(rows, names)
    if not len(rows):
        raise ValueError("normaliser: expected training rows, found none; give the fold more training data")
    exempt = categories(names) if kind in ("mad", "instance") else np.zeros(len(names), dtype=np.bool_)
    rest = kind
    if price_kind is not None:
        rest = "zscore" if kind == "returns" else kind
        kind = "returns" if price_kind == "returns" else rest
    prices, _ = _price_columns(names)
    kinds_of = [price_kind if price_kind is not None and is_price else rest for is_price in prices]
    columns = map(_fit_column, kinds_of, _fitted_columns(kind, rows, names))
    centre, gain = (np.array(values) for values in zip(*columns, strict=True))
    return Normaliser(kind=kind, names=names, centre=centre, gain=gain, clip=float(clip), exempt=exempt)


def _fitted_columns(kind: Kind, rows: NDArray[Any], names: tuple[str, ...]) -> Any:
    close = rows[:, names.index("close")].astype(np.float64) if kind == "returns" and "close" in names else None
    prices, distances = _price_columns(names)
    for j, name in enumerate(names):
        column = rows[:, j].astype(np.float64)
        if np.isinf(column).any():
            raise ValueError(
                f"normaliser: column {name!r}: expected finite values or NaN, found infinity; check the data"
            )
        if close is not None and prices[j]:
            column = column / close - 1.0
        elif close is not None and distances[j]:
            column = column / close
        yield column[~np.isnan(column)]


def _fit_column(kind: Kind, x: NDArray[np.float64]) -> tuple[float, float]:
    """Return what is subtracted and what is multiplied."""
    if kind in ("none", "instance") or not len(x):
        return 0.0, 0.0
    if kind == "minmax":
        low, spread = float(x.min()), float(x.max() - x.min())
        return low, _inverse(spread, low)
    if kind == "mad":
        median = float(np.median(x))
        spread = MAD_TO_STD * float(np.median(np.abs(x - median)))
        if spread >= MAD_TO_STD * DEGENERATE:
            return median, 1.0 / spread
        return median, _inverse(float(x.std()), median)
    mean = float(x.mean())
    return mean, _inverse(float(x.std()), mean)


def _inverse(spread: float, level: float) -> float:
    """Return 1/spread, 0 where the spread is no more than the rounding of the level."""
    return 0.0 if spread < DEGENERATE * max(1.0, abs(level)) else 1.0 / spread


def categories(names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which columns take two or three values only, by the registry; unknown names do not (C-29)."""
    return _is_kind(names, "category")


def as_ratios(rows: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    """Return rows with price levels as x/close - 1 and price distances as x/close; unchanged without a `close` column.

    Args:
        rows: (n_rows, n_features).
        names: Column names.

    Returns:
        (n_rows, n_features), a new array. The column `close` itself becomes 0: the row's moves are in the other prices.
    """
    if "close" not in names:
        return rows
    prices, distances = _price_columns(names)
    close = rows[:, list(names).index("close")][:, None]
    return np.where(prices | distances, rows / close - prices, rows)


def _price_columns(names: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return _is_kind(names, "price"), _is_kind(names, "distance")


def _is_kind(names: Sequence[str], kind: str) -> NDArray[np.bool_]:
    return np.array([found == kind for found in kinds(names)], dtype=np.bool_)


def _check_columns(x: NDArray[Any], names: Sequence[str]) -> None:
    if x.ndim != 2 or x.shape[1] != len(names):
        raise ValueError(
            f"normaliser: expected (n_rows, n_features) with {len(names)} features, found {x.shape}; "
            "use the columns that it was fitted on"
        )


def instance_normalise(windows_BTF: Tensor, names: Sequence[str], clip: float, epsilon: float = 1e-5) -> Tensor:
    """Scale every window by its own mean and population standard deviation over time (NORM-1, GROK-3).

    Args:
        windows_BTF: (B, T, F) windows; NaN stays NaN and is left out of the statistics.
        names: F column names; categories are left as they are.
        clip: Scaled values are cut to plus or minus this.
        epsilon: Added to the variance.

    Returns:
        (B, T, F) tensor of the same type and device.
    """
    mean = windows_BTF.nanmean(dim=1, keepdim=True)
    centred = windows_BTF - mean
    variance = (centred * centred).nanmean(dim=1, keepdim=True)
    scaled = (centred / (variance + epsilon).sqrt()).clamp(-clip, clip)
    exempt = categories(names)
    if not exempt.any():
        return scaled
    keep = windows_BTF.new_tensor(exempt.astype(np.float32)).bool()
    return windows_BTF.where(keep, scaled)


def trailing_zscore(rows: NDArray[Any], clip: float, window: int | None) -> NDArray[np.float32]:
    """Scale each row by the mean and deviation of the rows up to it (NORM-5: `expanding`, `rolling:n`).

    Args:
        rows: (n_rows, n_features) in time order, one run; NaN stays NaN and is left out of the statistics.
        clip: Scaled values are cut to plus or minus this.
        window: Rows in the statistics, the current one included; none: all so far. Windows of fewer rows give NaN.

    Returns:
        (n_rows, n_features) float32; row i depends on rows 0..i only. A window without spread gives 0.
    """
    out = np.full(rows.shape, np.nan, dtype=np.float32)
    for j in range(rows.shape[1]):
        kept = np.flatnonzero(~np.isnan(rows[:, j]))
        x = rows[kept, j].astype(np.float64)
        mean, deviation = _expanding(x) if window is None else _rolling(x, window)
        flat = deviation < DEGENERATE * np.maximum(1.0, np.abs(mean))
        scaled = np.where(flat, 0.0, (x - mean) / np.where(flat, 1.0, deviation))
        out[kept, j] = np.clip(scaled, -clip, clip)
    return out


def trailing_mad(rows: NDArray[Any], clip: float, window: int | None) -> NDArray[np.float32]:
    """Scale each row by the median and 1.4826 x median absolute deviation of the rows up to it (NORM-3, NORM-5).

    Args and result as `trailing_zscore`; where half of a window is one value, its standard deviation takes the place of
    the spread. Cost per row grows with the window (two medians), so `window=None` is for thousands of rows.
    """
    out = np.full(rows.shape, np.nan, dtype=np.float32)
    for j in range(rows.shape[1]):
        kept = np.flatnonzero(~np.isnan(rows[:, j]))
        scaled = _mad_scores(rows[kept, j].astype(np.float64), len(kept) if window is None else window, window is None)
        out[kept, j] = np.clip(scaled, -clip, clip)
    return out


@numba.njit(cache=True, nogil=True)
def _mad_scores(x: NDArray[np.float64], window: int, allow_short: bool) -> NDArray[np.float64]:
    out = np.full(len(x), np.nan)
    for i in range(len(x)):
        if i + 1 < window and not allow_short:
            continue
        past = x[max(i + 1 - window, 0) : i + 1]
        median = np.median(past)
        spread = MAD_TO_STD * np.median(np.abs(past - median))
        if spread < MAD_TO_STD * DEGENERATE:
            spread = past.std()
        out[i] = 0.0 if spread < DEGENERATE * max(1.0, abs(median)) else (x[i] - median) / spread
    return out


def _rolling(x: NDArray[np.float64], window: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one_run = np.zeros(len(x), dtype=np.int64)
    return rolling_mean(x, one_run, window), rolling_std(x, one_run, window)


def _expanding(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = np.arange(1, len(x) + 1)
    shifted = x - x[:1]
    mean = np.cumsum(shifted) / count
    variance = np.cumsum(shifted**2) / count - mean**2
    return mean + x[:1], np.sqrt(np.maximum(variance, 0.0))
