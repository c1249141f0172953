"""The rows of a data set over a chain: every contract near the money at every bar (DATA-19, C-2).

`sequence_axis: per_contract` puts the contracts one after another, each in time order, so that a window is the recent
past of one; `flat` keeps the stream as documented, whose windows mix the strikes of a minute or two. What describes the
bar is taken from the features of bars; what describes the option is computed over the rows of its contract.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainables.data.config import DataConfig
from trainables.data.listed_option import checked_chain
from trainables.data.market import Market
from trainables.data.option_rows import OptionRows, contracts_of, option_rows
from trainables.data.sequence import order_rows
from trainables.features.bars import Bars
from trainables.features.blocks import ARRAYS
from trainables.features.primitives import active_rules
from trainables.features.registry import ROWS_AT_ONCE, rows_of
from trainables.features.row import FeatureRow
from trainables.features.settings import FeatureSettings

Arrays = Mapping[str, NDArray[Any]]

OPTION_FIELDS = ("strike", "delta", "gamma", "vega", "theta", "option_iv", "spread_ratio", "is_call")
"""Of a market: what is said of the option and not of the bar."""
OPTION_FEATURES = ("strike", "delta", "gamma", "vega", "theta", "iv", "spread_ratio", "dist_to_spot")
OPTION_TYPES = ("call_put", "call", "put")


def contract_rows(market: Market, data: DataConfig, axis: Literal["per_contract", "flat"]) -> dict[str, NDArray[Any]]:
    """Return the rows in the order of the axis, as arrays (n_rows,) for the store.

    `bar`, `contract`, `is_reference` and OPTION_FIELDS as in `OptionRows`, and `segment`: per contract it ends where
    the contract is not listed for a bar, and where the market's segment does; `flat` is one.

    Raises:
        DataError: The chain cannot be used.
    """
    blocks = list(option_rows(contracts_of(checked_chain(data), data), market.known_time, market.close, data))
    rows = {f.name: np.concatenate([getattr(block, f.name) for block in blocks]) for f in fields(OptionRows)}
    order = order_rows(rows["bar"], rows["contract"], axis, bar_ns=1)
    rows = {name: column[order.position] for name, column in rows.items()}
    if axis == "flat":
        return {**rows, "segment": order.segment}
    is_cut = np.diff(order.segment) != 0
    is_cut |= np.diff(market.segment[rows["bar"]]) != 0
    return {**rows, "segment": np.cumsum(np.append(False, is_cut)).astype(np.int64)}


def contract_features(
    schema: str, settings: FeatureSettings, market: Market, of_bars: NDArray[np.float32], rows: Arrays
) -> NDArray[np.float32]:
    """Return the features of the rows, (n_rows, n_features).

    Args:
        schema: Name in `SCHEMAS`.
        settings: Numbers from the documents.
        market: The bars.
        of_bars: (n_bars, n_features) of the same schema, with the reference option.
        rows: From `contract_rows`.
    """
    columns = [(i, row) for i, row in enumerate(rows_of(schema)) if _is_of_option(row, settings)]
    features = np.empty((len(rows["bar"]), of_bars.shape[1]), dtype=np.float32)
    by_contract = np.lexsort((rows["bar"], rows["contract"]))
    for part in _blocks_of_contracts(rows["contract"][by_contract]):
        at = by_contract[part]
        features[at] = of_bars[rows["bar"][at]]
        bars = Bars(_market_of_rows(market, {name: column[at] for name, column in rows.items()}), settings)
        for i, row in columns:
            features[at, i] = row.function(bars)
    return features


def _blocks_of_contracts(contract: NDArray[np.int64]) -> list[slice]:
    """Cut rows in the order of contracts into blocks of whole contracts, of about the size of a block of bars."""
    starts = np.flatnonzero(np.append(True, np.diff(contract) != 0)) if len(contract) else np.empty(0, dtype=np.int64)
    firsts = starts[np.append(True, np.diff(starts // ROWS_AT_ONCE) != 0)] if len(starts) else starts
    return [slice(a, b) for a, b in zip(firsts, np.append(firsts[1:], len(contract)), strict=True)]


def _market_of_rows(market: Market, rows: Arrays) -> Market:
    """Return the bars of the rows with their options, a segment for each contract."""
    bars = {name: getattr(market, name)[rows["bar"]] for name in ARRAYS if name not in OPTION_FIELDS}
    options = {name: rows[name] for name in OPTION_FIELDS}
    return replace(market, **{**bars, **options, "segment": rows["contract"]}, series={})


def _is_of_option(row: FeatureRow, settings: FeatureSettings) -> bool:
    if row.group != "primitive":
        return row.name in (*OPTION_FEATURES, *OPTION_TYPES)
    names = {node.id for node in ast.walk(active_rules(settings.rules_file)[row.name]) if isinstance(node, ast.Name)}
    return bool(names & set(OPTION_FIELDS))
