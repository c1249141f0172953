"""What becomes of reports and errors of several workers, without Ray: a fake group in place of Ray Train's."""

import pytest
from ray.train import WorkerGroupError
from toy_trials import toy_assignment

from cluster import worker_group
from trainables.protocol import RungReport, TrialDiverged


def report(rung):
    return RungReport(rung=rung, fold=rung, share=1.0, metrics={"val_loss": 1.0}, n_scored=1, seconds=0.0)


@pytest.fixture
def groups(monkeypatch):
    """Let each start of the workers report some rungs and then raise; returns the options of each start."""
    options = []

    def script(*starts):
        remaining = list(starts)

        def run_once(assignment, share, runner):
            options.append(dict(assignment.options))
            rungs, error = remaining.pop(0)
            yield from map(report, rungs)
            if error is not None:
                raise error

        monkeypatch.setattr(worker_group, "_run_once", run_once)
        return options

    return script


def run(tmp_path):
    given = toy_assignment(tmp_path, "t0000", {}, n_workers=2)
    return worker_group.run_on_workers(given, {"CPU": 1.0}, lambda assignment: iter(()))


@pytest.mark.requirement("SEARCH-9")
def test_workers_out_of_memory_start_once_more_with_half_the_micro_batch(tmp_path, groups):
    options = groups(([0, 1], RuntimeError("CUDA out of memory")), ([1, 2], None))
    assert [r.rung for r in run(tmp_path)] == [0, 1, 2], "what a resume repeats was heard"
    assert [o.get("split", 1) for o in options] == [1, 2]


def test_the_second_time_it_is_out_of_memory(tmp_path, groups):
    groups(([0], MemoryError()), ([0], MemoryError("again")))
    with pytest.raises(MemoryError, match="again"):
        list(run(tmp_path))


def test_other_errors_come_through(tmp_path, groups):
    options = groups(([0], TrialDiverged("gone")))
    with pytest.raises(TrialDiverged, match="gone"):
        list(run(tmp_path))
    assert len(options) == 1


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ({1: KeyError("late"), 0: TrialDiverged("first")}, TrialDiverged),
        ({0: RuntimeError("connection reset by peer"), 1: MemoryError()}, MemoryError),
        ({}, WorkerGroupError),
    ],
)
def test_of_several_errors_the_one_that_explains_is_raised(failures, expected):
    class Trainer:
        def fit(self):
            raise WorkerGroupError("workers failed", failures)

    group = worker_group._Group(Trainer())
    assert group.wait(10)
    with pytest.raises(expected):
        group.raise_error()
