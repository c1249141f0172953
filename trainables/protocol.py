"""What passes between a worker and a family: an assignment goes in, one report per rung comes out.

A trial is a generator, not a callback: the caller asks for the next rung and stops a trial by not asking again. That is
what Ray Tune's class trainable does at each `step`, and what `trainables.train` does in a plain loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class TrialDiverged(RuntimeError):
    """Training left the finite numbers: the trial is over, and its reason is data.

    Args:
        reason: One line: what became non-finite, in which fold and at which step.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Everything a worker needs to know to run one trial; JSON values only, so that it crosses any border.

    Attributes:
        trial_id: Name of the trial and of its files, such as `t0007`.
        family: Key of `trainables.catalogue`.
        config: One point of the space, complete: it validates as the family's config.
        data: The `data` section, resolved.
        folds: The `folds` section, resolved.
        reach: For each parameter of the space every value it may take (numbers: both ends). What is scored must be
            possible for all of them, so that every trial of a search has the same scored timestamps.
        ladder: (fold, share of the fold's epochs) of each rung, in the order in which they are visited.
        seed: Seed of the trial.
        run_dir: Run folder; `evidence/`, `checkpoints/`, `weights/` and `store/` lie below it.
        options: How to run, not what: `engine` (`deepspeed` or `plain`), `device`, `threads`, `reuse_dir`.
        n_workers: Processes that train the trial together; each has micro-batches of its own, so the effective batch
            grows with them (TRAIN-4).
        fidelity: Share of width, depth and data that is trained (`trainables.fidelity.Fidelity`); empty: all of it.
        inherit: Empty, or whose weights each fold begins with: `trial_id` and `folds`, pairs (fold, fold of that
            trial). A pair that would carry knowledge back in time is refused (decision 5).
    """

    trial_id: str
    family: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    folds: Mapping[str, Any]
    reach: Mapping[str, tuple[Any, ...]]
    ladder: tuple[tuple[int, float], ...]
    seed: int
    run_dir: str
    options: Mapping[str, Any] = field(default_factory=dict)
    n_workers: int = 1
    fidelity: Mapping[str, Any] = field(default_factory=dict)
    inherit: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RungReport:
    """What a trial knows at a rung about the fold it is in.

    Attributes:
        rung: Position in the ladder, from 0.
        fold: Fold number, from 0, in time order.
        share: Share of the fold's epochs that is trained, in (0, 1]; 1 means that the fold is complete.
        metrics: Measures on this fold's validation rows. `val_loss` (the family's fixed reference loss) is always
            there; others (`ic`, `crps`, `flatness`, `train_loss`, ...) where they are defined. A measure that is
            undefined is absent, never NaN.
        n_scored: Number of scored timestamps.
        seconds: Wall seconds spent on this rung.
        blocks: Means of the reference loss over equal stretches of the scored timestamps, in time order: what a study
            pairs trials by, without reading evidence. Empty where they are not known.
        reused_from: Run and trial that trained this fold before, such as `mlp-1/t0003`; empty where it was trained now.
    """

    rung: int
    fold: int
    share: float
    metrics: Mapping[str, float]
    n_scored: int
    seconds: float
    blocks: tuple[float, ...] = ()
    reused_from: str = ""


def heartbeat_file(run_dir: str, trial_id: str) -> Path:
    """Return the file whose content changes while a trial makes progress."""
    return Path(run_dir) / "checkpoints" / trial_id / "heartbeat.json"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that something did not fit into memory.

    Torch's class is known by its name: the caller may not have torch, and drivers and allocators raise plain errors.
    """
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    text = str(error).lower()
    return named or isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY_WORDS)


_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")


class RunTrial(Protocol):
    """Run a trial rung by rung. Resumes by itself from the newest valid checkpoint below `run_dir`.

    After a resume the first report is that of the newest checkpointed rung, once more: the driver may not have
    heard it. Raises `TrialDiverged`, `torch.OutOfMemoryError`, or any error of a broken trial.
    """

    def __call__(self, assignment: Assignment) -> Iterator[RungReport]: ...
