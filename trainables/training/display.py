"""What a person sees while one configuration is trained: a line per fold and rung, and below it the steps as a bar."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainables.protocol import RungReport
from trainables.training.loop import StepReport

SMOOTHED_STEPS = 50
"""Steps that the shown loss and speed are means of."""


class TrainingDisplay:
    """A bar where the output is a terminal; lines of results everywhere."""

    def __init__(self, console: Console, *, last_fold: int, lookback: int) -> None:
        """Show on `console`; `lookback` turns rows into tokens, which are rows of windows."""
        self._console = console
        self._last_fold = last_fold
        self._lookback = lookback
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("reading data", total=None, told="")
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=SMOOTHED_STEPS)

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stepped(self, step: StepReport) -> None:
        """Move the bar."""
        self._recent.append((time.perf_counter(), step.loss, step.n_rows))
        self._progress.update(
            self._task,
            description=f"fold {step.fold} of 0-{self._last_fold}",
            completed=step.step,
            total=step.n_steps,
            told=f"loss {self._loss():.4g}{self._speed()}",
        )

    def reported(self, report: RungReport) -> None:
        """Print a line about a rung that was reached."""
        metrics = report.metrics
        told = [f"{name} {metrics[name]:.5f}" for name in ("val_loss", "train_loss", "ic") if name in metrics]
        where = f"fold {report.fold}" if report.share >= 1.0 else f"fold {report.fold}, {report.share:.0%}"
        self._console.print(f"{where}: {', '.join(told)}, {report.seconds:.1f} s", highlight=False)
        self._recent.clear()

    def _loss(self) -> float:
        return sum(loss for _, loss, _ in self._recent) / len(self._recent)

    def _speed(self) -> str:
        """Return tokens a second, a token being one row of a window (TRAIN-14); nothing before the second step."""
        seconds = self._recent[-1][0] - self._recent[0][0]
        if seconds <= 0:
            return ""
        n_rows = sum(n for _, _, n in list(self._recent)[1:])
        return f", {n_rows * self._lookback / seconds:,.0f} tokens/s"
