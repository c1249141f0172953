"""Signs of life: a small file that changes while a trial trains, so that a driver can tell slow from hung (F10)."""

from __future__ import annotations

import json
import time
from pathlib import Path

from trainables.training.loop import StepReport

SECONDS_BETWEEN_BEATS = 2.0
"""Least time between two writes: steps of small models take milliseconds."""


class Heartbeat:
    """Writes where a trial stands, now and then; a disk that refuses is no reason to stop training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0
        self._n_beats = 0

    def beat(self, step: StepReport | None = None) -> None:
        """Write a new content, unless the last one is young."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_BEATS
        self._n_beats += 1
        place = {} if step is None else {"fold": step.fold, "step": step.step, "n_steps": step.n_steps}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps({"beat": self._n_beats, **place}), encoding="utf-8")
        except OSError:
            return
