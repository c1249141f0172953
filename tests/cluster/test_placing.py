"""The adapters without Ray: what is handed out when, and what a death costs."""

import copy
import json
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_study import LADDER, FakeStudy, assignments
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.trainable.metadata import _TrainingRunMetadata

from cluster.errors import ClusterError
from cluster.ray_tune import Ending, Placing, StudyScheduler, StudySearcher, Ticker
from cluster.watch import Watch
from cluster.worker import decode_assignment
from search.trial import Decision, TrialState


def placing(study, tmp_path, *, max_concurrent=2, max_failures=1, watch=None):
    return Placing(study, assignments(tmp_path), max_concurrent=max_concurrent, max_failures=max_failures, watch=watch)


def report(given, rung, loss=0.1):
    assignment = decode_assignment(given["assignment"])
    fold, share = assignment.ladder[rung]
    fields = {"rung": rung, "fold": fold, "share": share, "metrics": {"val_loss": loss}, "n_scored": 1, "seconds": 0.0}
    is_last = rung == len(assignment.ladder) - 1
    return {"trial_id": assignment.trial_id, "attempt": given["attempt"], "report": fields, "is_last": is_last}


def trial_id(given):
    return decode_assignment(given["assignment"]).trial_id


def test_no_trial_is_proposed_before_there_is_room(tmp_path):
    study = FakeStudy([{"x": 0.1}] * 3)
    place = placing(study, tmp_path)
    given = {name: place.hand_out(name) for name in "abc"}
    assert [trial_id(given[name]) for name in "ab"] == ["t0000", "t0001"]
    assert given["c"] is None
    assert len(study.trials) == 2
    for rung in range(len(LADDER)):
        goes_on = place.heard("a", report(given["a"], rung))
    assert not goes_on
    assert trial_id(place.hand_out("c")) == "t0002"


def test_it_is_finished_only_when_the_study_is(tmp_path):
    study = FakeStudy([{"x": 0.1}])
    place = placing(study, tmp_path)
    given = place.hand_out("a")
    assert place.hand_out("b") is None
    place.heard("a", report(given, 0, loss=float("nan")))
    assert study.states() == {"t0000": "diverged"}
    assert place.hand_out("b") == Searcher.FINISHED


def test_unfinished_trials_of_a_resumed_study_do_not_block_it(tmp_path):
    path = tmp_path / "events.jsonl"
    first = placing(FakeStudy([{"x": 0.1}] * 4, path=path), tmp_path)
    for name in "ab":
        first.hand_out(name)
    resumed = placing(FakeStudy([{"x": 0.1}] * 4, path=path), tmp_path)
    given = [resumed.hand_out(name) for name in "ab"]
    assert [(trial_id(g), g["attempt"]) for g in given] == [("t0000", 2), ("t0001", 2)]


class PausingStudy(FakeStudy):
    """Sets every trial aside at rung 0; what comes next is in `order`."""

    def __init__(self, configs, order):
        super().__init__(configs)
        self.order = list(order)

    def observe(self, trial_id, observation, attempt):
        decision = super().observe(trial_id, observation, attempt)
        return Decision.PAUSE if observation.rung == 0 else decision

    def next(self):
        return (
            self.trials[self.order.pop(0)] if len(self.trials) == len(self.configs) and self.order else super().next()
        )


def test_a_worker_keeps_the_trial_that_comes_next_anyway(tmp_path):
    place = placing(PausingStudy([{"x": 0.1}], ["t0000"]), tmp_path)
    given = place.hand_out("a")
    assert place.heard("a", report(given, 0))
    assert place.heard("a", report(given, 1))


def test_what_comes_instead_of_a_paused_trial_is_handed_out_next(tmp_path):
    study = PausingStudy([{"x": 0.1}] * 2, ["t0000"])
    place = placing(study, tmp_path, max_concurrent=1)
    given = place.hand_out("a")
    assert not place.heard("a", report(given, 0))
    assert trial_id(place.hand_out("b")) == "t0001"
    assert place.hand_out("c") is None


def test_a_search_that_ends_takes_nothing_up(tmp_path):
    study = PausingStudy([{"x": 0.1}] * 2, [])
    place = placing(study, tmp_path, max_concurrent=1)
    given = place.hand_out("a")
    place.end(Ending.DEADLINE)
    assert not place.heard("a", report(given, 0))
    assert len(study.trials) == 1


@pytest.mark.requirement("CLUSTER-4")
def test_a_trial_whose_worker_died_comes_before_new_ones_and_is_lost_in_the_end(tmp_path):
    study = FakeStudy([{"x": 0.1}] * 3)
    place = placing(study, tmp_path, max_concurrent=1, max_failures=2)
    for attempt in (1, 2, 3):
        given = place.hand_out(f"a{attempt}")
        assert (trial_id(given), given["attempt"]) == ("t0000", attempt)
        place.worker_died(f"a{attempt}", "the node is gone")
    assert study.trials["t0000"].state is TrialState.LOST
    assert study.trials["t0000"].reason == "its worker died 3 times, 2 restarts are allowed: the node is gone"
    assert trial_id(place.hand_out("b")) == "t0001"


def test_workers_that_cannot_start_are_no_fault_of_a_trial(tmp_path):
    study = FakeStudy([{"x": 0.1}] * 3)
    place = placing(study, tmp_path, max_concurrent=1, max_failures=1)
    place.hand_out("a")
    place.worker_died("a", "ModuleNotFoundError: No module named 'cluster'", in_creation=True)
    place.hand_out("b")
    with pytest.raises(ClusterError, match="could not start, 2 times for trial t0000: ModuleNotFoundError"):
        place.worker_died("b", "ModuleNotFoundError: No module named 'cluster'", in_creation=True)
    assert study.states() == {"t0000": "running"}


@pytest.mark.requirement("SEARCH-9")
def test_a_worker_that_was_killed_for_memory_starts_once_more_with_half_the_micro_batch(tmp_path):
    study = FakeStudy([{"x": 0.1}] * 2)
    place = placing(study, tmp_path, max_concurrent=1, max_failures=3)
    assert "split" not in decode_assignment(place.hand_out("a")["assignment"]).options
    error = tmp_path / "error.txt"
    error.write_text("Failure # 1 (occurred at noon)\nTask was killed due to the node running low on memory.\n")
    StudyScheduler(place).on_trial_error(None, TuneTrial("a", str(error)))
    again = place.hand_out("b")
    assert (trial_id(again), decode_assignment(again["assignment"]).options["split"]) == ("t0000", 2)
    place.worker_died("b", "the node running low on memory", out_of_memory=True)
    assert study.trials["t0000"].state is TrialState.OUT_OF_MEMORY
    assert study.trials["t0000"].reason.startswith("its machine ran out of memory, with half the micro-batch too: the")
    assert trial_id(place.hand_out("c")) == "t0001"


def test_a_trial_that_hangs_has_failed_and_its_worker_is_killed_once(tmp_path, monkeypatch):
    clock, killed = [0.0], []
    monkeypatch.setattr("cluster.ray_tune.ray.kill", killed.append)
    study = FakeStudy([{"x": 0.1}] * 2)
    place = placing(study, tmp_path, watch=Watch(60.0, lambda: clock[0]))
    scheduler, tune_trial = StudyScheduler(place), TuneTrial("a", ray_actor="actor")
    controller = controller_of([tune_trial, TuneTrial("waiting", status="PENDING")])

    def look():
        scheduler._next_look = 0.0
        scheduler.choose_trial_to_run(controller)

    given = place.hand_out("a")
    look()
    clock[0] = 59.0
    place.heard("a", report(given, 0))
    clock[0] = 118.0
    look()
    assert killed == []
    clock[0] = 119.1
    look()
    look()
    assert killed == ["actor"]
    scheduler.on_trial_error(None, tune_trial)
    assert study.states() == {"t0000": "failed"}
    assert study.trials["t0000"].reason.startswith("hang: no sign of life for 1 minutes")
    assert trial_id(place.hand_out("b")) == "t0001"


def test_the_end_of_a_traceback_is_kept_in_a_file(tmp_path):
    place = placing(FakeStudy([{"x": 0.1}]), tmp_path)
    given = place.hand_out("a")
    traceback = "line\n" * 10_000 + "KeyError: 'x'\n"
    ended = {"state": "failed", "reason": "KeyError: 'x'", "traceback": traceback}
    place.heard("a", {"trial_id": "t0000", "attempt": given["attempt"], "ended": ended})
    kept = (tmp_path / "failures" / "t0000.txt").read_text()
    assert kept.endswith("KeyError: 'x'\n")
    assert len(kept) == 20_000


def test_workers_of_a_trial_get_their_share(tmp_path):
    def make(trial):
        return replace(assignments(tmp_path)(trial), n_workers=2)

    place = Placing(
        FakeStudy([{"x": 0.1}]), make, max_concurrent=1, max_failures=0, worker_share={"CPU": 0.5, "GPU": 0.0}
    )
    assert place.hand_out("a")["worker_share"] == {"CPU": 0.5, "GPU": 0.0}


def test_a_worker_that_dies_after_its_trial_ended_costs_nothing(tmp_path):
    study = FakeStudy([{"x": 0.1}] * 2)
    place = placing(study, tmp_path, max_concurrent=1)
    given = place.hand_out("a")
    ended = {"state": "failed", "reason": "KeyError: 'x'", "traceback": "..."}
    assert not place.heard("a", {"trial_id": "t0000", "attempt": given["attempt"], "ended": ended})
    place.worker_died("a", "cause unknown")
    place.left("a")
    assert study.states() == {"t0000": "failed"}
    assert study.trials["t0000"].reason == "KeyError: 'x'"
    assert trial_id(place.hand_out("b")) == "t0001"


@pytest.mark.parametrize("ending", [Ending.DEADLINE, Ending.INTERRUPTED])
def test_after_the_end_nothing_is_handed_out_and_running_trials_stay_unfinished(tmp_path, ending):
    study = FakeStudy([{"x": 0.1}] * 3)
    place = placing(study, tmp_path)
    place.hand_out("a")
    place.end(ending)
    assert place.hand_out("b") == Searcher.FINISHED
    assert study.states() == {"t0000": "running"}


def test_metrics_of_finished_trials_are_forgotten_and_those_of_others_are_not(tmp_path):
    scheduler = StudyScheduler(placing(FakeStudy([]), tmp_path))
    trials = [TuneTrial("a"), TuneTrial("b")]
    for end, kept in (("TERMINATED", [0, 1]), ("ERROR", [0, 0])):
        next(trial for trial in trials if trial.status == "RUNNING").status = end
        scheduler._next_look = 0.0
        scheduler.choose_trial_to_run(controller_of(trials))
        assert [len(trial.run_metadata.metric_analysis) for trial in trials[:2]] == kept
        assert [len(trial.run_metadata.metric_n_steps) for trial in trials[:2]] == kept
        trials.append(TuneTrial("late"))
    assert len(trials[-2].run_metadata.metric_analysis) == 1


def test_the_first_ending_stays(tmp_path):
    place = placing(FakeStudy([]), tmp_path)
    place.end(Ending.DEADLINE)
    place.end(Ending.INTERRUPTED)
    assert place.ending is Ending.DEADLINE


class TuneTrial:
    def __init__(self, trial_id, error_file=None, status="RUNNING", ray_actor=None):
        self.trial_id = trial_id
        self.error_file = error_file
        self.status = status
        self.temporary_state = SimpleNamespace(ray_actor=ray_actor)
        self.run_metadata = _TrainingRunMetadata()
        self.run_metadata.update_metric("val_loss", 1.0)

    def is_finished(self):
        return self.status in ("TERMINATED", "ERROR")


def controller_of(trials):
    """Return what a scheduler asks of Tune's controller."""
    live = [trial for trial in trials if not trial.is_finished()]
    return SimpleNamespace(get_trials=lambda: trials, get_live_trials=lambda: live)


def test_the_scheduler_answers_in_the_words_of_tune(tmp_path):
    place = placing(FakeStudy([{"x": 0.1}]), tmp_path)
    scheduler = StudyScheduler(place)
    given = place.hand_out("a")
    result = {"message": json.dumps(report(given, 0))}
    assert scheduler.on_trial_result(None, TuneTrial("a"), result) == TrialScheduler.CONTINUE
    result = {"message": json.dumps(report(given, 1, loss=float("inf")))}
    assert scheduler.on_trial_result(None, TuneTrial("a"), result) == TrialScheduler.STOP


def test_the_cause_of_a_death_is_one_line_of_ray(tmp_path):
    error = tmp_path / "error.txt"
    error.write_text(
        "Failure # 1 (occurred at noon)\nThe actor died.\n\tpid: 7\nThe node of the actor is dead.\n\tnode: 1\n"
    )
    study = FakeStudy([{"x": 0.1}])
    place = placing(study, tmp_path, max_failures=0)
    place.hand_out("a")
    StudyScheduler(place).on_trial_error(None, TuneTrial("a", str(error)))
    assert study.trials["t0000"].reason.endswith("allowed: The node of the actor is dead.")


def test_an_error_of_the_study_is_remembered_as_it_was(tmp_path):
    class BrokenStudy(FakeStudy):
        def next(self):
            raise OSError("disk full")

    place = placing(BrokenStudy([]), tmp_path)
    with pytest.raises(OSError, match="disk full"):
        StudySearcher(place).suggest("a")
    assert isinstance(place.error, OSError)


def test_the_ticker_ends_the_run_at_the_deadline(tmp_path):
    ticks = []
    place = placing(FakeStudy([{"x": 0.1}]), tmp_path)
    ticker = Ticker(place, lambda: ticks.append(1), lambda: len(ticks) == 2)
    assert [ticker.stop_all(), ticker.stop_all()] == [False, True]
    assert place.ending is Ending.DEADLINE


def test_adapters_are_copied_as_themselves_and_pickled_as_nothing(tmp_path):
    place = placing(FakeStudy([]), tmp_path)
    assert copy.deepcopy(place) is place
    assert not hasattr(pickle.loads(pickle.dumps(place)), "hand_out")
