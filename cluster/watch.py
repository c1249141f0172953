"""Tells a slow trial from one that hangs: whoever trains changes a small file now and then, and reports its rungs.

Contents are compared, not times: the clocks of two machines are never looked at together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True, kw_only=True)
class _Sign:
    """The last sign of life of a trial: what its file held, and when that was new."""

    file: Path
    content: str
    seen_s: float


class Watch:
    """Keeps for each running trial when it last gave a sign of life (F10)."""

    def __init__(self, limit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Give up on a trial after `limit_s` seconds of silence; None: never."""
        self._limit_s = limit_s
        self._clock = clock
        self._signs: dict[str, _Sign] = {}

    def heard(self, trial_id: str, file: Path) -> None:
        """Take note that the trial runs, or has reported."""
        self._signs[trial_id] = _Sign(file=file, content=_content(file), seen_s=self._clock())

    def forget(self, trial_id: str) -> None:
        """Watch a trial no longer."""
        self._signs.pop(trial_id, None)

    def is_watched(self, trial_id: str) -> bool:
        return trial_id in self._signs

    def hang(self, trial_id: str) -> str | None:
        """Return why the trial is given up, in one line; None while it is not. Looks at its file."""
        sign = self._signs.get(trial_id)
        if sign is None or self._limit_s is None:
            return None
        content, now = _content(sign.file), self._clock()
        if content != sign.content:
            sign.content, sign.seen_s = content, now
        if now - sign.seen_s <= self._limit_s:
            return None
        return f"hang: no sign of life for {self._limit_s / 60:g} minutes, the last one {_place(content)}"


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _place(content: str) -> str:
    try:
        beat = json.loads(content)
        return f"after step {beat['step']} of {beat['n_steps']} in fold {beat['fold']}"
    except (ValueError, KeyError, TypeError):
        return "before the first step"
