"""What decides in a study; it writes nothing, so that live search and replay share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search import optimizers, stopping
from search.charter import Charter, named
from search.errors import ProtocolError
from search.history import ENQUEUED, PROPOSED, STARTED, History
from search.journal import Event, through_json, to_json
from search.lineage import inherited_from
from search.objective import Objective
from search.optimizers import Proposal
from search.seeding import seed_for
from search.stopping.whole_search import WholeSearch
from search.trial import Config, Decision, Observation, Trial, TrialState
from search.unlocking import Unlocking

AFTER: Mapping[Decision, tuple[TrialState, str | None]] = {
    Decision.CONTINUE: (TrialState.RUNNING, None),
    Decision.PAUSE: (TrialState.PAUSED, "set aside by "),
    Decision.STOP: (TrialState.STOPPED, ""),
}
"""Decision of the rule -> state of the trial, and how its reason begins; None: it needs no reason."""


class Mind:
    """Optimizer and stopping rule over a history.

    Args:
        charter: Of the study.
        header: Header of its journal.
    """

    def __init__(self, charter: Charter, header: Mapping[str, Any]) -> None:
        self.charter = charter
        self.history = History(charter.objectives, header, charter.constraints)
        self._n_proposed: Counter[str] = Counter()
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
        self._pausing = self._rule if isinstance(self._rule, stopping.PausingRule) else None
        self._watched = [Objective(m) for m in dict.fromkeys((*(o.metric for o in charter.objectives), "val_loss"))]
        self._held_back: dict[int, Trial] = {}
        self._whole = WholeSearch(charter.objectives[0], **charter.limits)
        self._unlocking = Unlocking(**charter.unlock) if charter.unlock else None
        for trial in charter.prior:
            self._optimizer.tell(self._weighed(trial))

    def apply(self, event: Event) -> Trial | None:
        """Take an event in; return the trial that it changed. Optimizer and rules hear of all but new attempts."""
        trial = self.history.apply(event)
        if trial is not None and event.kind == PROPOSED:
            self._n_proposed[self._telling(trial.config)] += 1
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

    def to_resume(self, *, is_last: bool) -> str | None:
        """Return the paused trial that goes on before anything else: a pure function of the events so far.

        Args:
            is_last: Whether nothing new can be proposed now.
        """
        return None if self._pausing is None else self._pausing.resume(is_last=is_last)

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
        config = through_json(dict(admitted))[1]
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
            seed=self._training_seed(config),
            note=through_json(dict(proposal.note))[1],
            inherit=self._inherit(proposal),
        )

    def _inherit(self, proposal: Proposal) -> Mapping[str, Any]:
        if not proposal.inherit:
            return {}
        return inherited_from(self.history.trials[proposal.inherit], self.charter.ladder)

    def _training_seed(self, config: Config) -> int:
        """Return a seed that follows from the config and from how often it was proposed before, not from its number.

        So a config that another search with this seed has trained finds its results again, and one that is proposed
        twice is trained with two seeds.
        """
        telling = self._telling(config)
        return seed_for(self.charter.seed, "trial", telling, self._n_proposed[telling])

    def _telling(self, config: Config) -> str:
        defaults = self.charter.defaults
        return to_json({n: v for n, v in sorted(config.items()) if n not in defaults or defaults[n] != v})

    def judge(self, trial: Trial, observation: Observation) -> tuple[Decision, TrialState, str]:
        """Return decision, new state and reason for a new observation: a pure function of the events so far."""
        charter = self.charter
        broken = [o.metric for o in self._watched if o.is_broken_by(observation)]
        if broken:
            found = ", ".join(f"{metric} is {observation.metrics[metric]}" for metric in broken)
            return Decision.STOP, TrialState.DIVERGED, f"{found} at rung {observation.rung} (fold {observation.fold})"
        heard = self.history.observed(trial, observation)
        is_last = observation.rung == len(charter.ladder) - 1
        if broken_bounds := self._broken_bounds(heard, is_last=is_last):
            return Decision.STOP, TrialState.INFEASIBLE, "; ".join(broken_bounds)
        if is_last:
            missing = [o.metric for o in charter.objectives if o.loss(heard) is None]
            missing += [c.metric for c in charter.constraints if c.metric not in heard.excesses]
            if missing:
                return Decision.STOP, TrialState.FAILED, f"the trial reported no value of {', '.join(missing)}"
            return Decision.STOP, TrialState.COMPLETE, ""
        decision = self._rule.decide(heard)
        state, verb = AFTER[decision]
        reason = "" if verb is None else f"{verb}{named(charter.stopping)[0]} at rung {observation.rung}"
        return decision, state, reason

    def _weighed(self, prior: Trial) -> Trial:
        """Return a trial of an earlier search as the constraints of this one see it."""
        heard = self.history.weighed(prior)
        is_complete = prior.state is TrialState.COMPLETE
        broken = prior.state.has_value and self._broken_bounds(heard, is_last=is_complete)
        return replace(heard, state=TrialState.INFEASIBLE) if broken else heard

    def _broken_bounds(self, heard: Trial, *, is_last: bool) -> list[str]:
        found = []
        for constraint in self.charter.constraints:
            estimate = heard.estimate(constraint.metric)
            if estimate is not None and constraint.is_judged(heard, is_last=is_last):
                found.append(constraint.objection(estimate.mean))
        return [text for text in found if text is not None]
