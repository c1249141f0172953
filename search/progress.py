"""The live display of a search: a panel on a terminal, plain lines elsewhere. Everything goes to standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .trial import Trial, TrialState

N_RECENT = 6
_log = logging.getLogger(__name__)
BAD = (TrialState.FAILED, TrialState.DIVERGED, TrialState.OUT_OF_MEMORY, TrialState.INFEASIBLE, TrialState.LOST)


class Watched(Protocol):
    """What the display reads of a study."""

    @property
    def trials(self) -> Mapping[str, Trial]: ...
    @property
    def n_trials(self) -> int: ...
    def best(self) -> Trial | None: ...


class Progress:
    """Shows trials running, done, stopped and failed, the best so far and the time left.

    Args:
        study: Anything with `trials`, `n_trials` and `best()`.
        metric: The first objective's metric.
        n_rungs: Length of the ladder.
        wall_s: Wall-time budget of the search, or None.
    """

    def __init__(self, study: Watched, *, metric: str, n_rungs: int, wall_s: float | None = None) -> None:
        self._study, self._metric, self._n_rungs, self._wall_s = study, metric, n_rungs, wall_s
        self._begun = time.monotonic()
        self._n_before = sum(t.state.is_finished for t in study.trials.values())
        self._seen = {t.trial_id for t in study.trials.values() if t.state.is_finished}
        self._recent: deque[Text] = deque(maxlen=N_RECENT)
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._drawn = 0.0

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tick(force=True)
        if self._live:
            self._live.stop()

    def tick(self, *, force: bool = False) -> None:
        """Take in what has happened; redraw at most four times a second."""
        for trial in list(self._study.trials.values()):
            if trial.state.is_finished and trial.trial_id not in self._seen:
                self._seen.add(trial.trial_id)
                self._announce(trial)
        now = time.monotonic()
        if self._live and (force or now - self._drawn > 0.25):
            self._drawn = now
            self._live.update(self._panel(), refresh=True)

    def _announce(self, trial: Trial) -> None:
        line = self._sentence(trial)
        _log.info(line.plain)
        if self._live:
            self._recent.append(line)
        else:
            print(f"{time.strftime('%H:%M:%S')}  {line.plain}", file=sys.stderr, flush=True)

    def _sentence(self, trial: Trial) -> Text:
        estimate = trial.estimate(self._metric)
        style = "red" if trial.state in BAD else "green" if trial.state is TrialState.COMPLETE else "yellow"
        value = f"{self._metric} {estimate.mean:.4f}" if estimate and trial.state.has_value else trial.reason[:90]
        rungs = f"{len(trial.observations)} of {self._n_rungs} rungs"
        return Text.assemble(f"{trial.trial_id}  ", (f"{trial.state:<9}", style), f"  {rungs:<14}  {value}")

    def _panel(self) -> Group:
        trials = list(self._study.trials.values())
        running = [t for t in trials if t.state is TrialState.RUNNING]
        n_done = sum(t.state.is_finished for t in trials)
        counts = Table.grid(padding=(0, 3))
        counts.add_row(
            Text(f"{len(running)} running"),
            Text(f"{sum(t.state is TrialState.COMPLETE for t in trials)} complete", style="green"),
            Text(f"{sum(t.state is TrialState.STOPPED for t in trials)} stopped early", style="yellow"),
            Text(f"{sum(t.state is TrialState.PAUSED for t in trials)} set aside", style="yellow"),
            Text(f"{sum(t.state in BAD for t in trials)} failed", style="red"),
            Text(f"{n_done} of {self._study.n_trials}"),
            Text(self._time_left(n_done)),
        )
        bar = ProgressBar(total=self._study.n_trials, completed=n_done, width=72)
        now = [
            Text(f"{t.trial_id}  running    {len(t.observations)} of {self._n_rungs} rungs", style="dim")
            for t in running[-N_RECENT:]
        ]
        return Group(counts, bar, self._best(), *self._recent, *now)

    def _best(self) -> Text:
        best = self._study.best()
        estimate = best.estimate(self._metric) if best else None
        if best is None or estimate is None:
            return Text("best so far: no trial is complete yet", style="dim")
        error = f" ± {estimate.error:.4f}" if estimate.error is not None else ""
        return Text(f"best so far: {best.trial_id}  {self._metric} {estimate.mean:.4f}{error}", style="bold")

    def _time_left(self, n_done: int) -> str:
        elapsed = time.monotonic() - self._begun
        n_here = n_done - self._n_before
        left = elapsed / n_here * (self._study.n_trials - n_done) if n_here else None
        if self._wall_s is not None:
            left = min(left if left is not None else self._wall_s, max(self._wall_s - elapsed, 0.0))
        return f"{_clock(elapsed)} gone" + (f", about {_clock(left)} left" if left is not None else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
