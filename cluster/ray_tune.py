"""Ray Tune places trials; the study decides. Thin adapters between the two.

Tune keeps no state that matters: its own snapshots and loggers are off, its folder is temporary, and a resumed search
starts a fresh Tuner. What the adapters remember is which of Tune's trials is which of ours, for the length of one run.
"""

from __future__ import annotations

import json
import logging
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.errors import ClusterError
from cluster.ray_session import environment, ray_session
from cluster.resources import ResourceSettings, cluster_concurrency, worker_share
from cluster.watch import Watch
from cluster.worker import TrialActor, encode_assignment
from search.history import observation_from
from search.trial import Decision, Observation, Trial, TrialState
from trainables.protocol import Assignment, heartbeat_file

logger = logging.getLogger(__name__)

TUNE_ENVIRONMENT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "1e12",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
"""Tune without snapshots, loggers, tables and signal handling of its own; one result at a time, in our folder."""
LONGEST_TRACEBACK = 20_000
"""Characters kept of a failed trial's traceback, the last ones."""
SECONDS_BETWEEN_LOOKS = 1.0
"""How often hanging workers are looked for."""
KILLED_FOR_MEMORY = ("OutOfMemoryError", "running low on memory", "running out of memory")
"""What Ray says where its memory monitor has killed a worker (F13)."""
LONGEST_CAUSE = 200
"""Characters kept of Ray's explanation of a death, which goes on with general advice."""


class Ending(StrEnum):
    """Why a run came back."""

    FINISHED = "finished"
    """The study has nothing more to run."""
    DEADLINE = "deadline"
    """The wall time is spent; unfinished trials go on when the study is resumed."""
    INTERRUPTED = "interrupted"
    """A signal asked for it; unfinished trials go on when the study is resumed."""


class Study(Protocol):
    """What placing needs of `search.study`."""

    @property
    def is_done(self) -> bool: ...
    def together(self) -> AbstractContextManager[None]: ...
    def next(self) -> Trial | None: ...
    def started(self, trial_id: str) -> int: ...
    def observe(self, trial_id: str, observation: Observation, attempt: int) -> Decision: ...
    def finish(self, trial_id: str, state: TrialState, reason: str) -> None: ...


def run_study(
    study: Study,
    make_assignment: Callable[[Trial], Assignment],
    resources: ResourceSettings,
    *,
    on_tick: Callable[[], None] | None = None,
    deadline: Callable[[], bool] | None = None,
) -> Ending:
    """Run the study's trials on Ray until it has no more, the deadline passes, or a signal comes.

    The first SIGINT or SIGTERM stops handing out trials and comes back with a study that can be resumed; the second
    one raises KeyboardInterrupt. A worker that dies costs its trial one of `max_failures` restarts; the trial goes on
    from its newest checkpoint, before any new one starts.

    Args:
        study: What to run; it hears of every start, report and end, and journals them.
        make_assignment: Turns a trial into what a worker needs.
        resources: Shares of a trial, restarts, address of the cluster.
        on_tick: Called about ten times a second, in this thread.
        deadline: Asked as often; True ends the run.

    Raises:
        ResourceError: A trial needs more than any machine has; nothing was started.
        ClusterError: Ray cannot be started or reached, or cannot start workers.
        Exception: Whatever the study, `make_assignment`, `on_tick` or `deadline` raise.
    """
    with ray_session(resources) as nodes:
        concurrency = cluster_concurrency(resources, nodes)
        placing = Placing(
            study,
            make_assignment,
            max_concurrent=concurrency,
            max_failures=resources.max_failures,
            worker_share=worker_share(resources),
            watch=Watch(None if resources.hang_minutes is None else resources.hang_minutes * 60),
        )
        ticker = Ticker(placing, on_tick or (lambda: None), deadline or (lambda: False))
        variables = {**TUNE_ENVIRONMENT, "TUNE_MAX_PENDING_TRIALS_PG": str(concurrency)}
        with tempfile.TemporaryDirectory(prefix="tune-") as folder, environment(variables), _signals(placing):
            try:
                _tuner(placing, ticker, resources, Path(folder)).fit()
            except Exception:
                if placing.error is None:
                    raise
        if placing.error is not None:
            raise placing.error  # as it was: Tune turns what its callbacks raise into text
    return placing.ending


@dataclass(frozen=True, slots=True)
class _Placed:
    """A trial that one of Tune's trials runs."""

    trial: Trial
    assignment: Assignment


class Placing:
    """One run of a study: which of Tune's trials is which of ours, and whether to go on."""

    def __init__(
        self,
        study: Study,
        make_assignment: Callable[[Trial], Assignment],
        *,
        max_concurrent: int,
        max_failures: int,
        worker_share: Mapping[str, float] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._study = study
        self._make_assignment = make_assignment
        self._max_concurrent = max_concurrent
        self._max_failures = max_failures
        self._worker_share = dict(worker_share or {})
        self._watch = watch or Watch(None)
        self._live: dict[str, _Placed] = {}
        self._again: deque[Trial] = deque()
        self._ready: deque[Trial] = deque()
        self._deaths: Counter[str] = Counter()
        self._halved: set[str] = set()
        self.ending = Ending.FINISHED
        self.error: Exception | None = None

    def hand_out(self, tune_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next trial, `Searcher.FINISHED`, or None for not now.

        A trial is proposed only when there is room for it, so that with one worker proposals follow results in order.
        Proposal and start cost one wait for the disk; more cannot be joined, as Tune shows one result a turn and lets
        the worker go on before it asks again.
        """
        if self.ending is not Ending.FINISHED:
            return str(Searcher.FINISHED)
        if len(self._live) >= self._max_concurrent:
            return None
        with self._study.together():
            waiting = self._again or self._ready
            trial = waiting.popleft() if waiting else self._study.next()
            attempt = self._study.started(trial.trial_id) if trial is not None else 0
        if trial is None:
            return str(Searcher.FINISHED) if self._study.is_done or not self._live else None
        assignment = self._make_assignment(trial)
        if trial.trial_id in self._halved:
            assignment = replace(assignment, options={**assignment.options, "split": 2})
        text = encode_assignment(assignment)
        self._live[tune_id] = _Placed(trial, assignment)
        given = {"assignment": text, "attempt": attempt}
        return given if assignment.n_workers == 1 else {**given, "worker_share": self._worker_share}

    def heard(self, tune_id: str, message: dict[str, Any]) -> bool:
        """Tell the study what a worker said and return whether the trial goes on."""
        goes_on = self._tell(message, self._live.get(tune_id))
        if not goes_on:
            self.left(tune_id)
        elif tune_id in self._live:
            self._watch.heard(tune_id, _heartbeat(self._live[tune_id].assignment))
        return goes_on

    def _tell(self, message: dict[str, Any], placed: _Placed | None) -> bool:
        """Tell the study, and return whether the worker goes on with the trial.

        Where the trial is set aside the study says at once what comes instead: if that is the same trial, its worker
        keeps it, with all that it has loaded.
        """
        trial_id = message["trial_id"]
        if "ended" in message:
            ended = message["ended"]
            logger.info("trial %s ended as %s: %s", trial_id, ended["state"], ended["reason"])
            if placed is not None:
                _keep_traceback(Path(placed.assignment.run_dir), trial_id, ended)
            self._study.finish(trial_id, TrialState(ended["state"]), ended["reason"])
            return False
        observation = observation_from(message["report"])
        with self._study.together():
            decision = self._study.observe(trial_id, observation, message["attempt"])
            is_left = decision is Decision.PAUSE and placed is not None and self.ending is Ending.FINISHED
            following = self._study.next() if is_left else None
        if following is None:
            return decision is Decision.CONTINUE and not message["is_last"]
        if following.trial_id == trial_id:
            return True
        self._ready.append(following)
        return False

    def is_hanging(self, tune_id: str) -> bool:
        """Look after a trial that a worker runs: end it as failed, and return True, where it hangs (F10)."""
        placed = self._live.get(tune_id)
        if placed is None:
            return False
        if not self._watch.is_watched(tune_id):
            self._watch.heard(tune_id, _heartbeat(placed.assignment))
        reason = self._watch.hang(tune_id)
        if reason is None:
            return False
        logger.warning("trial %s: %s; its worker is killed", placed.trial.trial_id, reason)
        self._study.finish(placed.trial.trial_id, TrialState.FAILED, reason)
        self.left(tune_id)
        return True

    def worker_died(self, tune_id: str, cause: str, *, in_creation: bool = False, out_of_memory: bool = False) -> None:
        """Keep the trial for another start, or end it as lost where it had its share of starts.

        A worker that was killed because its machine ran out of memory is started once more, with half the micro-batch.

        Raises:
            ClusterError: Workers die in their creation, before they see a trial: that is no trial's fault.
        """
        placed = self._live.pop(tune_id, None)
        self._watch.forget(tune_id)
        if placed is None:
            return  # the study had ended it before
        trial = placed.trial
        if out_of_memory:
            self._out_of_host_memory(trial, cause)
            return
        self._deaths[trial.trial_id] += 1
        deaths = self._deaths[trial.trial_id]
        logger.warning("trial %s: its worker died for the %d. time: %s", trial.trial_id, deaths, cause)
        if deaths <= self._max_failures:
            self._again.append(trial)
        elif in_creation:
            raise ClusterError(
                f"ray: a worker could not start, {deaths} times for trial {trial.trial_id}: {cause}; check that every "
                "machine of the cluster has this checkout and its packages, then go on with --resume"
            )
        else:
            reason = f"its worker died {deaths} times, {self._max_failures} restarts are allowed: {cause}"
            self._study.finish(trial.trial_id, TrialState.LOST, reason)

    def _out_of_host_memory(self, trial: Trial, cause: str) -> None:
        logger.warning("trial %s: its worker was killed for want of memory: %s", trial.trial_id, cause)
        if trial.trial_id in self._halved:
            reason = f"its machine ran out of memory, with half the micro-batch too: {cause}"
            self._study.finish(trial.trial_id, TrialState.OUT_OF_MEMORY, reason)
        else:
            self._halved.add(trial.trial_id)
            self._again.append(trial)

    def left(self, tune_id: str) -> None:
        """Make room: Tune is done with one of its trials."""
        self._live.pop(tune_id, None)
        self._watch.forget(tune_id)

    def end(self, ending: Ending) -> None:
        """Hand out no more; what runs is left unfinished."""
        if self.ending is Ending.FINISHED:
            self.ending = ending

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep the first error of a callback: Tune turns errors into text."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> Placing:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Tune pickles its adapters into its own folder, which nobody reads: there is nothing to keep."""
        return object, ()


class StudySearcher(Searcher):
    """Tune asks for a configuration; the study gives the next trial."""

    def __init__(self, placing: Placing) -> None:
        super().__init__()
        self._placing = placing

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        with self._placing.remembering():
            configuration: Any = self._placing.hand_out(trial_id)
        return configuration  # type: ignore[no-any-return]  # Ray's annotation forgets FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._placing.left(trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Keep nothing: the journal is the state."""


class StudyScheduler(FIFOScheduler):
    """Tune shows a result; the study says whether the trial goes on."""

    def __init__(self, placing: Placing) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._placing = placing
        self._next_look = 0.0
        self._n_seen = 0
        self._unfinished: list[Any] = []

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        with self._placing.remembering():
            goes_on = self._placing.heard(trial.trial_id, json.loads(result["message"]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        path = trial.error_file
        text = Path(path).read_text(errors="replace") if path and Path(path).exists() else ""
        with self._placing.remembering():
            self._placing.worker_died(
                trial.trial_id,
                _cause_of_death(text),
                in_creation="creation task" in text,
                out_of_memory=any(words in text for words in KILLED_FOR_MEMORY),
            )

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the order to Tune's queue, first come first served, which spares a walk over all trials.

        Tune asks on each turn of its loop, so this is also where hanging workers are looked for, and killed: Tune
        itself would report what they said last as a success.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + SECONDS_BETWEEN_LOOKS
        self._forget_metrics(tune_controller.get_trials())
        for trial in tune_controller.get_live_trials():
            actor = trial.temporary_state.ray_actor
            if trial.status != TuneTrial.RUNNING or actor is None:
                continue
            with self._placing.remembering():
                if self._placing.is_hanging(trial.trial_id):
                    ray.kill(actor)

    def _forget_metrics(self, trials: Sequence[Any]) -> None:
        """Empty what Tune keeps of every metric of a finished trial: half of all that it keeps, and nobody reads it."""
        self._unfinished += trials[self._n_seen :]
        self._n_seen = len(trials)
        for trial in self._unfinished:
            if trial.is_finished():
                trial.run_metadata.metric_analysis.clear()
                trial.run_metadata.metric_n_steps.clear()
        self._unfinished = [trial for trial in self._unfinished if not trial.is_finished()]


class Ticker(tune.Stopper):
    """Tune asks on each turn of its loop whether to stop everything."""

    def __init__(self, placing: Placing, on_tick: Callable[[], None], deadline: Callable[[], bool]) -> None:
        self._placing = placing
        self._on_tick = on_tick
        self._deadline = deadline

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        with self._placing.remembering():
            self._on_tick()
            if self._deadline():
                self._placing.end(Ending.DEADLINE)
        return self._placing.ending is not Ending.FINISHED

    def __deepcopy__(self, memo: dict[int, Any]) -> Ticker:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


def _tuner(placing: Placing, ticker: Ticker, resources: ResourceSettings, folder: Path) -> tune.Tuner:
    share = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    if resources.workers_per_trial > 1:
        share = {"cpu": 0, "memory": 1}  # the actor only waits: Ray Train sets the shares of its workers aside
    return tune.Tuner(
        tune.with_resources(TrialActor, share),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(placing),
            scheduler=StudyScheduler(placing),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.trial_id),
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder),
            stop=ticker,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),  # `Placing` restarts trials, whatever state Tune had
            verbose=0,
        ),
    )


@contextmanager
def _signals(placing: Placing) -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into the end of handing out, and the second one into a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in (*ours, signal.SIGUSR1)}  # Tune replaces SIGUSR1

    def first(number: int, frame: object) -> None:
        logger.warning("%s: stopping; a second one stops at once", signal.Signals(number).name)
        placing.end(Ending.INTERRUPTED)
        for other in ours:
            signal.signal(other, second)

    def second(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in ours:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heartbeat(assignment: Assignment) -> Path:
    return heartbeat_file(assignment.run_dir, assignment.trial_id)


def _keep_traceback(run_dir: Path, trial_id: str, ended: Mapping[str, Any]) -> None:
    """Write the end of a failed trial's traceback to `failures/` of its run folder."""
    path = run_dir / "failures" / f"{trial_id}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(ended["traceback"])[-LONGEST_TRACEBACK:], encoding="utf-8")
    except OSError as error:
        logger.warning("trial %s: its traceback was not kept: %s", trial_id, error)


def _cause_of_death(text: str) -> str:
    """Return the line of a Ray error that says why: the last one that is not part of an indented detail."""
    lines = [line for line in text.splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1][:LONGEST_CAUSE] if lines else "cause unknown"
