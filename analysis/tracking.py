"""Tracking: a mirror of the search in somebody else's pages. The journal decides; a mirror delays and loses nothing.

Events go in by `submit`, which only queues. A thread of its own sends each trial when it has ended. What was sent is
noted in `tracking.json` of the run folder; after a crash, or while a server is down, the journal is the queue.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from analysis.atomic import write_text
from analysis.measures.folds import FoldMean, over_folds

DATABASE = "mlflow.db"
"""File of the run folder that results go to where no URI is given."""
CURSOR = "tracking.json"
"""File of the run folder that holds, for each target, the number of the last event whose trial was sent."""
_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where a search is shown while it runs. No method blocks longer than it says; none raises for a dead server."""

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take in the whole journal, before anything is submitted; trials that were sent already are not sent again."""
        ...

    def submit(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the journal (`seq`, `time_utc`, `kind`, `body`), in order. Returns at once."""
        ...

    def flush(self, timeout_s: float) -> int:
        """Try to send what is queued; return how many items are still unsent after at most `timeout_s`."""
        ...

    def finish(self, timeout_s: float) -> int:
        """Send the rest and the files of the run, end the record of the search; return as `flush`. Call it once."""
        ...


class NoTracker:
    """Shows nothing: `tracking: none`."""

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Ignore the events."""

    def submit(self, event: Mapping[str, Any]) -> None:
        """Ignore the event."""

    def flush(self, timeout_s: float) -> int:
        """Return 0."""
        return 0

    def finish(self, timeout_s: float) -> int:
        """Return 0."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A trial that has ended, as a tracking server is told of it.

    Attributes:
        seq: Number of the event that ended it.
        metrics: Measure -> mean and standard error over its complete folds (ANALYSIS-1).
        fold_losses: (fold, validation loss) of its complete folds.
        started_ms, ended_ms: Unix time of its proposal and of its end.
    """

    seq: int
    trial_id: str
    number: int
    state: str
    origin: str
    generation: int
    parents: tuple[str, ...]
    seed: int
    reason: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, FoldMean]
    fold_losses: tuple[tuple[int, float], ...]
    seconds: float
    started_ms: int
    ended_ms: int


class Rejected(ValueError):
    """The server answers and will never take this record: it is left out and named, the others go on."""


class Sink(Protocol):
    """What sends. Every call may be repeated after a failure and must then not make a second copy."""

    def send(self, trial: TrialRecord) -> None:
        """Make the server know this trial; raise `Rejected` where it never will, anything else to be tried again."""
        ...

    def close(self) -> None:
        """Send the files of the run and end its record."""
        ...


class Trials:
    """What the events of a journal say about trials: one `TrialRecord` when one ends.

    A trial that was set aside may go on, so it has not ended; `set_aside` is for when the search is over.
    """

    def __init__(self) -> None:
        self._open: dict[str, dict[str, Any]] = {}
        self._paused: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}

    def apply(self, event: Mapping[str, Any]) -> TrialRecord | None:
        """Take one event in; return the trial that it ended, if any. Events of other kinds change nothing.

        Raises:
            KeyError: The event speaks of a trial that was never proposed.
        """
        kind, body = event["kind"], event["body"]
        self._paused.pop(body.get("trial_id", ""), None)
        if kind == "proposed":
            self._open[body["trial_id"]] = {"body": body, "folds": {}, "seconds": 0.0, "started": event["time_utc"]}
            return self._end(event, body)
        if kind == "observed":
            trial, seen = self._open[body["trial_id"]], body["observation"]
            trial["seconds"] += seen["seconds"]
            if seen["share"] >= 1.0:
                trial["folds"][seen["fold"]] = seen
        return self._end(event, body) if kind in ("observed", "finished") else None

    def set_aside(self) -> list[TrialRecord]:
        """Return the trials that are set aside now."""
        return [self._record(event, body, self._open[trial_id]) for trial_id, (event, body) in self._paused.items()]

    def _end(self, event: Mapping[str, Any], body: Mapping[str, Any]) -> TrialRecord | None:
        if body["state"] == "paused":
            self._paused[body["trial_id"]] = event, body
        if body["state"] in ("running", "paused"):
            return None
        return self._record(event, body, self._open.pop(body["trial_id"]))

    @staticmethod
    def _record(event: Mapping[str, Any], body: Mapping[str, Any], trial: Mapping[str, Any]) -> TrialRecord:
        proposed, folds = trial["body"], [trial["folds"][k] for k in sorted(trial["folds"])]
        names = sorted({name for fold in folds for name in fold["metrics"]})
        estimates = {name: _over_folds(folds, name) for name in names}
        losses = [(f["fold"], float(f["metrics"].get("val_loss", "nan"))) for f in folds]
        return TrialRecord(
            seq=event["seq"],
            **{k: proposed[k] for k in ("trial_id", "number", "origin", "generation", "seed")},
            parents=tuple(proposed["parents"]),
            parameters=proposed["config"],
            state=body["state"],
            reason=body.get("reason") or "",
            metrics={name: estimate for name, estimate in estimates.items() if estimate is not None},
            fold_losses=tuple((fold, loss) for fold, loss in losses if math.isfinite(loss)),
            seconds=trial["seconds"],
            started_ms=_unix_ms(trial["started"]),
            ended_ms=_unix_ms(event["time_utc"]),
        )


class Mirror:
    """A tracker that sends from a thread of its own.

    Args:
        run_dir: Run folder; the cursor is kept there.
        connect: Makes the sink, in the thread; may take seconds, may fail, is then tried again.
        target: Name of where it goes, without secrets; cursors are kept apart by it.
        first_wait_s: Pause after a failure; doubled each time up to `longest_wait_s`.
        longest_wait_s: Longest pause between attempts.
    """

    def __init__(
        self,
        run_dir: Path,
        connect: Callable[[], Sink],
        *,
        target: str,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 60.0,
    ) -> None:
        self._run_dir, self._connect, self._target = run_dir, connect, target
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._trials = Trials()
        self._queue: deque[TrialRecord | None] = deque()  # None stands for the end of the search
        self._changed = threading.Condition()
        self._hurry = self._is_over = False
        self._sent = _read_cursors(run_dir).get(target, 0)
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """See `Tracker.replay`."""
        for event in events:
            self.submit(event)

    def submit(self, event: Mapping[str, Any]) -> None:
        """See `Tracker.submit`."""
        ended = self._trials.apply(event)
        if ended is not None and ended.seq > self._sent:
            with self._changed:
                self._queue.append(ended)
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> int:
        """See `Tracker.flush`."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue, timeout_s)
            return len(self._queue)

    def finish(self, timeout_s: float) -> int:
        """See `Tracker.finish`."""
        with self._changed:
            self._queue += [*self._trials.set_aside(), None]
        unsent = self.flush(timeout_s)
        with self._changed:
            self._is_over = self._hurry = True
            self._changed.notify_all()
        if unsent:
            _log.warning(
                "tracking: %d items are not sent to %s; they wait in the journal: python -m analysis.mlflow_tracker %s",
                unsent,
                self._target,
                self._run_dir,
            )
        return unsent

    def _work(self) -> None:
        sink: Sink | None = None
        wait_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_over)
                if wait_s:  # after a failure; `flush` asks for an attempt at once
                    self._changed.wait_for(lambda: self._hurry, wait_s)
                if self._is_over:
                    return
                self._hurry = False
                item = self._queue[0]
            try:
                sink = sink or self._connect()
                self._pass_on(sink, item)
            except Exception as error:  # whatever breaks in a tracking library must not end a search
                if not wait_s:
                    _log.warning(
                        "tracking: %s does not take results (%s); the search goes on, results wait in the journal",
                        self._target,
                        " ".join(f"{type(error).__name__}: {error}".split())[:300],
                    )
                wait_s = min(max(2 * wait_s, self._first_wait_s), self._longest_wait_s)
                continue
            if wait_s:
                _log.info("tracking: %s takes results again", self._target)
                wait_s = 0.0
            with self._changed:
                self._queue.popleft()
                self._changed.notify_all()

    def _pass_on(self, sink: Sink, item: TrialRecord | None) -> None:
        if item is None:
            sink.close()
            return
        try:
            sink.send(item)
        except Rejected as error:
            _log.warning("tracking: %s refuses %s: %s; it is left out there", self._target, item.trial_id, error)
        self._sent = max(self._sent, item.seq)  # who was set aside is sent last
        write_cursor(self._run_dir, self._target, self._sent)


def start(run_dir: Path, *, uri: str | None = None) -> Tracker:
    """Return a mirror in MLflow; the library is imported in the mirror's thread, which takes seconds.

    Args:
        run_dir: Run folder; its `plan.json` must be written.
        uri: Tracking URI; none: `mlflow.db` in the run folder.
    """

    def connect() -> Sink:
        sink: Sink = importlib.import_module("analysis.mlflow_tracker").MlflowSink(run_dir, uri)
        return sink

    if uri is None and not (run_dir / DATABASE).exists():
        write_cursor(run_dir, DATABASE, 0)  # a database that was deleted is filled anew
    return Mirror(run_dir, connect, target=target_name(uri))


def target_name(uri: str | None) -> str:
    """Return a URI without user and password; `mlflow.db` for none."""
    if uri is None:
        return DATABASE
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return scheme + separator + host.rpartition("@")[2] + slash + path


def write_cursor(run_dir: Path, target: str, seq: int) -> None:
    """Note that all trials that ended up to event `seq` are known to `target`."""
    write_text(run_dir / CURSOR, json.dumps({**_read_cursors(run_dir), target: seq}) + "\n")


def _read_cursors(run_dir: Path) -> dict[str, int]:
    try:
        found = json.loads((run_dir / CURSOR).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:  # sending again is harmless, as sinks look before they create
        _log.warning("tracking: %s is damaged; all trials are sent again", run_dir / CURSOR)
        return {}
    return {str(k): int(v) for k, v in found.items()}


def _over_folds(folds: list[Mapping[str, Any]], metric: str) -> FoldMean | None:
    pairs = [(float(f["metrics"][metric]), f["n_scored"]) for f in folds if metric in f["metrics"]]
    return over_folds([v for v, _ in pairs], [n for _, n in pairs])


def _unix_ms(time_utc: str) -> int:
    return int(datetime.fromisoformat(time_utc).timestamp() * 1000)
