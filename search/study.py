"""A study: optimizer, stopping rule and journal; the whole state of a search.

Every event is on disk before its effect is returned, and every effect follows from the events alone. So a study that
is killed at any moment and resumed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.charter import Charter, charter_from, refuse_differences
from search.errors import JournalError, ProtocolError
from search.history import (
    FINISHED,
    OBSERVED,
    OPENED,
    PROPOSED,
    RESUMED,
    SCORED,
    STARTED,
    STOPPED,
    History,
    Opening,
    observation_body,
    trial_body,
)
from search.journal import Event, EventLog, Journal
from search.memory_journal import MemoryJournal
from search.mind import Mind
from search.trial import Config, Decision, Observation, Rung, Trial, TrialState

Infeasible = Callable[[Config], str | None]
Listener = Callable[[Event, Trial | None], None]


class Study:
    """A search as a whole. Made by `create` or `resume`; `read` gives what its journal tells, to look at.

    The caller asks `next` for a trial, tells `started` when a worker takes it, reports each rung to `observe` and
    obeys its decision, and tells `finish` where a trial ends in any other way. One thread.
    """

    def __init__(self, journal: EventLog, mind: Mind, infeasible: Infeasible | None) -> None:
        self._journal = journal
        self._mind = mind
        self._infeasible = infeasible
        self._listeners: list[Listener] = []
        self._held_back: list[tuple[Event, Trial | None]] | None = None
        for event in journal.events():
            mind.apply(event)
        self._unfinished = deque(t.trial_id for t in self.trials.values() if t.state is TrialState.RUNNING)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        header: Mapping[str, Any] | None = None,
        infeasible: Infeasible | None = None,
        **arguments: Any,
    ) -> Study:
        """Begin a study and write its journal.

        Args:
            path: Of the new journal.
            header: More JSON for the header of the journal: `data_snapshot`, `family`, `folds` and `data` must be the
                same for a resume, everything else is told only.
            infeasible: Says why a config cannot be trained, None where it can. Pure.
            arguments: Those of `search.charter.Charter`: space, ladder, n_trials, objectives, constraints, optimizer,
                stopping, seed, enqueue, prior, defaults, population, max_infeasible, limits, unlock.

        Raises:
            SpaceError: Optimizer, rule or an enqueued config is wrong.
            JournalError: There is a journal already, or it cannot be written.
            ValueError: A number is too small, or the header is no JSON.
        """
        charter = Charter(**arguments)
        full = {**(header or {}), "study": charter.to_header()}
        mind = Mind(charter, full)
        return cls(Journal.create(Path(path), full), mind, infeasible)

    @classmethod
    def in_memory(cls, *, infeasible: Infeasible | None = None, **arguments: Any) -> Study:
        """Begin a study that ends with this process, for simulation; arguments and errors are those of `create`."""
        charter = Charter(**arguments)
        header = {"study": charter.to_header()}
        return cls(MemoryJournal(header), Mind(charter, header), infeasible)

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        header: Mapping[str, Any] | None = None,
        infeasible: Infeasible | None = None,
        **arguments: Any,
    ) -> Study:
        """Go on with a study, whatever moment it was killed at; the arguments are those of `create`.

        `n_trials` may have grown. `next` gives the unfinished trials first.

        Raises:
            SpaceError: The space differs from that of the journal; the message names the parameters.
            JournalError: Something else differs, or the journal is missing, damaged or held by a living driver.
        """
        charter = Charter(**arguments)
        journal = Journal.open(Path(path))
        try:
            refuse_differences(str(path), journal.header, {**(header or {}), "study": charter.to_header()})
            return cls(journal, Mind(charter, journal.header), infeasible)
        except BaseException:
            journal.close()
            raise

    @staticmethod
    def read(path: Path) -> History:
        """Return what a journal tells, without a lease: for reports, also while the search runs.

        Raises:
            JournalError: The journal is missing or damaged.
        """
        with Journal.read(Path(path)) as journal:
            charter = charter_from(journal.header["study"])
            history = History(charter.objectives, journal.header, charter.constraints)
            for event in journal.events():
                history.apply(event)
        return history

    @property
    def trials(self) -> Mapping[str, Trial]:
        """Trial id -> trial as it is now, in order of number; grows with the study."""
        return self._mind.history.trials

    @property
    def history(self) -> History:
        """What the journal tells, as it grows."""
        return self._mind.history

    @property
    def charter(self) -> Charter:
        """What the study is made of."""
        return self._mind.charter

    @property
    def n_trials(self) -> int:
        """Budget of trials."""
        return self.charter.n_trials

    @property
    def stop_reason(self) -> str | None:
        """Why the study proposes nothing more before its budget of trials is spent; None where it goes on.

        `stop` is for good. What the limits of the charter say may be taken back, by a trial that still runs or by a
        resume with wider limits.
        """
        return self._mind.history.stop_reason or self._mind.ending()

    @property
    def n_tried(self) -> int:
        """Number of trials that were started: each was a chance to be lucky."""
        return self.history.n_accepted

    @property
    def n_running(self) -> int:
        """Number of trials that are proposed and neither finished nor set aside."""
        return self.counts()[TrialState.RUNNING]

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more will be proposed: stopped, or the budget of trials is asked."""
        return self.stop_reason is not None or self.history.n_accepted >= self.charter.n_trials

    @property
    def is_done(self) -> bool:
        """Whether the search is over: nothing runs, and nothing more will be proposed or taken up again."""
        return self.is_exhausted and self.n_running == 0 and self._to_resume() is None

    def counts(self) -> dict[TrialState, int]:
        """Return the number of trials in every state."""
        return self.history.counts()

    def best(self) -> Trial | None:
        """Return the complete trial with the best first objective; None where there is none."""
        return self.history.best()

    def events(self) -> Iterator[Event]:
        """Yield every event of the journal so far."""
        return self._journal.events()

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(event, trial)` after the commit of every event from now on; `trial` as it is after it."""
        self._listeners.append(listener)

    def next(self) -> Trial | None:
        """Return a trial to run: those that an earlier session left unfinished, then one that was set aside and is
        the most promising thing to do, then new ones.

        None: nothing more; or nothing yet, while a synchronous search waits for the end of a generation. Proposals that
        are infeasible are journaled and passed over; at `max_infeasible` the study stops.
        """
        while self._unfinished:
            trial = self.trials[self._unfinished.popleft()]
            if trial.state is TrialState.RUNNING:
                return trial
        while True:
            resumed = self._to_resume()
            if resumed is not None:
                return self._commit(RESUMED, {"trial_id": resumed})
            if self.is_exhausted or self._mind.is_between_generations:
                return None
            if self.history.n_refused >= self.charter.max_infeasible:
                last = self.history.last_refusal
                self.stop(f"{self.history.n_refused} proposals were infeasible; the last: {last}")
                return None
            trial = self._propose()
            if not trial.state.is_finished:
                return trial

    def started(self, trial_id: str) -> int:
        """Tell that a worker takes the trial up; return the number of this attempt, from 1.

        From now on reports of earlier attempts are refused.

        Raises:
            ProtocolError: The trial is unknown, finished or set aside.
        """
        trial = self._known(trial_id)
        if trial.state is not TrialState.RUNNING:
            raise ProtocolError(f"{trial_id}: expected a running trial to start, found it {trial.state}")
        attempt = trial.attempts + 1
        self._commit(STARTED, {"trial_id": trial_id, "attempt": attempt})
        return attempt

    def observe(self, trial_id: str, observation: Observation, attempt: int) -> Decision:
        """Take a report in and decide. PAUSE and STOP mean: this worker has nothing more to do for the trial.

        A rung that was heard before gets the decision that it got, but that a trial that was taken up again goes on. An
        attempt that is not the newest, and a trial
        that does not run, get STOP, and nothing is written.

        Raises:
            ProtocolError: The trial or attempt is unknown, a rung was left out, or the report is not of this ladder.
        """
        trial = self._known(trial_id)
        if not 1 <= attempt <= trial.attempts:
            raise ProtocolError(f"{trial_id}: expected an attempt of 1 to {trial.attempts}, found {attempt}")
        if attempt < trial.attempts:
            return Decision.STOP
        heard = self.history.decision(trial_id, observation.rung)
        if heard is not None:
            is_taken_up = heard is Decision.PAUSE and trial.state is TrialState.RUNNING
            return Decision.CONTINUE if is_taken_up else heard
        if trial.state is not TrialState.RUNNING:
            return Decision.STOP
        self._check_rung(trial, observation)
        decision, state, reason = self._mind.judge(trial, observation)
        body = {"trial_id": trial_id, "attempt": attempt, "observation": observation_body(observation)}
        self._commit(OBSERVED, {**body, "decision": decision.value, "state": state.value, "reason": reason})
        return decision

    def finish(self, trial_id: str, state: TrialState, reason: str) -> None:
        """Tell that a trial ended other than by its reports. One that is finished or set aside stays as it is.

        Raises:
            ProtocolError: The trial is unknown, or still running and told to be running or complete, which only its
                reports can make it.
        """
        trial = self._known(trial_id)
        if trial.state is not TrialState.RUNNING:
            return
        if state in (TrialState.RUNNING, TrialState.COMPLETE):
            raise ProtocolError(
                f"{trial_id}: expected a state other than {state} after {len(trial.observations)} rungs"
            )
        self._commit(FINISHED, {"trial_id": trial_id, "state": state.value, "reason": reason})

    def stop(self, reason: str) -> None:
        """Propose nothing more, for good; what runs may go on. The first reason stays."""
        if self.history.stop_reason is None:
            self._commit(STOPPED, {"reason": reason})

    def open_vault(self, trial_ids: Sequence[str], *, choice: str, who: str, again: bool = False) -> Opening:
        """Write down that the final test period is opened for these trials, before anything of it is read.

        An opening for the same trials that was cut short goes on: it is not a second one.

        Raises:
            ProtocolError: A trial is unknown or not complete, or the vault was opened before and `again` is not given.
        """
        for trial_id in trial_ids:
            if self._known(trial_id).state is not TrialState.COMPLETE:
                raise ProtocolError(f"{trial_id}: expected a complete trial, found it {self.trials[trial_id].state}")
        ledger = self.history.openings
        if ledger and not ledger[-1].is_complete and ledger[-1].trial_ids == tuple(trial_ids):
            return ledger[-1]
        if ledger and not again:
            last = ledger[-1]
            raise ProtocolError(
                f"the vault was opened on {last.time_utc[:10]} by {last.who} for {', '.join(last.trial_ids)}: what it "
                "said then is in vault.json, and a second look is no test any more; --reopen looks again, and every "
                "later report says so"
            )
        body = {"choice": choice, "trial_ids": list(trial_ids), "who": who, "n_trials": self.n_tried}
        self._commit(OPENED, body)
        return self.history.openings[-1]

    def score_vault(self, trial_id: str, metrics: Mapping[str, float], n_scored: int) -> None:
        """Write down what a trial of the newest opening is worth on the vault; what is not finite is left out.

        Raises:
            ProtocolError: The vault is not open for this trial.
        """
        ledger = self.history.openings
        if not ledger or trial_id not in ledger[-1].trial_ids:
            raise ProtocolError(f"{trial_id}: expected an opening of the vault for this trial, found none")
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._commit(SCORED, {"trial_id": trial_id, "metrics": finite, "n_scored": n_scored})

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make several calls at the price of one wait for the disk: `next` for many workers, reports of many trials.

        The calls inside decide one after another as they always do, but what they return may be acted upon only after
        the block: their events are on disk when it ends, and listeners hear of them then.

        Raises:
            JournalError: The events could not be written; nothing that was returned inside holds.
        """
        held_back = self._held_back = []
        try:
            with self._journal.group():
                yield
        except JournalError:
            held_back.clear()
            raise
        finally:
            self._held_back = None
            for event, trial in held_back:
                self._tell_listeners(event, trial)

    def close(self) -> None:
        """Give the lease back; the study can then be resumed, here or elsewhere."""
        self._journal.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _to_resume(self) -> str | None:
        """Return the trial that is taken up again next; None where a new one comes first, or nothing more."""
        if self.stop_reason is not None:
            return None
        return self._mind.to_resume(is_last=self.is_exhausted)

    def _propose(self) -> Trial:
        trial = self._mind.propose()
        reason = None if self._infeasible is None else self._infeasible(trial.config)
        if reason is not None:
            trial = replace(trial, state=TrialState.INFEASIBLE, reason=reason)
        proposed = self._commit(PROPOSED, trial_body(trial))
        assert proposed is not None
        return proposed

    def _commit(self, kind: str, body: Mapping[str, Any]) -> Trial | None:
        event = self._journal.append(kind, body)
        trial = self._mind.apply(event)
        if self._held_back is None:
            self._tell_listeners(event, trial)
        else:
            self._held_back.append((event, trial))
        return trial

    def _tell_listeners(self, event: Event, trial: Trial | None) -> None:
        for listener in self._listeners:
            listener(event, trial)

    def _known(self, trial_id: str) -> Trial:
        try:
            return self.trials[trial_id]
        except KeyError:
            raise ProtocolError(f"{trial_id}: expected a trial of this study, found none of this id") from None

    def _check_rung(self, trial: Trial, observation: Observation) -> None:
        expected = self.charter.ladder[len(trial.observations)]
        if (observation.rung, observation.fold, observation.share) != (expected.index, expected.fold, expected.share):
            found = Rung(index=observation.rung, fold=observation.fold, share=observation.share)
            wanted, had = (f"rung {r.index} (fold {r.fold}, share {r.share:g})" for r in (expected, found))
            raise ProtocolError(f"{trial.trial_id}: expected a report of {wanted}, found one of {had}")
