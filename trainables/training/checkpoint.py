"""Checkpoints of a trial: one folder per rung, whole or absent, checked by content before it is believed.

A folder holds `tensors.safetensors`, `place.json` and, written last, `manifest.json` with the SHA-256 of both. It is
made under a temporary name and renamed. Nothing in it is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from trainables.durable import sync
from trainables.protocol import RungReport
from trainables.training.engine import EngineState

TENSORS, PLACE, MANIFEST = "tensors.safetensors", "place.json", "manifest.json"

log = logging.getLogger(__name__)


class CheckpointMismatch(ValueError):
    """A checkpoint belongs to another configuration; the message names the fields that differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a trial stands after a rung.

    Attributes:
        report: What the rung reported; its `rung` and `fold` say where the trial is.
        step: Optimiser steps of the fold that are done.
        completed: Reports of the folds that are complete, in order, this one included where it is.
        engine: Weights and moments; without moments where the fold is complete, for the next one starts afresh.
        random: States of the generators, see `randomness.random_state`.
        stability: Counts of the fold, see `Stability.to_json`.
        stopping: Counts of early stopping, see `EarlyStopping.to_json`; empty without it.
        best: The weights that it goes back to; empty without it, and where the fold is complete.
        split: Parts that a micro-batch came in, see `RunOptions.split`: what did not fit once is not tried again.
    """

    report: RungReport
    step: int
    completed: tuple[RungReport, ...]
    engine: EngineState
    random: Mapping[str, Tensor]
    stability: Mapping[str, Any] = field(default_factory=dict)
    stopping: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    split: int = 1


def write_checkpoint(folder: Path, checkpoint: Checkpoint, identity: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write `folder/rung-NNNN` and delete all but the newest `keep` of them, in this order.

    Args:
        folder: Folder of the trial's checkpoints.
        checkpoint: What to write.
        identity: What must be equal for a resume, JSON values; see `newest_checkpoint`.
        keep: At least 1 valid checkpoint exists at every moment; 2 survive damage to the newest.

    Raises:
        OSError: The disk is full or read-only; the checkpoints of before are untouched.
    """
    place = {
        "identity": identity,
        "report": asdict(checkpoint.report),
        "step": checkpoint.step,
        "completed": [asdict(report) for report in checkpoint.completed],
        "updates": checkpoint.engine.updates,
        "stability": dict(checkpoint.stability),
        "stopping": dict(checkpoint.stopping),
        "split": checkpoint.split,
    }
    contents = {
        TENSORS: safetensors.torch.save(_flatten(checkpoint)),
        PLACE: json.dumps(place, allow_nan=False).encode(),
    }
    target = folder / f"rung-{checkpoint.report.rung:04d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    temporary.mkdir(parents=True)
    try:
        _write_folder(temporary, contents)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same rung, which a resume has passed over
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(folder)
    for old in _rungs(folder)[keep:]:
        shutil.rmtree(old)
    return target


def newest_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Return the newest valid checkpoint below `folder`, or None. Damaged ones are passed over with a warning.

    Raises:
        CheckpointMismatch: The newest valid checkpoint has another identity.
    """
    for path in _rungs(folder):
        try:
            contents = _read_folder(path)
        except (OSError, ValueError, KeyError) as problem:
            log.warning("%s: expected a whole checkpoint, found %s; trying the one before", path, problem)
            continue
        place = json.loads(contents[PLACE])
        differences = _differences(place["identity"], json.loads(json.dumps(identity)))
        if differences:
            raise CheckpointMismatch(
                f"{path}: checkpoint of another configuration, {'; '.join(differences)}; use another run folder"
            )
        return _parse(place, safetensors.torch.load(contents[TENSORS]))
    return None


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    for name, data in [*contents.items(), (MANIFEST, json.dumps(manifest).encode())]:
        with open(folder / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync(folder)


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files of a checkpoint; ValueError where a checksum differs."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    contents = {name: (folder / name).read_bytes() for name in (TENSORS, PLACE)}
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != manifest[name]:
            raise ValueError(f"{name} with another checksum than its manifest ({len(data)} bytes)")
    return contents


def _rungs(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first."""
    return sorted(folder.glob("rung-[0-9]*"), reverse=True) if folder.is_dir() else []


def _flatten(checkpoint: Checkpoint) -> dict[str, Tensor]:
    engine = checkpoint.engine
    groups = {"weights": engine.weights, **engine.moments, "random": checkpoint.random, "best": checkpoint.best}
    return {f"{group}/{name}": _own(t) for group, tensors in groups.items() for name, t in tensors.items()}


def _own(tensor: Tensor) -> Tensor:
    """Return a contiguous copy in its own memory: safetensors refuses tensors that share some."""
    return tensor.detach().cpu().clone().contiguous()


def _parse(place: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    weights, random, best = groups.pop("weights"), groups.pop("random"), groups.pop("best", {})
    return Checkpoint(
        report=_report(place["report"]),
        step=place["step"],
        completed=tuple(_report(report) for report in place["completed"]),
        engine=EngineState(weights=weights, moments=groups, updates=place["updates"]),
        random=random,
        stability=place["stability"],
        stopping=place.get("stopping", {}),
        best=best,
        split=place["split"],
    )


def _report(body: Mapping[str, Any]) -> RungReport:
    return RungReport(**{**body, "blocks": tuple(body.get("blocks", ()))})


def _differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Return `config.lr: 0.1 there, 0.2 here` for each leaf that differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted(found.keys() | expected.keys())
        return [d for n in names for d in _differences(found.get(n), expected.get(n), f"{path}.{n}".lstrip("."))]
    return [] if found == expected else [f"{path}: {found!r} there, {expected!r} here"]
