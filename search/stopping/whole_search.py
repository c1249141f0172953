"""When the whole search is over before its budget of trials is: GPU-hours spent, nothing more to gain, only failures.

Judged on the events of the journal alone, so that a resumed and a replayed search end where the first one did.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from search.estimates import paired_estimate
from search.objective import Objective
from search.stopping.improvement import expected_improvement
from search.trial import Trial, TrialState

N_WATCHED = 30
"""Trials that ended last: what they are like says what the next ones will be like."""


class WholeSearch:
    """Hears of every trial and says why nothing more should be proposed, if so.

    Args:
        objective: Metric and direction by which progress is told.
        gpu_hours: Reported seconds of trials times `gpus_per_trial`, in hours; None: no limit.
        gpus_per_trial: GPU share of a trial.
        patience: Trials that may end, one after another, without one that completes better than the best before by more
            than one standard error of their paired difference; None: no limit.
        least_improvement: In standard errors of a paired difference over the whole ladder: where the next 30 trials,
            if they are like the last 30, will improve on the best by less than so much, nothing that could be shown is
            to be gained; None: no limit.
        give_up_after: Where all of so many first trials failed, the search is broken; None: never.

    Raises:
        ValueError: A limit is not above zero, or `gpu_hours` is given for trials without a GPU.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        gpu_hours: float | None = None,
        gpus_per_trial: float = 0.0,
        patience: int | None = None,
        least_improvement: float | None = None,
        give_up_after: int | None = None,
    ) -> None:
        if any(limit is not None and limit <= 0 for limit in (gpu_hours, patience, least_improvement, give_up_after)):
            raise ValueError(
                "expected gpu_hours, patience, least_improvement and give_up_after above 0, found "
                f"{gpu_hours}, {patience}, {least_improvement} and {give_up_after}"
            )
        if gpu_hours is not None and gpus_per_trial <= 0:
            raise ValueError(f"expected gpus_per_trial above 0 with gpu_hours, found {gpus_per_trial}")
        self.objective = objective
        self.gpu_hours = gpu_hours
        self.gpus_per_trial = gpus_per_trial
        self.patience = patience
        self.least_improvement = least_improvement
        self.give_up_after = give_up_after
        self._seconds = 0.0
        self._n_heard: dict[str, int] = {}
        self._ended: set[str] = set()
        self._has_worked = False
        self._last_failure = ""
        self._record: Trial | None = None
        self._n_since_record = 0
        self._latest: deque[Trial] = deque(maxlen=N_WATCHED)
        self._outlook: float | None = None

    def tell(self, trial: Trial) -> None:
        """Hear a trial at every change of it."""
        fresh = trial.observations[self._n_heard.get(trial.trial_id, 0) :]
        if fresh:
            self._n_heard[trial.trial_id] = len(trial.observations)
            self._seconds += sum(observation.seconds for observation in fresh)
        if trial.state is TrialState.RUNNING or trial.state is TrialState.INFEASIBLE:
            return
        is_new = trial.trial_id not in self._ended
        if is_new or trial.state is TrialState.COMPLETE:
            self._ended.add(trial.trial_id)
            self._end(trial, is_new=is_new)

    def reason(self) -> str | None:
        """Return why nothing more should be proposed; None where the search goes on."""
        spent = self._seconds * self.gpus_per_trial / 3600
        if self.gpu_hours is not None and spent >= self.gpu_hours:
            return f"budget.gpu_hours: {spent:.3g} of {self.gpu_hours:g} GPU-hours are spent"
        if self.patience is not None and self._record is not None and self._n_since_record >= self.patience:
            return (
                f"budget.patience: {self._n_since_record} trials ended without one that is better than "
                f"{self._record.trial_id} by more than the noise"
            )
        if self.least_improvement is not None and self._outlook is not None and self._outlook < self.least_improvement:
            return (
                f"budget.least_improvement: {N_WATCHED} more trials like the last are expected to improve on the best "
                f"by {self._outlook:.3g} standard errors"
            )
        if self.give_up_after is not None and not self._has_worked and len(self._ended) >= self.give_up_after:
            return f"budget.give_up_after: all of the first {len(self._ended)} trials failed; {self._last_failure}"
        return None

    def _end(self, trial: Trial, *, is_new: bool) -> None:
        """Take in a trial that has ended or was set aside, or that has completed after it was."""
        if trial.state.has_value:
            self._has_worked = True
        else:
            self._last_failure = f"the last, {trial.trial_id}, {trial.state}: {trial.reason}"
        self._n_since_record += is_new
        has_use = self.patience is not None or self.least_improvement is not None
        if has_use and trial.state is TrialState.COMPLETE and self._is_progress(trial):
            self._record, self._n_since_record = trial, 0
        if self.least_improvement is not None and trial.state.has_value:
            self._latest = deque((t for t in self._latest if t.number != trial.number), maxlen=N_WATCHED)
            self._latest.append(trial)
            self._outlook = self._expected_improvement()

    def _expected_improvement(self) -> float | None:
        """Return what as many trials as are watched will improve on the best, in standard errors; None: too few known.

        True gaps to the best are taken as normal, with the spread of the measured ones less their noise. The sum of the
        expected improvements of the trials bounds that of the best of them.
        """
        best = self._record
        if best is None or len(self._latest) < N_WATCHED:
            return None
        paired = [(t, paired_estimate(t, best, self.objective.metric)) for t in self._latest if t is not best]
        whole, sign = best.n_folds, 1.0 if self.objective.direction == "min" else -1.0
        own = best.estimate(self.objective.metric)
        known = [(p.mean, p.error, p.n_folds) for _, p in paired if p is not None and p.error]
        if own is None or len(known) < N_WATCHED / 2:
            return None
        gaps = sign * (np.array([mean for mean, _, _ in known]) - own.mean)
        errors = np.array([error for _, error, _ in known])
        noise = float(np.median(errors * np.sqrt(np.array([n for _, _, n in known]) / whole)))
        spread = math.sqrt(max(float(np.var(gaps, ddof=1) - np.mean(errors**2)), 1e-4 * noise**2))
        return N_WATCHED * float(expected_improvement(-gaps.mean(), spread)) / noise

    def _is_progress(self, trial: Trial) -> bool:
        if self._record is None:
            return True
        own, best = self.objective.loss(trial), self.objective.loss(self._record)
        paired = paired_estimate(trial, self._record, self.objective.metric)
        if own is None or best is None or paired is None:
            return False
        return best - own > (paired.error or 0.0)
