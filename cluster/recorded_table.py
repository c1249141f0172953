"""A table of real training, recorded once and searched many times: every config of a grid on every fold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.parameters import KINDS
from search.space import Space
from search.trial import Config, Observation, Rung

SCHEMA = pa.schema(
    [
        ("config", pa.string()),
        ("rung", pa.int32()),
        ("fold", pa.int32()),
        ("share", pa.float64()),
        ("val_loss", pa.float64()),
        ("n_scored", pa.int32()),
        ("seconds", pa.float64()),
        ("blocks", pa.list_(pa.float64())),
    ]
)
SPACE_KEY = b"space"


class RecordedTable:
    """A `cluster.simulated.Table` from a file that `write_table` wrote.

    Args:
        path: The Parquet file.

    Raises:
        ValueError: The file holds no space, or a config lacks a rung that others have.
    """

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if SPACE_KEY not in metadata:
            raise ValueError(f"{path}: expected a recorded table with its space, found none; record it anew")
        kinds = json.loads(metadata[SPACE_KEY])
        self._space = Space({n: KINDS[k.get("type", "fixed")].model_validate_json(json.dumps(k)) for n, k in kinds})
        self._reports: dict[str, dict[int, Observation]] = {}
        for row in table.to_pylist():
            self._reports.setdefault(row["config"], {})[row["rung"]] = _observation(row)
        rungs = {r: (o.fold, o.share) for reports in self._reports.values() for r, o in reports.items()}
        self._ladder = tuple(Rung(index=r, fold=fold, share=share) for r, (fold, share) in sorted(rungs.items()))
        short = [config for config, reports in self._reports.items() if len(reports) < len(rungs)]
        if short:
            raise ValueError(f"{path}: expected {len(rungs)} rungs of every config, found fewer of {short[0]}")

    @property
    def space(self) -> Space:
        return self._space

    @property
    def ladder(self) -> tuple[Rung, ...]:
        return self._ladder

    def report(self, config: Config, rung: Rung) -> Observation:
        """Return what was recorded.

        Raises:
            KeyError: The config is not in the table.
        """
        return self._reports[config_key(config)][rung.index]

    def true_loss(self, config: Config) -> float:
        """Return the mean loss over all folds that were recorded, weighted by scored timestamps."""
        whole = [o for o in self._reports[config_key(config)].values() if o.share >= 1.0]
        return sum(o.metrics["val_loss"] * o.n_scored for o in whole) / sum(o.n_scored for o in whole)


def write_table(path: Path, space: Space, reports: Iterable[tuple[Config, Observation]]) -> None:
    """Write a table of reports with the space that its configs span.

    Args:
        path: Of the new file.
        space: Finite; every point of it is among the configs.
        reports: Pairs of a config and what it reported, one a rung.
    """
    rows = [{"config": config_key(config), **_row(observation)} for config, observation in reports]
    kinds = [[name, kind.model_dump(mode="json")] for name, kind in space.parameters.items()]
    table = pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata({SPACE_KEY: json.dumps(kinds)})
    pq.write_table(table, path, compression="zstd")


def config_key(config: Config) -> str:
    """Return the text by which a table knows a config, whatever the order of its names."""
    return json.dumps(dict(config), sort_keys=True)


def _row(observation: Observation) -> dict[str, Any]:
    fields = ("rung", "fold", "share", "n_scored", "seconds")
    known = {name: getattr(observation, name) for name in fields}
    return {**known, "val_loss": observation.metrics["val_loss"], "blocks": list(observation.blocks)}


def _observation(row: Mapping[str, Any]) -> Observation:
    return Observation(
        rung=row["rung"],
        fold=row["fold"],
        share=row["share"],
        metrics={"val_loss": row["val_loss"]},
        n_scored=row["n_scored"],
        seconds=row["seconds"],
        blocks=tuple(row["blocks"]),
    )
