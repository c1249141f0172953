"""Order of rows that are keyed by time and contract, so that windows over them mean something (DATA-19, C-2).

A stream of an option chain holds some hundred rows per minute: 120 rows in a row are a minute of many strikes, not two
hours of one. Three orders:

- `time`: one row per moment, of a contract chosen before (the loader's reference option).
- `per_contract`: contract after contract, each in time order and a segment of its own; a hole cuts it.
- `flat`: the stream as documented, by time and contract; one segment, windows mix contracts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Axis = Literal["time", "per_contract", "flat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOrder:
    """Which row comes where.

    Attributes:
        position: (n_rows,) positions in the input, in the order of the data set.
        segment: (n_rows,) of the ordered rows; a window may not cross from one number to another.
    """

    position: NDArray[np.int64]
    segment: NDArray[np.int64]


def order_rows(
    known_time: NDArray[np.int64], contract: NDArray[np.int64], axis: Axis, *, bar_ns: int, max_gap_bars: int = 0
) -> RowOrder:
    """Return the order of rows, and where it breaks into segments.

    Args:
        known_time: (n_rows,) ns UTC, in any order.
        contract: (n_rows,) number of (expiry, strike, type).
        axis: See the module.
        bar_ns: Step of the rows of one contract.
        max_gap_bars: Missing rows that a segment may hold; a gap flag in the features then tells them.

    Returns:
        The order. With `time` and `per_contract`, times inside a segment strictly increase.

    Raises:
        ValueError: Lengths differ, or a time occurs twice: with `time` at all, else for one contract.
    """
    if known_time.shape != contract.shape:
        raise ValueError(
            f"rows: expected a contract per time, found {contract.shape} and {known_time.shape}; join them"
        )
    outer, inner = (contract, known_time) if axis == "per_contract" else (known_time, contract)
    position = np.lexsort((inner, outer))
    times, contracts = known_time[position], contract[position]
    same_contract = contracts[1:] == contracts[:-1]
    step = np.diff(times)
    is_double = (step == 0) if axis == "time" else (step == 0) & same_contract
    if is_double.any():
        at, key = int(np.argmax(is_double)), "time" if axis == "time" else "time and contract"
        raise ValueError(
            f"rows: expected one row per {key}, found two at {times[at]} ns; "
            f"{'choose one contract per time' if axis == 'time' else 'remove one'}"
        )
    if axis == "flat":
        return RowOrder(position=position, segment=np.zeros(len(position), dtype=np.int64))
    is_cut = step > (max_gap_bars + 1) * bar_ns
    if axis == "per_contract":
        is_cut |= ~same_contract
    return RowOrder(position=position, segment=np.concatenate([[0], np.cumsum(is_cut)])[: len(position)])
