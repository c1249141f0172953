"""Results of folds under the hash of everything that made them: what is known is never trained again (decision 6).

A result is a folder, whole or absent, named by its identity: `reports.json`, `evidence.parquet`, maybe the model and
the fold's weights, and last `manifest.json` with the SHA-256 of each file. Files are hard links into the run folder
that trained them where the file system allows it, so that keeping them costs no space. The store may be deleted at any
time; it then fills again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainables import catalogue
from trainables.durable import sync
from trainables.protocol import RungReport

REPORTS, EVIDENCE, MANIFEST = "reports.json", "evidence.parquet", "manifest.json"
FOLD_WEIGHTS = "weights.safetensors"
ROOT = Path(__file__).parents[2]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """A fold that was trained before.

    Attributes:
        folder: Where its files are; their checksums were right a moment ago.
        reports: Of every rung of the fold, in order.
        origin: Run and trial that trained it, such as `mlp-1/t0003`.
        files: Names of the files in the folder.
    """

    folder: Path
    reports: tuple[RungReport, ...]
    origin: str
    files: frozenset[str]


def identity_of(parts: Mapping[str, Any]) -> str:
    """Return the name of a result: the SHA-256 of everything that made it, JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


@cache
def code_digest(family: str) -> str:
    """Return the SHA-256 of the source that a family's results follow from: its own folder and all that is shared.

    Other families do not count, for no family imports another. Read once per process.
    """
    folders = {Path(catalogue.source_file(name)).parent: name for name in catalogue.CONFIGS}
    others = {folder for folder, name in folders.items() if name != family}
    own = Path(catalogue.source_file(family)).parent
    shared = [*(ROOT / "trainables").rglob("*.py"), *(ROOT / "analysis" / "measures").rglob("*.py")]
    files = {path for path in (*shared, *own.glob("*.py")) if path.parent == own or path.parent not in others}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def find_result(store: Path, identity: str, wanted: Sequence[str]) -> FoldResult | None:
    """Return the result of this identity, or None: not there, without a wanted file, or damaged (with a warning).

    Args:
        store: Folder of results.
        identity: See `identity_of`.
        wanted: Names of files that it must have.
    """
    folder = _place(store, identity)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        sums = manifest["files"]
        if not {REPORTS, EVIDENCE, *wanted} <= sums.keys():
            return None
        for name, expected in sums.items():
            if _checksum(folder / name) != expected:
                raise ValueError(f"{name} has another checksum than its manifest says")
        bodies = json.loads((folder / REPORTS).read_bytes())
    except (OSError, ValueError, KeyError) as problem:
        log.warning("%s: expected a whole result, found %s; training the fold again", folder, problem)
        return None
    reports = tuple(RungReport(**{**body, "blocks": tuple(body["blocks"])}) for body in bodies)
    return FoldResult(folder=folder, reports=reports, origin=manifest["origin"], files=frozenset(sums))


def keep_result(
    store: Path, identity: str, reports: Sequence[RungReport], files: Mapping[str, Path], *, origin: str
) -> None:
    """Keep a result. One that is there already stays, unless it is damaged or has fewer files.

    A store that cannot be written costs a warning: the run folder has everything.

    Args:
        store: Folder of results; made where it does not exist.
        identity: See `identity_of`.
        reports: Of every rung of the fold, in order.
        files: Name in the store -> file in the run folder; `evidence.parquet` among them.
        origin: Run and trial.
    """
    if find_result(store, identity, list(files)) is not None:
        return
    target = _place(store, identity)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        for name, path in files.items():
            link(path, temporary / name)
        _write(temporary / REPORTS, [asdict(report) for report in reports])
        sums = {name: _checksum(temporary / name) for name in (REPORTS, *files)}
        _write(temporary / MANIFEST, {"origin": origin, "files": sums})
        sync(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(temporary, target)
        sync(target.parent)
    except OSError as problem:
        log.warning("%s: expected to keep a fold's result there, found %s; it will be trained again", store, problem)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Put the content of a file at `target`, whole or not at all: by a hard link, or a copy on another file system.

    Nobody may write to such a file in place; everything here replaces whole files.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            sync(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # renaming a link onto itself leaves both names
    sync(target.parent)


def _place(store: Path, identity: str) -> Path:
    return store / identity[:2] / identity


def _write(path: Path, value: Any) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
