import json
import logging
import threading

import pytest

from analysis.tracking import CURSOR, Mirror, NoTracker, Rejected, Trials, target_name, write_cursor
from tests.analysis import fake_journal


class Memory:
    """A sink that keeps what it gets and fails on demand."""

    def __init__(self, failures: int = 0, refuses: tuple[str, ...] = ()) -> None:
        self.sent: list[str] = []
        self.failures, self.refuses, self.is_closed = failures, refuses, False

    def send(self, trial):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no route")
        if trial.trial_id in self.refuses:
            raise Rejected("a name is too long")
        self.sent.append(trial.trial_id)

    def close(self):
        self.is_closed = True


def mirror(run_dir, sink, **settings):
    return Mirror(run_dir, lambda: sink, target="memory", first_wait_s=0.01, longest_wait_s=0.02, **settings)


def test_records_hold_what_the_journal_says():
    trials = Trials()
    ended = {r.trial_id: r for e in fake_journal.search() if (r := trials.apply(e)) is not None}
    assert {k: r.state for k, r in ended.items()} == {
        "t0000": "complete",
        "t0001": "stopped",
        "t0002": "diverged",
        "t0003": "infeasible",
    }
    first = ended["t0000"]
    assert first.metrics["val_loss"].mean == pytest.approx((1.0 * 20 + 2.0 * 21) / 41)
    assert first.fold_losses == ((0, 1.0), (1, 2.0))
    assert first.seconds == 1.0
    assert ended["t0001"].parents == ("t0000",)
    assert "val_loss" not in ended["t0002"].metrics
    assert ended["t0003"].reason.startswith("d_model")
    assert first.ended_ms > first.started_ms


def test_each_ended_trial_is_sent_once_and_the_end_last(tmp_path):
    sink = Memory()
    tracker = mirror(tmp_path, sink)
    for event in fake_journal.search():
        tracker.submit(event)
    assert tracker.finish(5) == 0
    assert sink.sent == ["t0000", "t0001", "t0002", "t0003"]
    assert sink.is_closed


def test_a_server_that_comes_back_gets_everything_in_order_after_one_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    sink = Memory(failures=3)
    tracker = mirror(tmp_path, sink)
    tracker.replay(fake_journal.search())
    assert tracker.finish(5) == 0
    assert sink.sent == ["t0000", "t0001", "t0002", "t0003"]
    assert [r.message.split(" (")[0] for r in caplog.records] == ["tracking: memory does not take results"]


def test_submitting_never_waits_for_a_server_that_hangs(tmp_path):
    release, entered = threading.Event(), threading.Event()

    class Hanging(Memory):
        def send(self, trial):
            entered.set()
            release.wait(10)
            super().send(trial)

    sink = Hanging()
    tracker = mirror(tmp_path, sink)
    tracker.replay(fake_journal.search())
    assert entered.wait(5)
    assert tracker.flush(0.01) == 4
    release.set()
    assert tracker.finish(5) == 0


def test_a_dead_server_leaves_a_count_and_the_next_run_sends_the_rest(tmp_path):
    events = fake_journal.search()
    dead = Memory(failures=10**6)
    tracker = mirror(tmp_path, dead)
    tracker.replay(events)
    assert tracker.finish(0.05) == 5  # four trials and the end
    alive = Memory()
    again = mirror(tmp_path, alive)
    again.replay(events)
    assert again.finish(5) == 0
    assert alive.sent == ["t0000", "t0001", "t0002", "t0003"]


def test_after_a_crash_only_what_lies_behind_the_cursor_is_sent(tmp_path):
    events = fake_journal.search()
    first = Memory()
    tracker = mirror(tmp_path, first)
    tracker.replay(events[:6])  # the first trial has ended, the second was proposed
    assert tracker.flush(5) == 0
    second = Memory()
    resumed = mirror(tmp_path, second)
    resumed.replay(events[:6])
    for event in events[6:]:
        resumed.submit(event)
    assert resumed.finish(5) == 0
    assert (first.sent, second.sent) == (["t0000"], ["t0001", "t0002", "t0003"])


def test_targets_have_cursors_of_their_own_and_a_damaged_file_means_sending_again(tmp_path, caplog):
    write_cursor(tmp_path, "memory", 99)
    write_cursor(tmp_path, "elsewhere", 3)
    assert json.loads((tmp_path / CURSOR).read_text()) == {"memory": 99, "elsewhere": 3}
    nothing = Memory()
    tracker = mirror(tmp_path, nothing)
    tracker.replay(fake_journal.search())
    assert tracker.finish(5) == 0
    assert nothing.sent == []
    (tmp_path / CURSOR).write_text('{"memory": ')
    everything = Memory()
    tracker = mirror(tmp_path, everything)
    tracker.replay(fake_journal.search())
    assert tracker.finish(5) == 0
    assert len(everything.sent) == 4
    assert "damaged" in caplog.text


def test_a_record_that_is_refused_is_named_and_does_not_hold_up_the_others(tmp_path, caplog):
    sink = Memory(refuses=("t0001",))
    tracker = mirror(tmp_path, sink)
    tracker.replay(fake_journal.search())
    assert tracker.finish(5) == 0
    assert sink.sent == ["t0000", "t0002", "t0003"]
    assert "memory refuses t0001: a name is too long" in caplog.text


def test_a_target_has_no_secret_in_its_name():
    assert target_name("https://user:secret@host:5000/path") == "https://host:5000/path"
    assert target_name("sqlite:///a/b.db") == "sqlite:///a/b.db"
    assert target_name(None) == "mlflow.db"


def test_no_tracker_has_nothing_unsent():
    tracker = NoTracker()
    tracker.replay([])
    tracker.submit({})
    assert (tracker.flush(1), tracker.finish(1)) == (0, 0)
