"""Weights that pass between trials, and the guard that keeps them from carrying the future back (decision 5).

A fold may begin with the weights of the same fold, or of one whose training window ended earlier: then no row that the
weights have seen lies in what this fold is scored on. The rule holds link by link, so it holds for a whole lineage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from trainables.data.folds import FoldWindow
from trainables.durable import write_durably
from trainables.errors import LeakError


def source_fold(inherit: Mapping[str, Any], fold: int, windows: Sequence[FoldWindow]) -> int | None:
    """Return the fold of the parent whose weights a fold begins with; None where it begins with initial ones.

    Args:
        inherit: `Assignment.inherit`: `trial_id` and `folds`, pairs (fold, fold of the parent).
        fold: The fold that begins.
        windows: Of all folds.

    Raises:
        LeakError: The parent's fold is unknown, or its weights would carry knowledge back in time.
    """
    source = {int(child): int(parent) for child, parent in inherit["folds"]}.get(fold)
    if source is None:
        return None
    if not 0 <= source < len(windows):
        raise LeakError(f"inherit: expected a fold of {inherit['trial_id']} below {len(windows)}, found {source}")
    refuse_leak(windows[source], windows[fold])
    return source


def refuse_leak(source: FoldWindow, target: FoldWindow) -> None:
    """Refuse weights of `source` for `target` unless it is the same fold or its training window ended earlier.

    Raises:
        LeakError: It is neither.
    """
    if source == target or source.train_end < target.train_end:
        return
    raise LeakError(
        f"inherit: expected weights of fold {target.index} or of one whose training ended before, found those of "
        f"fold {source.index}, which has trained on rows that fold {target.index} is scored on"
    )


def weights_file(run_dir: Path, trial_id: str, fold: int) -> Path:
    """Return where the weights of a complete fold lie."""
    return run_dir / "weights" / trial_id / f"fold-{fold:02d}.safetensors"


def save_fold_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of a complete fold, whole or not at all."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}
    write_durably(path, lambda temporary: safetensors.torch.save_file(tensors, temporary))


def load_fold_weights(path: Path) -> dict[str, Tensor]:
    """Read what `save_fold_weights` wrote.

    Raises:
        FileNotFoundError: The parent has not completed this fold, or its weights were not kept.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the weights of a complete fold, found no file; was it deleted?")
    return safetensors.torch.load_file(path)
