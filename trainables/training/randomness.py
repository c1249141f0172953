"""Every random generator of a trial: seeds derived from the trial's own, and states that a checkpoint can hold."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def derive_seed(*path: int) -> int:
    """Return a 32-bit seed for a place such as (trial seed, fold); near places give unrelated seeds (REPRO-1)."""
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def seed_all(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and PyTorch on all devices. Requirement: REPRO-1."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries below use the legacy generator
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of all generators as tensors."""
    version, python, python_gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *python], dtype=torch.int64),
        "numpy": torch.tensor([*keys.tolist(), position, has_gauss], dtype=torch.int64),
        "gauss": torch.tensor([cached, math.nan if python_gauss is None else python_gauss], dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    version, *python = state["python"].tolist()
    numpy_gauss, python_gauss = state["gauss"].tolist()
    random.setstate((version, tuple(python), None if math.isnan(python_gauss) else python_gauss))
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, numpy_gauss))  # noqa: NPY002
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Run a block that may draw numbers without changing what is drawn after it."""
    before = random_state(device)
    try:
        yield
    finally:
        restore_random_state(before, device)
