"""Arrays on disk, computed once per content key across processes and shared by memory map.

An entry is a folder: one .npy file per array, and last a manifest with their checksums. It is written under a
temporary name, synced and renamed, so that a reader sees a whole entry or none; one that does not match its manifest
is built again. A lock file per key keeps a second builder waiting; the system frees it when its holder dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainables.config import StrictModel
from trainables.data.dataset import Dataset
from trainables.data.market import Market
from trainables.durable import sync
from trainables.errors import DataChanged, DataError

Arrays = Mapping[str, NDArray[Any]]
Value = TypeVar("Value", Dataset, Market)
MANIFEST = "manifest.json"
COLUMNS = "columns"
"""Name in the manifest of what describes the columns of `features`."""
SETTINGS = "settings"
"""Name of the array that holds the fields of a value that are not arrays, as JSON bytes."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def content_key(**parts: Any) -> str:
    """Return a key that depends on nothing but the given JSON values and their names."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


def keep_to_market(entries: FeatureStore, market: Market, **sections: StrictModel) -> None:
    """Hold a store to the market that its sections gave first: files that change during a search stop it (B31).

    Args:
        entries: The store of the run, shared by its trials.
        market: As loaded now.
        sections: The sections that it was loaded by.

    Raises:
        DataChanged: The same sections gave another market before.
    """
    key = content_key(market_of={name: section.model_dump(mode="json") for name, section in sections.items()})
    first = entries.get(key, lambda: {"snapshot": np.frombuffer(market.snapshot.encode(), np.uint8)})["snapshot"]
    if first.tobytes().decode() != market.snapshot:
        raise DataChanged(
            f"data: expected the market of the trials before, {first.tobytes().decode()[:12]}, found "
            f"{market.snapshot[:12]}: a file has changed since; put it back, or begin another search"
        )


class FeatureStore:
    """A folder of entries.

    Args:
        root: The folder; made when first needed. Processes on one machine may share it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._whole: set[str] = set()

    def get(
        self, key: str, build: Callable[[], Arrays], meta: Mapping[str, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Return the arrays of a key as read-only memory maps, built first where they are not there or damaged.

        Args:
            key: Content key: equal keys must mean equal arrays (see `content_key`). Letters, digits, `.`, `_`, `-`.
            build: Makes the arrays; called at most once over all processes while the entry stays whole.
            meta: JSON values written into the manifest for readers; not part of the key. `columns`, a description
                with a `name` for each column of `features`, must be that of the entry (DATA-29).

        Raises:
            ValueError: The key or the name of an array is not a safe file name.
            DataError: The entry has other columns than `meta` says.
        """
        _check_name(key, "key")
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self.root / key
        with _locked(self.root / f"{key}.lock"):
            if not self._is_whole(folder):
                _write(folder, build(), dict(meta or {}))
                self._whole.add(key)
        manifest = json.loads((folder / MANIFEST).read_text())
        arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in manifest["arrays"]}
        if meta and COLUMNS in meta:
            _check_columns(_names(meta), _names(manifest.get("meta", {})), arrays["features"].shape[1], folder)
        return arrays

    def dataset(self, key: str, build: Callable[[], Dataset], meta: Mapping[str, Any] | None = None) -> Dataset:
        """Return the dataset of a key; see `get`."""
        return unpack(Dataset, self.get(key, lambda: pack(build()), {"kind": "dataset", **(meta or {})}))

    def market(self, key: str, build: Callable[[], Market]) -> Market:
        """Return the market of a key; see `get`."""
        return unpack(Market, self.get(key, lambda: pack(build()), {"kind": "market"}))

    def _is_whole(self, folder: Path) -> bool:
        """Whether an entry matches its manifest; checksums are read once per store object."""
        try:
            listed = json.loads((folder / MANIFEST).read_text())["arrays"]
            if folder.name not in self._whole:
                if any(_checksum(folder / f"{name}.npy") != value for name, value in listed.items()):
                    return False
                self._whole.add(folder.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        return True


def pack(value: Dataset | Market) -> dict[str, NDArray[Any]]:
    """Return a value as arrays only: those of a mapping as `field.name`, the rest as JSON bytes under `settings`."""
    content = {f.name: getattr(value, f.name) for f in fields(value)}
    arrays = {name: v for name, v in content.items() if isinstance(v, np.ndarray)}
    rest: dict[str, Any] = {}
    for name, v in content.items():
        if isinstance(v, Mapping):
            inner = {f"{name}.{key}": x for key, x in v.items() if isinstance(x, np.ndarray)}
            arrays |= inner
            rest[name] = {key: x for key, x in v.items() if f"{name}.{key}" not in inner}
        elif name not in arrays:
            rest[name] = v
    return {**arrays, SETTINGS: np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8)}


def unpack(kind: type[Value], arrays: Arrays) -> Value:
    """Return the value that `pack` turned into arrays; lists become tuples again."""
    content = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(bytes(arrays[SETTINGS])).items()}
    for name, array in arrays.items():
        field, _, key = name.partition(".")
        if key:
            content[field][key] = array
        elif name != SETTINGS:
            content[name] = array
    return kind(**content)


def _write(folder: Path, arrays: Arrays, meta: dict[str, Any]) -> None:
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        for name, array in arrays.items():
            _check_name(name, "array")
            np.save(temporary / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
            sync(temporary / f"{name}.npy")
        checksums = {name: _checksum(temporary / f"{name}.npy") for name in arrays}
        (temporary / MANIFEST).write_text(json.dumps({"arrays": checksums, "meta": meta}, indent=1, allow_nan=False))
        sync(temporary / MANIFEST)
        if folder.exists():  # damaged: a map that a reader still holds stays valid until it is closed
            shutil.rmtree(folder)
        temporary.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _names(meta: Mapping[str, Any]) -> list[str]:
    return [column["name"] for column in meta.get(COLUMNS, ())]


def _check_columns(wanted: list[str], found: list[str], n_columns: int, folder: Path) -> None:
    """Refuse an entry whose columns are not those wanted, in that order."""
    if found == wanted and n_columns == len(wanted):
        return
    missing, unknown = (", ".join(sorted(set(a) - set(b))) or "none" for a, b in ((wanted, found), (found, wanted)))
    raise DataError(
        f"{folder}: expected {len(wanted)} feature columns, found {n_columns}, of which {len(found)} are named "
        f"(missing: {missing}; unknown: {unknown}; or another order); delete the folder, it is built again"
    )


def _check_name(name: str, what: str) -> None:
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(f"{what}: expected letters, digits, '.', '_' and '-' (128 at most), found {name!r}")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
