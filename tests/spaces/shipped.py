"""The shipped space files, read as the command line reads them, and what may be asked of any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from search.parameters import Choice, Fixed, Float, Int, Kind, Ordered
from search.settings import SpaceFile, space_file_model
from search.space_file import Document, load
from search.validity import check_space, infeasible_reason
from trainables.catalogue import CONFIGS, config_class
from trainables.data.config import DataConfig, FoldsConfig

SPACES = Path(__file__).parents[2] / "spaces"


def read(name: str, profile: str | None = None) -> tuple[SpaceFile, Document]:
    """Return a shipped space file with a profile."""
    model = space_file_model(DataConfig, FoldsConfig, tuple(CONFIGS))
    return load(SPACES / f"{name}.yaml", model=model, profile=profile)


def problems(name: str, profile: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return problems and warnings of a space file, as the command line tells them."""
    file, document = read(name, profile)
    return check_space(
        file.space(),
        config_class(file.family),
        file.search.enqueue,
        document,
        optimizer=file.search.optimizer,
        trials=file.budget.trials,
    )


def refusals(name: str, profile: str | None) -> set[str]:
    """Return why the family refuses any of 10,000 points of the space (2,000 of a profile): none if it is well made."""
    file, _ = read(name, profile)
    space, family = file.space(), config_class(file.family)
    random = np.random.default_rng(0)
    reasons = {infeasible_reason(space.sample(random), family) for _ in range(2_000 if profile else 10_000)}
    return {reason for reason in reasons if reason is not None}


def described(kind: Kind) -> tuple[Any, ...]:
    """Return what a row of chapter 12 says of a parameter: type, range or choices, default, condition."""
    when = {parent: set(allowed) for parent, allowed in kind.conditions.items()}
    if isinstance(kind, Fixed):
        return ("fixed", kind.value, when)
    if isinstance(kind, Float | Int):
        return ("f" if isinstance(kind, Float) else "i", kind.low, kind.high, kind.log, kind.initial, when)
    assert isinstance(kind, Choice | Ordered)
    values = [kind.value_at(i) for i in range(kind.size or 0)]
    return ("o" if isinstance(kind, Ordered) else "c", values, kind.initial, when)
