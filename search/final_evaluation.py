"""The final evaluation: the vault is opened for a choice of trials, which are trained anew up to it and scored on it.

The opening is in the journal before a row of the vault is read, and each score as soon as it is known (SEARCH-17).
"""

from __future__ import annotations

import getpass
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from search.errors import ProtocolError, SpaceError
from search.history import Opening
from search.study import Study
from search.trial import Decision, Observation, Rung, Trial, TrialState

LADDER = (Rung(index=0, fold=0, share=1.0),)
"""One fold, trained to its end: what is behind it is the vault."""


class FinalEvaluation:
    """The trials of an opening as something that can be placed like a study: each visits one rung.

    Args:
        study: The search; its journal is written to.
        trial_ids: Whom to score: complete trials, at least one.
        choice: How they were chosen, for the ledger.
        again: Whether a vault that was opened before may be opened.

    Raises:
        SpaceError: The choice cannot be evaluated; nothing was opened.
    """

    def __init__(self, study: Study, trial_ids: Sequence[str], *, choice: str, again: bool) -> None:
        self._study = study
        try:
            self._opening = study.open_vault(trial_ids, choice=choice, who=whoami(), again=again)
        except ProtocolError as error:
            raise SpaceError(f"--final-eval {choice}: {error}") from error
        chosen = [study.trials[trial_id] for trial_id in self._opening.trial_ids]
        self._trials = {
            t.trial_id: replace(t, state=TrialState.RUNNING, observations=(), attempts=0)
            for t in chosen
            if t.trial_id not in self._opening.scores
        }
        self._waiting = deque(self._trials)

    @property
    def opening(self) -> Opening:
        """The line of the ledger, with the scores so far."""
        return self._study.history.openings[-1]

    @property
    def trials(self) -> Mapping[str, Trial]:
        """Trial id -> trial of those that are not scored yet, as it stands in this evaluation."""
        return self._trials

    @property
    def n_trials(self) -> int:
        return len(self._trials)

    @property
    def is_done(self) -> bool:
        return all(trial.state.is_finished for trial in self._trials.values())

    def best(self) -> Trial | None:
        """Return None: the vault is no place to choose."""
        return None

    def next(self) -> Trial | None:
        return self._trials[self._waiting.popleft()] if self._waiting else None

    def started(self, trial_id: str) -> int:
        trial = self._trials[trial_id]
        self._trials[trial_id] = replace(trial, attempts=trial.attempts + 1)
        return trial.attempts + 1

    def observe(self, trial_id: str, observation: Observation, attempt: int) -> Decision:
        """Write the score down; the trial has nothing more to do. An older attempt is not heard."""
        trial = self._trials[trial_id]
        if attempt == trial.attempts and not trial.state.is_finished:
            self._study.score_vault(trial_id, observation.metrics, observation.n_scored)
            self._trials[trial_id] = replace(trial.observed(observation), state=TrialState.COMPLETE)
        return Decision.STOP

    def finish(self, trial_id: str, state: TrialState, reason: str) -> None:
        if not self._trials[trial_id].state.is_finished:
            self._trials[trial_id] = replace(self._trials[trial_id], state=state, reason=reason)

    def together(self) -> AbstractContextManager[None]:
        """See `Study.together`."""
        return self._study.together()

    def failures(self) -> list[str]:
        """Return one line for each trial that has no score."""
        return [
            f"{t.trial_id}: {t.state}: {t.reason or 'not finished'}"
            for t in self._trials.values()
            if t.trial_id not in self.opening.scores
        ]


def ledger_rows(openings: Sequence[Opening]) -> list[dict[str, Any]]:
    """Return the ledger as JSON values: what the analysis layer writes to `vault.json`."""
    return [
        {
            "number": o.number,
            "time_utc": o.time_utc,
            "who": o.who,
            "choice": o.choice,
            "trial_ids": list(o.trial_ids),
            "n_trials": o.n_trials,
            "n_scored": o.n_scored,
            "scores": {trial_id: dict(metrics) for trial_id, metrics in o.scores.items()},
        }
        for o in openings
    ]


def whoami() -> str:
    """Return `user@host`, as far as the machine knows it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for this user
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
