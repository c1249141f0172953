"""What the events of a journal say: the trials of a study, and nothing that decides.

`History.apply` is the only place where a trial changes, live and on replay alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from search.errors import JournalError
from search.journal import Event
from search.objective import Constraint, Objective
from search.trial import Decision, Observation, Trial, TrialState

ENQUEUED = "enqueued"
"""Origin of the trials that the user asked for."""
PROPOSED, STARTED, OBSERVED, FINISHED, STOPPED = "proposed", "started", "observed", "finished", "stopped"
RESUMED = "resumed"
"""A trial that was set aside goes on."""
OPENED, SCORED = "opened", "scored"
"""The vault was opened for a choice of trials; one of them was scored on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One opening of the vault: a line of its ledger (SEARCH-17).

    Attributes:
        number: 1 for the first.
        time_utc: When it was written down, before anything was read.
        who: `user@host`.
        choice: How the trials were chosen: `leader`, `confidence_set`, or ids.
        trial_ids: Whom it was opened for.
        n_trials: Trials that had been started by then, those of searches that this one grew from included.
        scores: Trial -> metrics on the vault, of those that are scored.
        n_scored: Rows of the vault that each of them was scored on.
    """

    number: int
    time_utc: str
    who: str
    choice: str
    trial_ids: tuple[str, ...]
    n_trials: int
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    n_scored: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether every trial that it was opened for is scored."""
        return set(self.scores) == set(self.trial_ids)


class History:
    """The trials of a study, as its events tell them.

    Args:
        objectives: At least one; `best` goes by the first.
        header: Header of the journal.
        constraints: What trials must keep to.
    """

    def __init__(
        self, objectives: Sequence[Objective], header: Mapping[str, Any], constraints: Sequence[Constraint] = ()
    ) -> None:
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.header = header
        self.stop_reason: str | None = None
        self.n_accepted = 0
        """Trials proposed and feasible: what the budget counts."""
        self.n_sampled = 0
        """Those of them that an optimizer proposed: what generations count."""
        self.n_refused = 0
        """Trials proposed and infeasible."""
        self.last_refusal = ""
        self.openings: tuple[Opening, ...] = ()
        """The ledger of the vault."""
        self._trials: dict[str, Trial] = {}
        self.trials: Mapping[str, Trial] = MappingProxyType(self._trials)
        """Trial id -> trial, in order of number; grows with the study."""
        self._decisions: dict[tuple[str, int], Decision] = {}
        self._counts = dict.fromkeys(TrialState, 0)
        self._best: tuple[float, int, str] | None = None

    def counts(self) -> dict[TrialState, int]:
        """Return the number of trials in every state."""
        return dict(self._counts)

    def best(self) -> Trial | None:
        """Return the complete trial with the best first objective; the first of equals; None where there is none."""
        return None if self._best is None else self._trials[self._best[2]]

    def decision(self, trial_id: str, rung: int) -> Decision | None:
        """Return what was decided at a rung of a trial; None where it was not heard yet."""
        return self._decisions.get((trial_id, rung))

    def apply(self, event: Event) -> Trial | None:
        """Take one event in; return the trial that it changed, if any.

        Raises:
            JournalError: The event speaks of a trial or in a way that this program does not know.
        """
        try:
            if event.kind in (OPENED, SCORED):
                self.openings = _ledger(self.openings, event)
                return None
            changed = self._changed(event.kind, event.body)
        except (KeyError, ValueError, TypeError) as error:
            raise JournalError(f"event {event.seq} ({event.kind}): cannot be understood: {error!r}") from error
        if changed is None:
            return None
        before = self._trials.get(changed.trial_id)
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[changed.state] += 1
        self._trials[changed.trial_id] = changed
        loss = self.objectives[0].loss(changed) if changed.state is TrialState.COMPLETE else None
        if loss is not None:
            place = (loss, changed.number, changed.trial_id)
            self._best = place if self._best is None else min(self._best, place)
        return changed

    def _changed(self, kind: str, body: Mapping[str, Any]) -> Trial | None:
        if kind == STOPPED:
            self.stop_reason = body["reason"]
            return None
        if kind == PROPOSED:
            trial = trial_from(body)
            is_refused = trial.state is TrialState.INFEASIBLE
            self.n_refused += is_refused
            self.last_refusal = trial.reason if is_refused else self.last_refusal
            self.n_accepted += not is_refused
            self.n_sampled += not is_refused and trial.origin != ENQUEUED
            return trial
        trial = self._trials[body["trial_id"]]
        if kind == STARTED:
            return replace(trial, attempts=body["attempt"])
        if kind == RESUMED:
            return replace(trial, state=TrialState.RUNNING, reason="")
        if kind == FINISHED:
            return replace(trial, state=TrialState(body["state"]), reason=body["reason"])
        if kind != OBSERVED:
            raise ValueError(f"expected a known kind of event, found {kind!r}")
        observation = observation_from(body["observation"])
        self._decisions[trial.trial_id, observation.rung] = Decision(body["decision"])
        state = TrialState(body["state"])
        if state is TrialState.DIVERGED:
            return replace(trial, state=state, reason=body["reason"])
        return self.observed(trial, observation, state, body["reason"])

    def observed(
        self, trial: Trial, observation: Observation, state: TrialState = TrialState.RUNNING, reason: str = ""
    ) -> Trial:
        """Return a trial with one more observation, what that says about the constraints, and what follows from it."""
        observations = (*trial.observations, observation)
        return self.weighed(replace(trial, observations=observations, state=state, reason=reason))

    def weighed(self, trial: Trial) -> Trial:
        """Return a trial with what its observations say about the constraints."""
        if not self.constraints:
            return trial
        found = {constraint.metric: constraint.excess_of(trial) for constraint in self.constraints}
        return replace(trial, excesses={metric: excess for metric, excess in found.items() if excess is not None})


def _ledger(openings: tuple[Opening, ...], event: Event) -> tuple[Opening, ...]:
    body = event.body
    if event.kind == OPENED:
        given = {**body, "trial_ids": tuple(body["trial_ids"]), "time_utc": event.time_utc}
        return (*openings, Opening(number=len(openings) + 1, **given))
    *before, last = openings
    scores = {**last.scores, body["trial_id"]: {name: float(v) for name, v in body["metrics"].items()}}
    return (*before, replace(last, scores=scores, n_scored=body["n_scored"]))


def trial_body(trial: Trial) -> dict[str, Any]:
    """Write a trial that has just been proposed as JSON values."""
    return {
        "number": trial.number,
        "trial_id": trial.trial_id,
        "config": dict(trial.config),
        "origin": trial.origin,
        "generation": trial.generation,
        "parents": list(trial.parents),
        "seed": trial.seed,
        "state": trial.state.value,
        "reason": trial.reason,
        "note": dict(trial.note),
        "inherit": dict(trial.inherit),
    }


def trial_from(body: Mapping[str, Any]) -> Trial:
    """Read what `trial_body` wrote."""
    known = {**body, "parents": tuple(body["parents"]), "state": TrialState(body["state"])}
    return Trial(**known)


def observation_body(observation: Observation) -> dict[str, Any]:
    """Write an observation as JSON values; numbers that are not finite become text."""
    return {
        "rung": observation.rung,
        "fold": observation.fold,
        "share": observation.share,
        "metrics": {name: v if math.isfinite(v) else str(v) for name, v in observation.metrics.items()},
        "n_scored": observation.n_scored,
        "seconds": observation.seconds,
        "blocks": [v if math.isfinite(v) else str(v) for v in observation.blocks],
        "reused_from": observation.reused_from,
    }


def observation_from(body: Mapping[str, Any]) -> Observation:
    """Read what `observation_body` wrote."""
    metrics = {name: float(v) for name, v in body["metrics"].items()}
    blocks = tuple(map(float, body.get("blocks", ())))
    return Observation(**{**body, "metrics": metrics, "blocks": blocks})
