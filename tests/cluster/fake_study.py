"""The least study that placing can work with: a list of configs, a file of events, a fixed rule; and its settings."""

import json
import math
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from search.trial import Decision, Observation, Trial, TrialState, ladder
from trainables.protocol import Assignment

LADDER = ladder(3)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What placing reads of the section `resources`."""

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    workers_per_trial: int = 1
    hang_minutes: float | None = None
    max_failures: int = 2
    ray_address: str = "local"
    threads: int = 1


class FakeStudy:
    """Proposes the configs in order; events in `path`, if given, survive the process.

    A trial is stopped at rung 1 where its loss is above `stop_above`.
    """

    def __init__(self, configs, *, path: Path | None = None, stop_above: float = math.inf):
        self.configs = list(configs)
        self.stop_above = stop_above
        self.trials: dict[str, Trial] = {}
        self.events: list[dict] = []
        self.path = path
        self._waiting: list[str] = []
        if path is not None and path.exists():
            self._replay(path)

    @property
    def is_done(self) -> bool:
        return len(self.trials) == len(self.configs) and all(t.state.is_finished for t in self.trials.values())

    def together(self):
        return nullcontext()

    def next(self) -> Trial | None:
        if self._waiting:
            return self.trials[self._waiting.pop(0)]
        if len(self.trials) == len(self.configs):
            return None
        return self._apply(kind="propose", number=len(self.trials))

    def started(self, trial_id: str) -> int:
        return self._apply(kind="start", trial_id=trial_id).attempts

    def observe(self, trial_id: str, observation: Observation, attempt: int) -> Decision:
        trial = self.trials[trial_id]
        assert attempt == trial.attempts
        if observation.rung < len(trial.observations):
            return Decision.CONTINUE
        loss = observation.metrics["val_loss"]
        self._apply(kind="observe", trial_id=trial_id, rung=observation.rung, loss=loss)
        if not math.isfinite(loss):
            return self._end(trial_id, TrialState.DIVERGED, "val_loss is not finite")
        if observation.rung == len(LADDER) - 1:
            return self._end(trial_id, TrialState.COMPLETE, "")
        if observation.rung == 1 and loss > self.stop_above:
            return self._end(trial_id, TrialState.STOPPED, "above the rule's bound")
        return Decision.CONTINUE

    def finish(self, trial_id: str, state: TrialState, reason: str) -> None:
        self._end(trial_id, state, reason)

    def states(self) -> dict[str, str]:
        return {trial_id: str(trial.state) for trial_id, trial in self.trials.items()}

    def counts(self) -> Counter:
        return Counter(self.states().values())

    def _end(self, trial_id: str, state: TrialState, reason: str) -> Decision:
        assert not self.trials[trial_id].state.is_finished, "a trial must end once"
        self._apply(kind="end", trial_id=trial_id, state=str(state), reason=reason)
        return Decision.STOP

    def _apply(self, **event) -> Trial:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(event) + "\n")
        return self._fold(event)

    def _fold(self, event: dict) -> Trial:
        self.events.append(event)
        if event["kind"] == "propose":
            number = event["number"]
            trial = Trial(
                number=number,
                trial_id=f"t{number:04d}",
                config=self.configs[number],
                origin="random",
                generation=0,
                parents=(),
                seed=number,
            )
        else:
            trial = self.trials[event["trial_id"]]
        if event["kind"] == "start":
            trial = replace(trial, attempts=trial.attempts + 1)
        if event["kind"] == "observe":
            rung = LADDER[event["rung"]]
            metrics = {"val_loss": event["loss"]}
            trial = trial.observed(
                Observation(
                    rung=rung.index, fold=rung.fold, share=rung.share, metrics=metrics, n_scored=10, seconds=0.0
                )
            )
        if event["kind"] == "end":
            trial = replace(trial, state=TrialState(event["state"]), reason=event["reason"])
        self.trials[trial.trial_id] = trial
        return trial

    def _replay(self, path: Path) -> None:
        for line in path.read_text().splitlines():
            self._fold(json.loads(line))
        self._waiting = [trial_id for trial_id, trial in self.trials.items() if not trial.state.is_finished]


def assignments(folder: Path, runner: str = "stub_trials:run"):
    """Return what turns a trial of a `FakeStudy` into an assignment for `runner`, working in `folder`."""

    def make(trial: Trial) -> Assignment:
        return Assignment(
            trial_id=trial.trial_id,
            family="stub",
            config=dict(trial.config),
            data={},
            folds={},
            reach={"x": (0.0, 1.0)},
            ladder=tuple((rung.fold, rung.share) for rung in LADDER),
            seed=trial.seed,
            run_dir=str(folder),
            options={"runner": runner},
        )

    return make
