"""Columns of a text file, kept beside it as Parquet so that it is parsed once (DATA-28).

The copy has the SHA-256 of the file in its name: one changed byte makes another one, and the old copy is removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainables.data.bars import digest

VERSION = 1
"""Raised when the same text is parsed into other columns."""
LOG = logging.getLogger(__name__)


def parsed_once(path: Path, columns: Sequence[Sequence[str]], parse: Callable[[], pa.Table]) -> pa.Table:
    """Return the table of a text file from its copy, or parse it and keep one.

    Args:
        path: The text file.
        columns: Those that are wanted, required and optional; other columns are another copy.
        parse: Reads the file; called where there is no copy. What it raises is passed on and nothing is kept.

    Returns:
        The table, equal to what `parse` returns.
    """
    copy = _place(path, columns)
    if copy.is_file():
        with suppress(pa.ArrowInvalid, OSError):  # a damaged copy is made again
            return pq.read_table(copy)
    table = parse()
    try:
        _keep(table, copy)
    except OSError as problem:
        LOG.warning("%s: not kept as Parquet, it is parsed in every process: %s", path, problem)
        return table
    _remove_outdated(path, copy)
    return table


def _place(path: Path, columns: Sequence[Sequence[str]]) -> Path:
    wanted = json.dumps([VERSION, *map(list, columns)])
    return path.with_name(
        f".{path.name}.{digest(str(path))[:32]}.{hashlib.sha256(wanted.encode()).hexdigest()[:8]}.parquet"
    )


def _keep(table: pa.Table, copy: Path) -> None:
    """Write the copy whole or not at all; of several writers the last one wins, and all write the same."""
    temporary = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}")
    try:
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, copy)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_outdated(path: Path, copy: Path) -> None:
    """Remove copies of what the file held before."""
    beginning, current = f".{path.name}.", copy.name.rsplit(".", 2)[0]
    for other in path.parent.iterdir():
        is_copy = other.name.startswith(beginning) and other.suffix == ".parquet"
        if is_copy and not other.name.startswith(current):
            other.unlink(missing_ok=True)
