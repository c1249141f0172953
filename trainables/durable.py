"""Files that are either whole or absent: written beside their place, synced, and renamed into it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def sync(path: Path) -> None:
    """Wait until a file or a folder's entries are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path and move the result to `path`: a crash leaves the old file or the new one.

    Raises:
        OSError: The disk is full or read-only; nothing is left at the temporary path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON document durably; NaN and infinity are refused with a ValueError."""
    text = json.dumps(value, indent=1, allow_nan=False)
    write_durably(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
