from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.charter import Charter
from search.errors import JournalError, ProtocolError, SpaceError
from search.journal import Event, Journal
from search.mind import Mind
from search.objective import Objective
from search.space import Choice, Float, Space
from search.study import Study
from search.trial import Config, Decision, Trial, TrialState, ladder
from tests.search.toy_search import RUNGS, SPACE, loss_of, observed, run_trial

ARGUMENTS: dict[str, Any] = {
    "space": SPACE,
    "ladder": RUNGS,
    "n_trials": 12,
    "optimizer": {"name": "tpe", "n_startup": 3},
    "stopping": {"name": "asha", "eta": 2},
    "seed": 11,
    "population": 4,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@contextmanager
def study_at(path: Path, **changes: Any) -> Iterator[Study]:
    with Study.create(path, **{**ARGUMENTS, **changes}) as study:
        yield study


def losses_of(trial: Trial, difficulties: tuple[float, ...] = (0.0, 0.5, -0.2, 0.1)) -> list[float]:
    return [loss_of(trial.config) + difficulty for difficulty in difficulties]


def run_all(study: Study) -> None:
    while (trial := study.next()) is not None:
        run_trial(study, trial, losses_of(trial))


def kinds(path: Path) -> list[str]:
    with Journal.read(path) as journal:
        return [event.kind for event in journal.events()]


def test_a_whole_search(path: Path) -> None:
    with study_at(path) as study:
        assert not study.is_done
        run_all(study)
        assert study.is_done
        assert study.next() is None
        counts = study.counts()
        assert counts[TrialState.COMPLETE] + counts[TrialState.STOPPED] == sum(counts.values()) == 12
        assert counts[TrialState.STOPPED] > 0
        best = study.best()
    complete = [t for t in study.trials.values() if t.state is TrialState.COMPLETE]
    assert best == min(complete, key=lambda t: sum(o.metrics["val_loss"] for o in t.observations))
    assert all(t.n_folds == 4 for t in complete)
    assert Study.read(path).trials == study.trials


def test_enqueued_configs_come_first_and_generations_count_populations(path: Path) -> None:
    wanted = [{"lr": 1e-3}, {"lr": 1e-4, "kind": "attention", "heads": 2}]
    with study_at(path, enqueue=wanted, n_trials=11) as study:
        run_all(study)
    trials = list(study.trials.values())
    assert [t.origin for t in trials[:3]] == ["enqueued", "enqueued", "tpe"]
    assert [t.generation for t in trials] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    assert trials[1].config == SPACE.complete(wanted[1])
    assert [t.trial_id for t in trials[:2]] == ["t0000", "t0001"]
    assert len({t.seed for t in trials}) == 11


@pytest.mark.requirement("SEARCH-8")
def test_bad_trials_stop_after_the_first_rung_and_the_best_completes(path: Path) -> None:
    space = Space({"quality": Choice(choices=tuple(range(9)))})
    with study_at(path, space=space, optimizer="grid", n_trials=9, stopping={"name": "asha", "eta": 3}) as study:
        running = [study.next() for _ in range(9)]
        for trial in sorted(running, key=lambda t: t.config["quality"]):
            run_trial(study, trial, [trial.config["quality"] + fold for fold in range(4)])
    by_quality = {t.config["quality"]: t for t in study.trials.values()}
    assert by_quality[0].state is TrialState.COMPLETE
    assert study.best() == by_quality[0]
    assert [len(by_quality[q].observations) for q in range(3, 9)] == [1, 1, 1, 1, 1, 1]
    assert by_quality[8].reason == "asha at rung 0"


# Ways to end (SEARCH-9).


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.requirement("SEARCH-9")
def test_a_loss_that_is_not_finite_is_divergence_and_never_a_value(path: Path, value: float) -> None:
    with study_at(path) as study:
        first, second = study.next(), study.next()
        assert run_trial(study, first, [1.0, value]) is TrialState.DIVERGED
        diverged = study.trials[first.trial_id]
        assert diverged.reason == f"val_loss is {value} at rung 1 (fold 1)"
        assert [o.metrics["val_loss"] for o in diverged.observations] == [1.0]
        assert run_trial(study, second, [2.0, 2.0, 2.0, 2.0]) is TrialState.STOPPED
        run_all(study)
        assert math.isfinite(study.best().estimate("val_loss").mean)
    with Journal.read(path) as journal:
        told = [e.body["observation"]["metrics"]["val_loss"] for e in journal.events() if e.kind == "observed"]
    assert str(value) in told
    assert Study.read(path).trials == study.trials


@pytest.mark.parametrize(
    "state", [TrialState.FAILED, TrialState.OUT_OF_MEMORY, TrialState.LOST, TrialState.DIVERGED, TrialState.STOPPED]
)
@pytest.mark.requirement("SEARCH-9")
def test_other_endings_keep_their_state_and_reason(path: Path, state: TrialState) -> None:
    with study_at(path) as study:
        trial = study.next()
        study.started(trial.trial_id)
        study.finish(trial.trial_id, state, "because")
        study.finish(trial.trial_id, TrialState.FAILED, "told again")
        assert study.trials[trial.trial_id].state is state
        assert study.trials[trial.trial_id].reason == "because"
        assert study.best() is None
    assert kinds(path) == ["proposed", "started", "finished"]


def test_a_complete_ladder_without_a_value_is_no_success(path: Path) -> None:
    with study_at(path, objectives=[Objective("ic", "max")], stopping="none") as study:
        trial = study.next()
        assert run_trial(study, trial, [1.0, 1.0, 1.0, 1.0]) is TrialState.FAILED
        assert study.trials[trial.trial_id].reason == "the trial reported no value of ic"


@pytest.mark.requirement("SEARCH-9")
def test_infeasible_proposals_are_recorded_and_do_not_use_up_the_budget(path: Path) -> None:
    def too_wide(config: Mapping[str, Any]) -> str | None:
        return "width above 100" if config["width"] > 100 else None

    with study_at(path, infeasible=too_wide, n_trials=8) as study:
        run_all(study)
        counts = study.counts()
    assert sum(counts.values()) - counts[TrialState.INFEASIBLE] == 8
    assert counts[TrialState.INFEASIBLE] > 0
    for trial in study.trials.values():
        assert (trial.config["width"] > 100) == (trial.state is TrialState.INFEASIBLE)


def test_a_study_whose_every_proposal_is_infeasible_stops_and_says_why(path: Path) -> None:
    with study_at(path, infeasible=lambda _: "too large", max_infeasible=5, optimizer="random") as study:
        assert study.next() is None
        assert study.stop_reason == "5 proposals were infeasible; the last: too large"
        assert study.is_done
    with Study.resume(path, **ARGUMENTS | {"optimizer": "random", "max_infeasible": 5}) as study:
        assert study.next() is None


# What a report may be: twice, late, of an older attempt, of nothing known.


def test_a_report_heard_twice_gets_the_decision_it_got(path: Path) -> None:
    with study_at(path) as study:
        good, bad = study.next(), study.next()
        run_trial(study, good, [1.0])
        attempt = study.started(bad.trial_id)
        assert study.observe(bad.trial_id, observed(0, 5.0), attempt) is Decision.STOP
        assert study.observe(good.trial_id, observed(0, 77.0), 1) is Decision.CONTINUE
        assert study.observe(bad.trial_id, observed(0, -5.0), attempt) is Decision.STOP
        assert study.observe(bad.trial_id, observed(1, -5.0), attempt) is Decision.STOP
        assert study.trials[bad.trial_id].observations == (observed(0, 5.0),)
    assert kinds(path).count("observed") == 2


def test_an_older_attempt_is_fenced(path: Path) -> None:
    with study_at(path) as study:
        trial = study.next()
        first, second = study.started(trial.trial_id), study.started(trial.trial_id)
        assert (first, second) == (1, 2)
        assert study.observe(trial.trial_id, observed(0, 1.0), first) is Decision.STOP
        assert study.trials[trial.trial_id].observations == ()
        assert study.observe(trial.trial_id, observed(0, 1.0), second) is Decision.CONTINUE
        assert study.trials[trial.trial_id].attempts == 2


def test_reports_that_cannot_be_are_refused(path: Path) -> None:
    with study_at(path) as study:
        trial = study.next()
        with pytest.raises(ProtocolError, match="expected an attempt of 1 to 0"):
            study.observe(trial.trial_id, observed(0, 1.0), 1)
        attempt = study.started(trial.trial_id)
        with pytest.raises(ProtocolError, match="t9999"):
            study.observe("t9999", observed(0, 1.0), 1)
        with pytest.raises(
            ProtocolError, match=r"expected a report of rung 0 \(fold 0, share 1\), found one of rung 2"
        ):
            study.observe(trial.trial_id, observed(2, 1.0), attempt)
        with pytest.raises(ProtocolError, match=r"share 0\.5"):
            study.observe(trial.trial_id, replace(observed(0, 1.0), share=0.5), attempt)
        with pytest.raises(ProtocolError, match="complete"):
            study.finish(trial.trial_id, TrialState.COMPLETE, "")
        study.finish(trial.trial_id, TrialState.FAILED, "x")
        with pytest.raises(ProtocolError, match="found it failed"):
            study.started(trial.trial_id)
    assert kinds(path) == ["proposed", "started", "finished"]


def test_listeners_hear_every_event_after_its_commit(path: Path) -> None:
    heard: list[tuple[str, str | None]] = []

    def listener(event: Event, trial: Trial | None) -> None:
        assert len(kinds(path)) == event.seq
        heard.append((event.kind, None if trial is None else str(trial.state)))

    with study_at(path, n_trials=1) as study:
        study.subscribe(listener)
        run_all(study)
        study.stop("enough")
        study.stop("again")
        assert study.stop_reason == "enough"
    assert heard[0] == ("proposed", "running")
    assert heard[-2:] == [("observed", "complete"), ("stopped", None)]


def test_calls_made_together_decide_as_calls_made_alone_and_are_heard_when_they_are_on_disk(path: Path) -> None:
    heard: list[int] = []

    def listener(event: Event, trial: Trial | None) -> None:
        assert len(kinds(path)) >= event.seq
        heard.append(event.seq)

    with study_at(path) as study:
        study.subscribe(listener)
        with study.together():
            trials = [study.next() for _ in range(3)]
            states = [run_trial(study, trial, losses_of(trial)) for trial in trials]
            assert heard == []
        assert heard == list(range(1, len(kinds(path)) + 1))
        with suppress(ProtocolError), study.together():
            study.next()
            study.started("t9999")
        assert heard == list(range(1, len(kinds(path)) + 1))
    with study_at(path.with_name("alone.sqlite")) as study:
        assert [study.next().trial_id for _ in range(3)] == [trial.trial_id for trial in trials]
        assert [run_trial(study, study.trials[t.trial_id], losses_of(t)) for t in trials] == states


def test_a_study_in_memory_searches_like_one_on_disk(path: Path) -> None:
    with study_at(path) as study:
        run_all(study)
        on_disk = dict(study.trials)
    with Study.in_memory(**ARGUMENTS) as study:
        run_all(study)
        assert dict(study.trials) == on_disk


# Resume (SEARCH-15).


def test_the_space_and_whatever_gives_trials_their_meaning_may_not_change(path: Path) -> None:
    header = {"data_snapshot": "aa", "commit": "1", "versions": {"torch": "2"}}
    with study_at(path, header=header):
        pass
    other = {"data_snapshot": "bb", "commit": "2"}
    narrower = Space({**SPACE.parameters, "lr": Float(low=1e-5, high=1e-2, log=True), "kind": "ssm"})
    turned = Space(dict(reversed(SPACE.parameters.items())))
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (SpaceError, r"another in lr, kind", {"space": narrower}),
        (SpaceError, r"another in its order", {"space": turned}),
        (JournalError, "own data_snapshot, found", {"header": other}),
        (JournalError, "own ladder, found", {"ladder": ladder(5)}),
        (JournalError, "own objectives, seed, found", {"objectives": [Objective("ic", "max")], "seed": 12}),
        (JournalError, "own optimizer, stopping, found", {"optimizer": "tpe", "stopping": "asha"}),
    ]
    for error, message, changes in cases:
        with pytest.raises(error, match=message):
            Study.resume(path, **{**ARGUMENTS, "header": header, **changes})
    with Study.resume(path, **{**ARGUMENTS, "header": {**header, "commit": "2"}, "n_trials": 20}) as study:
        assert study.n_trials == 20


def test_a_refused_charter_leaves_no_file(path: Path) -> None:
    for changes, message in (
        ({"enqueue": [{"lr": 5.0}]}, "enqueue.0: lr"),
        ({"optimizer": "tpee"}, "did you mean tpe"),
        ({"stopping": {"eta": 3}}, "expected a name"),
    ):
        with pytest.raises(SpaceError, match=message):
            Study.create(path, **{**ARGUMENTS, **changes})
    with pytest.raises(ValueError, match="n_trials"):
        Study.create(path, **{**ARGUMENTS, "n_trials": 0})
    assert list(path.parent.iterdir()) == []


def test_unfinished_trials_come_first_after_a_resume_and_go_on_where_they_were(path: Path) -> None:
    with study_at(path) as study:
        finished, half, fresh = study.next(), study.next(), study.next()
        run_trial(study, finished, losses_of(finished))
        run_trial(study, half, [-9.0, -9.0])
    with Study.resume(path, **ARGUMENTS) as study:
        again = [study.next(), study.next()]
        assert [t.trial_id for t in again] == [half.trial_id, fresh.trial_id]
        assert again[0].n_folds == 2
        assert study.next().trial_id == "t0003"
        attempt = study.started(half.trial_id)
        assert attempt == 2
        assert study.observe(half.trial_id, observed(1, -9.0), attempt) is Decision.CONTINUE  # the worker repeats it
        assert study.observe(half.trial_id, observed(2, -9.0), attempt) is Decision.CONTINUE


class Driver:
    """Drives a study by drawn actions: proposes, reports in any order, breaks trials, and may be killed between.

    After a kill it takes the unfinished trials up again. So two drivers with the same actions hold the same trials.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any]) -> None:
        self.path, self.arguments = path, arguments
        self.study = Study.create(path, **arguments)
        self.attempts: dict[str, int] = {}

    def act(self, action: str, which: int) -> None:
        running = sorted(self.attempts)
        if action == "next" or not running:
            if (trial := self.study.next()) is not None:
                self.attempts[trial.trial_id] = self.study.started(trial.trial_id)
            return
        trial = self.study.trials[running[which % len(running)]]
        if action == "report":
            rung = len(trial.observations)
            loss = math.nan if which % 13 == 12 else losses_of(trial)[rung]
            self.study.observe(trial.trial_id, observed(rung, loss), self.attempts[trial.trial_id])
        elif action == "repeat" and trial.observations:
            self.study.observe(trial.trial_id, trial.observations[-1], self.attempts[trial.trial_id])
        elif action == "break":
            self.study.finish(trial.trial_id, list(TrialState)[4 + which % 5], f"drawn {which}")
        if self.study.trials[trial.trial_id].state is not TrialState.RUNNING:
            del self.attempts[trial.trial_id]

    def kill(self) -> None:
        self.study.close()
        self.study = Study.resume(self.path, **self.arguments)
        for trial_id in sorted(self.attempts):
            trial = self.study.next()
            assert trial is not None
            assert trial.trial_id == trial_id
            self.attempts[trial_id] = self.study.started(trial_id)

    def trials(self) -> list[Trial]:
        return [replace(trial, attempts=0) for trial in self.study.trials.values()]


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["next", "next", "report", "report", "report", "repeat", "break"]), st.integers(0, 99)),
    min_size=5,
    max_size=40,
)


@given(
    actions=ACTIONS,
    kills=st.sets(st.integers(0, 39), min_size=1, max_size=4),
    optimizer=st.sampled_from("rc"),
    rule=st.sampled_from(["asha", "hyperband", "fold_racing"]),
)
@settings(max_examples=25, deadline=None)
@pytest.mark.requirement("SEARCH-15")
@pytest.mark.requirement("REPRO-1")
def test_a_killed_search_holds_the_trials_of_one_left_alone(
    actions: list[tuple[str, int]], kills: set[int], optimizer: str, rule: str
) -> None:
    arguments = {**ARGUMENTS, "optimizer": {"r": ARGUMENTS["optimizer"], "c": "cma_es"}[optimizer], "stopping": rule}
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = (Driver(Path(folder) / name, arguments) for name in ("alone", "killed"))
        for position, (action, which) in enumerate(actions):
            if position in kills:
                killed.kill()
            alone.act(action, which)
            killed.act(action, which)
        assert killed.trials() == alone.trials()
        assert killed.study._mind.propose() == alone.study._mind.propose()
        alone.study.close()
        killed.study.close()


@given(actions=ACTIONS)
@settings(max_examples=12, deadline=None)
@pytest.mark.requirement("SEARCH-15")
def test_every_prefix_of_a_journal_gives_the_study_of_that_moment_and_its_next_proposal(
    actions: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        driver = Driver(Path(folder) / "journal.sqlite", ARGUMENTS)
        moments: list[tuple[Event, dict[str, Trial], Trial]] = []
        mind = driver.study._mind
        driver.study.subscribe(lambda event, _: moments.append((event, dict(driver.study.trials), mind.propose())))
        for action, which in actions:
            driver.act(action, which)
        driver.study.close()
    again = Mind(Charter(**ARGUMENTS), {})
    for event, trials, proposal in moments:
        again.apply(Event(event.seq, event.time_utc, event.kind, json.loads(json.dumps(event.body))))
        fresh = Mind(Charter(**ARGUMENTS), {})
        for earlier, _, _ in moments[: event.seq]:
            fresh.apply(earlier)
        assert dict(again.history.trials) == dict(fresh.history.trials) == trials
        assert again.propose() == fresh.propose() == proposal


@pytest.mark.parametrize("optimizer", ["evolutionary_bayesian", "tpe", "nsga2"])
@pytest.mark.requirement("REPRO-1")
def test_a_synchronous_search_proposes_the_same_whatever_the_workers_and_their_order(optimizer: str) -> None:
    def proposals(n_workers: int, seed_of_order: int, *, synchronous: bool = True) -> list[Config]:
        rng = np.random.default_rng(seed_of_order)
        study = Study.in_memory(
            space=SPACE,
            ladder=RUNGS[:1],
            n_trials=18,
            optimizer=optimizer,
            stopping="none",
            population=6,
            enqueue=({"lr": 1e-3}, {"lr": 1e-2}),
            synchronous=synchronous,
            infeasible=lambda config: "too wide" if config["width"] > 700 else None,
        )
        running: list[Trial] = []
        while not study.is_done:
            while len(running) < n_workers and (trial := study.next()) is not None:
                running.append(trial)
            run_trial(study, trial := running.pop(rng.integers(len(running))), [loss_of(trial.config)])
        return [trial.config for trial in study.trials.values()]

    first = proposals(1, 0)
    assert proposals(3, 1) == proposals(6, 2) == proposals(40, 3) == first
    assert proposals(3, 1, synchronous=False) != first
