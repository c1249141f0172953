"""Values that a search may propose only after others have earned them: features first, size later (SEARCH-13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.parameters import identity
from search.trial import Config, Trial, TrialState


class Unlocking:
    """A gate over one parameter, a pure function of the trials heard: live search and replay see it open alike.

    While it is closed, a proposal with a locked value gets `instead`, and it is the changed config that is journaled,
    trained and told to the optimizer: nothing is taken for infeasible that will be allowed later. It opens with the
    first complete trial whose accuracy is above both bars, and stays open.

    Args:
        parameter: Name of the parameter.
        locked: Its values that wait.
        instead: The value proposed in place of them.
        metric: Accuracy, a mean over folds.
        above: It must be above this.
        baseline: Measure that it must be above as well, by `margin`.
        margin: See `baseline`.
        standard_errors: Standard errors that the accuracy must clear both bars by; 0 as documented.
    """

    def __init__(
        self,
        *,
        parameter: str,
        locked: tuple[Any, ...] | list[Any],
        instead: Any,
        metric: str,
        above: float,
        baseline: str,
        margin: float,
        standard_errors: float = 0.0,
    ) -> None:
        self.parameter, self.instead = parameter, instead
        self.opened_by: str | None = None
        self._locked = {identity(value) for value in locked}
        self._metric, self._above, self._baseline, self._margin = metric, above, baseline, margin
        self._standard_errors = standard_errors

    def tell(self, trial: Trial) -> None:
        """Hear a trial at every change of it."""
        if self.opened_by is None and trial.state is TrialState.COMPLETE and self._has_earned_it(trial):
            self.opened_by = trial.trial_id

    def admitted(self, config: Config) -> Mapping[str, Any]:
        """Return the config as it may be tried now."""
        if self.opened_by is not None or identity(config.get(self.parameter)) not in self._locked:
            return config
        return {**config, self.parameter: self.instead}

    def _has_earned_it(self, trial: Trial) -> bool:
        reached, baseline = trial.estimate(self._metric), trial.estimate(self._baseline)
        if reached is None or baseline is None:
            return False
        if self._standard_errors > 0 and reached.error is None:
            return False
        cleared = reached.mean - self._standard_errors * (reached.error or 0.0)
        return cleared > self._above and cleared > baseline.mean + self._margin
