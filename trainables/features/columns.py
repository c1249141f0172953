"""What is written beside stored features: their columns in order, each with what the registry knows of it (DATA-29)."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.features.registry import rows_of
from trainables.features.row import FeatureRow
from trainables.features.settings import FeatureSettings

Described = dict[str, str | int]


def describe(row: FeatureRow, settings: FeatureSettings, bars_per_session: int) -> Described:
    """Return what is known of a feature, as JSON values; its look-back depends on the settings."""
    return {
        "name": f"{row.family}.{row.name}",
        "group": row.group,
        "lookback": row.lookback(settings, bars_per_session),
        "scope": row.scope,
        "known": row.known,
        "kind": row.kind,
        "source": row.source,
        "requirement": row.requirement,
    }


def columns_of(
    schema: str, names: Sequence[str], settings: FeatureSettings, bars_per_session: int
) -> tuple[Described, ...]:
    """Return a description per column, in the order of `names`.

    Args:
        schema: Name in `SCHEMAS`.
        names: Columns of the matrix: features of the schema, in any order, each once.
        settings: As the features were computed by.
        bars_per_session: Usual bars of a session.

    Raises:
        ValueError: A name is not of the schema, or there twice.
    """
    rows = {row.name: row for row in rows_of(schema)}
    unknown = sorted(set(names) - set(rows))
    if unknown or len(set(names)) < len(names):
        what = f"unknown {', '.join(unknown)}" if unknown else "a name twice"
        raise ValueError(f"columns: expected features of {schema}, each once, found {what}; correct the names")
    return tuple(describe(rows[name], settings, bars_per_session) for name in names)
