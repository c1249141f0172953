"""The table of all features, and the computation of a schema."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from trainables.data.market import Market
from trainables.features import beside, condor, mes, nq, primitives, scaling
from trainables.features.blocks import Progress, extend, viewed
from trainables.features.rolling import Float
from trainables.features.row import FeatureRow, Kind
from trainables.features.schemas import SCHEMAS
from trainables.features.settings import FeatureSettings

ROWS_AT_ONCE = 32_768
"""Bars of a block: what is computed on the way stays in the cache, and takes no memory to speak of."""

_LOG = logging.getLogger(__name__)

REGISTRY: Mapping[str, FeatureRow] = MappingProxyType(
    {f"{row.family}.{row.name}": row for part in (condor, primitives, nq, mes, scaling, beside) for row in part.ROWS}
)
"""`family.name` -> row, for every feature of every schema."""


def rows_of(schema: str, series: Collection[str] | None = None) -> tuple[FeatureRow, ...]:
    """Return the rows of a schema in column order.

    Args:
        schema: Name in `SCHEMAS`.
        series: Names of the series beside the market; rows that need another one are left out. None: no row is.

    Raises:
        ValueError: The schema is unknown.
    """
    if schema not in SCHEMAS:
        near = difflib.get_close_matches(schema, SCHEMAS, n=3) or list(SCHEMAS)
        raise ValueError(f"features: unknown schema {schema!r}; nearest: {', '.join(near)}")
    rows = (REGISTRY[key] for key in SCHEMAS[schema])
    return tuple(row for row in rows if series is None or set(row.series) <= set(series))


def compute(
    schema: str, market: Market, settings: FeatureSettings, series: Mapping[str, Float] | None = None
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Compute all features of a schema, but those of series that are not given: they are left out, with a log line.

    A row holds what is known at the bar's `known_time`; later bars change nothing at or before it (DATA-30).

    Args:
        schema: Name in `SCHEMAS`.
        market: The bars.
        settings: Numbers from the documents.
        series: Series beside the market (FEAT-SC-7..9), (n_bars,) each: the value known at the bar's `known_time`, NaN
            where there is none or it is too old. Names: `trainables.features.beside`.

    Returns:
        Features (n_bars, n_features) float32, NaN where not known, and their names in column order.

    Raises:
        ValueError: The schema is unknown, the market's bars cannot carry it, or a series has another length.
    """
    given = _checked(series or {}, len(market))
    rows = rows_of(schema, given)
    _log_absent(schema, given)
    progress, features = Progress(), np.empty((len(market), len(rows)), dtype=np.float32)
    for start in range(0, len(market), ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, len(market))
        part = {name: values[start:end] for name, values in given.items()}
        extend(progress, rows, settings, viewed(market, start, end), part, features[start:end])
    return features, tuple(row.name for row in rows)


def _checked(series: Mapping[str, Float], n_bars: int) -> dict[str, Float]:
    for name, values in series.items():
        if np.shape(values) != (n_bars,):
            raise ValueError(f"series {name}: expected ({n_bars},), one per bar, found {np.shape(values)}; join it")
    return {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}


def _log_absent(schema: str, given: Collection[str]) -> None:
    """Say which features are off, and why: an absent series is never filled with zeros (DATA-27)."""
    rows = rows_of(schema)
    absent = sorted({name for row in rows for name in row.series} - set(given))
    if absent:
        n_off = sum(not set(row.series) <= set(given) for row in rows)
        _LOG.info("%s: %d of %d features are off: no series %s", schema, n_off, len(rows), ", ".join(absent))


def lookback(schema: str, settings: FeatureSettings, bars_per_session: int) -> int:
    """Return the bars of one run that the slowest feature of a schema needs, the current one included."""
    return max(row.lookback(settings, bars_per_session) for row in rows_of(schema))


def groups(schema: str) -> tuple[str, ...]:
    """Return the semantic group of each column."""
    return tuple(row.group for row in rows_of(schema))


def kinds(names: Sequence[str]) -> tuple[Kind, ...]:
    """Return how scaling may treat columns that are known by name only.

    Columns of one matrix come from one family: the one that has most of the names. Names it lacks are numbers.
    """
    families = {row.family for row in REGISTRY.values()}
    family = max(sorted(families), key=lambda family: sum(f"{family}.{name}" in REGISTRY for name in names))
    return tuple(REGISTRY[key].kind if (key := f"{family}.{name}") in REGISTRY else "number" for name in names)


def fingerprint(schema: str, settings: FeatureSettings) -> str:
    """Return a hash of everything but the market that features depend on: names, settings, rules and code.

    Args:
        schema: Name in `SCHEMAS`.
        settings: Numbers from the documents; a rule file counts by its content, not its name.

    Returns:
        64 hexadecimal digits, the same in every process.
    """
    digest = hashlib.sha256(_code_digest())
    digest.update(repr(tuple(row.name for row in rows_of(schema))).encode())
    digest.update(settings.model_dump_json(exclude={"rules_file"}).encode())
    if settings.rules_file is not None:
        digest.update(Path(settings.rules_file).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> bytes:
    folder = Path(__file__).parent
    files = sorted([*folder.glob("*.py"), *folder.glob("*.yaml")])
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).digest()
