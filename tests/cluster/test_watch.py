"""Who is slow and who hangs, on a clock that the test turns."""

import json

import pytest

from cluster.watch import Watch
from trainables.training.heartbeat import SECONDS_BETWEEN_BEATS, Heartbeat
from trainables.training.loop import StepReport


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def step(number):
    return StepReport(fold=2, step=number, n_steps=40, loss=1.0, gradient_norm=1.0, learning_rate=0.1, n_rows=8)


@pytest.fixture
def beats(tmp_path, monkeypatch):
    """Let every beat be written, whenever it comes."""
    monkeypatch.setattr("trainables.training.heartbeat.SECONDS_BETWEEN_BEATS", 0.0)
    return tmp_path / "checkpoints" / "t0001" / "heartbeat.json"


def test_a_trial_that_steps_is_slow_and_one_that_does_not_hangs(clock, beats):
    watch, heartbeat = Watch(60.0, clock), Heartbeat(beats)
    watch.heard("a", beats)
    for number in range(1, 4):
        clock.now += 59.0
        heartbeat.beat(step(number))
        assert watch.hang("a") is None
    clock.now += 60.0
    assert watch.hang("a") is None
    clock.now += 0.1
    assert watch.hang("a") == "hang: no sign of life for 1 minutes, the last one after step 3 of 40 in fold 2"


def test_a_report_is_a_sign_of_life_and_so_is_the_first_file(clock, beats):
    watch = Watch(60.0, clock)
    watch.heard("a", beats)
    clock.now = 59.0
    watch.heard("a", beats)
    clock.now = 118.0
    assert watch.hang("a") is None
    Heartbeat(beats).beat()
    assert watch.hang("a") is None
    clock.now = 179.0
    assert watch.hang("a") == "hang: no sign of life for 1 minutes, the last one before the first step"


def test_without_a_limit_or_a_trial_nothing_hangs(clock, beats):
    endless, watch = Watch(None, clock), Watch(60.0, clock)
    endless.heard("a", beats)
    watch.heard("a", beats)
    watch.forget("a")
    clock.now = 1e6
    assert endless.hang("a") is None
    assert watch.hang("a") is None
    assert not watch.is_watched("a")


def test_beats_are_few_and_a_full_disk_does_not_stop_training(tmp_path):
    heartbeat = Heartbeat(tmp_path / "heartbeat.json")
    for number in range(1, 100):
        heartbeat.beat(step(number))
    assert json.loads((tmp_path / "heartbeat.json").read_text()) == {"beat": 1, "fold": 2, "step": 1, "n_steps": 40}
    assert SECONDS_BETWEEN_BEATS >= 1
    (tmp_path / "file").touch()
    Heartbeat(tmp_path / "file" / "heartbeat.json").beat()
