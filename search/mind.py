"""What decides in a study; it writes nothing, so that live search and replay share it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from search import optimizers, stopping
from search.charter import Charter, named
from search.errors import ProtocolError
from search.history import ENQUEUED, STARTED, History
from search.journal import Event, to_json
from search.objective import Objective
from search.optimizers import Proposal
from search.seeding import seed_for
from search.stopping.whole_search import WholeSearch
from search.trial import Decision, Observation, Trial, TrialState
from search.unlocking import Unlocking


class Mind:
    """Optimizer and stopping rule over a history.

    Args:
        charter: Of the study.
        header: Header of its journal.
    """

    def __init__(self, charter: Charter, header: Mapping[str, Any]) -> None:
        self.charter = charter
        self.history = History(charter.objectives, header)
        name, settings = named(charter.optimizer)
        self._optimizer = optimizers.make(
            name,
            charter.space,
            objectives=charter.objectives,
            population=charter.population,
            seed=charter.seed,
            **settings,
        )
        name, settings = named(charter.stopping)
        self._rule = stopping.make(
            name, space=charter.space, objectives=charter.objectives, ladder=charter.ladder, **settings
        )
        self._held_back: dict[int, Trial] = {}
        self._whole = WholeSearch(charter.objectives[0], **charter.limits)
        self._unlocking = Unlocking(**charter.unlock) if charter.unlock else None

    def apply(self, event: Event) -> Trial | None:
        """Take an event in; return the trial that it changed. Optimizer and rules hear of all but new attempts."""
        trial = self.history.apply(event)
        if trial is not None and event.kind != STARTED:
            self._tell_optimizer(trial)
            self._rule.tell(trial)
            self._whole.tell(trial)
            if self._unlocking is not None:
                self._unlocking.tell(trial)
        return trial

    @property
    def is_between_generations(self) -> bool:
        """Whether a synchronous search waits for the end of a generation before it proposes more."""
        return self.charter.synchronous and self._is_generation_asked and self._n_running > 0

    @property
    def _is_generation_asked(self) -> bool:
        history, charter = self.history, self.charter
        return len(history.trials) >= len(charter.enqueue) and history.n_sampled % charter.population == 0

    @property
    def _n_running(self) -> int:
        return self.history.counts()[TrialState.RUNNING]

    def _tell_optimizer(self, trial: Trial) -> None:
        """Tell of a change; in a synchronous search of ends only, by number, when a whole generation has ended."""
        is_new = not (trial.state.is_finished or trial.observations)
        if is_new or not self.charter.synchronous:
            self._optimizer.tell(trial)
            return
        self._held_back[trial.number] = trial
        if self._is_generation_asked and not self._n_running:
            for number in sorted(self._held_back):
                self._optimizer.tell(self._held_back[number])
            self._held_back.clear()

    def ending(self) -> str | None:
        """Return why the limits of the charter let nothing more be proposed: a pure function of the events so far.

        It may be taken back: a trial that still runs may turn out to be progress.
        """
        return self._whole.reason()

    def propose(self) -> Trial:
        """Return the trial that comes next: a pure function of the events so far.

        Raises:
            ProtocolError: The optimizer proposed something outside the space.
        """
        number, charter = len(self.history.trials), self.charter
        if number < len(charter.enqueue):
            proposal = Proposal(config=charter.enqueue[number], origin=ENQUEUED, generation=0)
        else:
            proposal = self._optimizer.ask(number, seed_for(charter.seed, "ask", number))
        admitted = proposal.config if self._unlocking is None else self._unlocking.admitted(proposal.config)
        config = json.loads(to_json(dict(admitted)))
        wrong = charter.space.problems(config)
        if wrong:
            raise ProtocolError(f"{type(self._optimizer).__name__}: proposed a config outside the space: {wrong[0]}")
        generation = proposal.generation
        if generation is None:
            generation = 1 + self.history.n_sampled // charter.population
        return Trial(
            number=number,
            trial_id=f"t{number:04d}",
            config=config,
            origin=proposal.origin,
            generation=generation,
            parents=proposal.parents,
            seed=seed_for(charter.seed, "trial", number),
            note=json.loads(to_json(dict(proposal.note))),
        )

    def judge(self, trial: Trial, observation: Observation) -> tuple[Decision, TrialState, str]:
        """Return decision, new state and reason for a new observation: a pure function of the events so far."""
        charter = self.charter
        watched = dict.fromkeys((*(o.metric for o in charter.objectives), "val_loss"))
        broken = [m for m in watched if Objective(m).is_broken_by(observation)]
        if broken:
            found = ", ".join(f"{metric} is {observation.metrics[metric]}" for metric in broken)
            return Decision.STOP, TrialState.DIVERGED, f"{found} at rung {observation.rung} (fold {observation.fold})"
        heard = trial.observed(observation)
        if observation.rung == len(charter.ladder) - 1:
            missing = [o.metric for o in charter.objectives if o.loss(heard) is None]
            if missing:
                return Decision.STOP, TrialState.FAILED, f"the trial reported no value of {', '.join(missing)}"
            return Decision.STOP, TrialState.COMPLETE, ""
        if self._rule.decide(heard) is Decision.STOP:
            return Decision.STOP, TrialState.STOPPED, f"{named(charter.stopping)[0]} at rung {observation.rung}"
        return Decision.CONTINUE, TrialState.RUNNING, ""
