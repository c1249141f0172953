"""When the whole search is over before its budget of trials is: GPU-hours spent, no more progress, only failures.

Judged on the events of the journal alone, so that a resumed and a replayed search end where the first one did.
"""

from __future__ import annotations

from search.estimates import paired_estimate
from search.objective import Objective
from search.trial import Trial, TrialState


class WholeSearch:
    """Hears of every trial and says why nothing more should be proposed, if so.

    Args:
        objective: Metric and direction by which progress is told.
        gpu_hours: Reported seconds of trials times `gpus_per_trial`, in hours; None: no limit.
        gpus_per_trial: GPU share of a trial.
        patience: Trials that may end, one after another, without one that completes better than the best before by more
            than one standard error of their paired difference; None: no limit.
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
        give_up_after: int | None = None,
    ) -> None:
        if any(limit is not None and limit <= 0 for limit in (gpu_hours, patience, give_up_after)):
            raise ValueError(
                "expected gpu_hours, patience and give_up_after above 0, found "
                f"{gpu_hours}, {patience} and {give_up_after}"
            )
        if gpu_hours is not None and gpus_per_trial <= 0:
            raise ValueError(f"expected gpus_per_trial above 0 with gpu_hours, found {gpus_per_trial}")
        self.objective = objective
        self.gpu_hours = gpu_hours
        self.gpus_per_trial = gpus_per_trial
        self.patience = patience
        self.give_up_after = give_up_after
        self._seconds = 0.0
        self._n_heard: dict[str, int] = {}
        self._ended: set[str] = set()
        self._has_worked = False
        self._last_failure = ""
        self._record: Trial | None = None
        self._n_since_record = 0

    def tell(self, trial: Trial) -> None:
        """Hear a trial at every change of it."""
        fresh = trial.observations[self._n_heard.get(trial.trial_id, 0) :]
        if fresh:
            self._n_heard[trial.trial_id] = len(trial.observations)
            self._seconds += sum(observation.seconds for observation in fresh)
        is_new_end = trial.state.is_finished and trial.trial_id not in self._ended
        if is_new_end and trial.state is not TrialState.INFEASIBLE:
            self._ended.add(trial.trial_id)
            self._end(trial)

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
        if self.give_up_after is not None and not self._has_worked and len(self._ended) >= self.give_up_after:
            return f"budget.give_up_after: all of the first {len(self._ended)} trials failed; {self._last_failure}"
        return None

    def _end(self, trial: Trial) -> None:
        if trial.state.has_value:
            self._has_worked = True
        else:
            self._last_failure = f"the last, {trial.trial_id}, {trial.state}: {trial.reason}"
        self._n_since_record += 1
        if trial.state is TrialState.COMPLETE and self._is_progress(trial):
            self._record, self._n_since_record = trial, 0

    def _is_progress(self, trial: Trial) -> bool:
        if self._record is None:
            return True
        own, best = self.objective.loss(trial), self.objective.loss(self._record)
        paired = paired_estimate(trial, self._record, self.objective.metric)
        if own is None or best is None or paired is None:
            return False
        return best - own > (paired.error or 0.0)
