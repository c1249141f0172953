import gc
import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from cluster import worker as worker_module
from cluster.worker import (
    LONGEST_REASON,
    TrialActor,
    decode_assignment,
    encode_assignment,
    ending_of,
    worker_environment,
)
from search.trial import TrialState
from trainables.protocol import Assignment, RungReport, TrialDiverged


def assignment(runner="well", **changes):
    fields = {
        "trial_id": "t0007",
        "family": "stub",
        "config": {"x": 0.5, "heads": [1, 2], "name": None},
        "data": {"kind": "none"},
        "folds": {"n_folds": 2},
        "reach": {"lookback": (60, 512), "x": (0.0, 1.0)},
        "ladder": ((0, 0.5), (0, 1.0), (1, 1.0)),
        "seed": 11,
        "run_dir": "folder",
        "options": {"runner": f"{__name__}:{runner}", "threads": 1},
    }
    return Assignment(**{**fields, **changes})


closed = []


def well(given):
    try:
        for index, (fold, share) in enumerate(given.ladder):
            metrics = {"val_loss": np.float32(0.5), "ic": 1}
            yield RungReport(
                rung=index,
                fold=fold,
                share=share,
                metrics=metrics,
                n_scored=np.int64(9),
                seconds=0.25,
                blocks=(np.float64(0.25), 0.75),
            )
    finally:
        closed.append(given.trial_id)


def short(given):
    yield from list(well(given))[:1]


def raising(given):
    yield next(well(given))
    raise KeyError("no such\ncolumn")


def leaving(given):
    yield next(well(given))
    sys.exit(0)


def text_metric(given):
    yield RungReport(rung=0, fold=0, share=1.0, metrics={"ic": "0.1"}, n_scored=1, seconds=0.0)


def stubborn(given):
    try:
        yield from well(given)
    except GeneratorExit:
        raise OSError("cannot flush") from None


@pytest.fixture(autouse=True)
def _nothing_closed():
    closed.clear()


def actor(given, attempt=1):
    """Return a worker without Ray around it: Ray's constructor needs a cluster."""
    worker = object.__new__(TrialActor)
    worker.setup({"assignment": encode_assignment(given), "attempt": attempt})
    return worker


def heard(worker):
    return json.loads(worker.step()["message"])


def test_an_assignment_crosses_as_json_and_comes_back_equal():
    assert decode_assignment(encode_assignment(assignment())) == assignment()


def test_an_assignment_with_nan_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_assignment(assignment(config={"x": float("nan")}))


def test_each_step_reports_one_rung_in_plain_numbers():
    worker = actor(assignment(), attempt=3)
    first, second, third = heard(worker), heard(worker), heard(worker)
    assert first == {
        "trial_id": "t0007",
        "attempt": 3,
        "report": {
            "rung": 0,
            "fold": 0,
            "share": 0.5,
            "metrics": {"val_loss": 0.5, "ic": 1.0},
            "n_scored": 9,
            "seconds": 0.25,
            "blocks": [0.25, 0.75],
            "reused_from": "",
        },
        "is_last": False,
    }
    assert not second["is_last"]
    assert third["is_last"]
    assert closed == ["t0007"]


@pytest.mark.parametrize(
    ("runner", "n_reports", "state", "reason"),
    [
        ("raising", 1, "failed", "KeyError: 'no such\\ncolumn'"),
        ("leaving", 1, "failed", "SystemExit: 0"),
        ("short", 1, "failed", "RuntimeError: the trial ended before the last rung of its ladder"),
        ("text_metric", 0, "failed", "TypeError: metrics['ic'] at rung 0: expected a number, found str"),
        ("absent", 0, "failed", f"AttributeError: module '{__name__}' has no attribute 'absent'"),
    ],
)
def test_what_a_trial_does_wrong_is_data(runner, n_reports, state, reason):
    worker = actor(assignment(runner))
    for _ in range(n_reports):
        assert "report" in heard(worker)
    ended = heard(worker)["ended"]
    assert (ended["state"], ended["reason"]) == (state, reason)
    assert "Traceback" in ended["traceback"]


class OutOfMemoryError(RuntimeError):
    """Named as torch's class is, which a worker knows by name only."""


@pytest.mark.requirement("SEARCH-9")
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TrialDiverged("loss is nan in fold 1 at step 3"), TrialState.DIVERGED),
        (OutOfMemoryError("Tried to allocate 2.00 GiB"), TrialState.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate"), TrialState.OUT_OF_MEMORY),
        (MemoryError(), TrialState.OUT_OF_MEMORY),
        (ValueError("negative price"), TrialState.FAILED),
        (SystemExit(1), TrialState.FAILED),
    ],
)
def test_errors_end_in_different_states(error, state):
    assert ending_of(error)[0] is state


def test_torch_out_of_memory_is_known():
    torch = pytest.importorskip("torch")
    assert ending_of(torch.OutOfMemoryError("x"))[0] is TrialState.OUT_OF_MEMORY


def test_a_reason_is_one_short_line():
    reason = ending_of(ValueError("a\nb " * 1000))[1]
    assert "\n" not in reason
    assert len(reason) == LONGEST_REASON


def test_a_reused_worker_closes_the_stopped_trial_first():
    worker = actor(assignment())
    heard(worker)
    assert worker.reset_config({"assignment": encode_assignment(assignment(trial_id="t0008")), "attempt": 1})
    assert closed == ["t0007"]
    assert heard(worker)["trial_id"] == "t0008"
    worker.cleanup()
    assert closed == ["t0007", "t0008"]


def test_a_trial_that_cannot_be_closed_does_not_take_the_next_one_with_it(caplog):
    worker = actor(assignment("stubborn"))
    heard(worker)
    assert worker.reset_config({"assignment": encode_assignment(assignment()), "attempt": 1})
    assert "cannot flush" in caplog.text
    assert heard(worker)["report"]["rung"] == 0


class Knot:
    """Garbage that only a collection finds: it holds itself."""

    def __init__(self):
        self.self = self


knots = []


def knotted(given):
    knot = Knot()
    knots.append(weakref.ref(knot))
    del knot
    yield from well(given)


def test_closing_a_trial_frees_its_garbage_and_does_not_look_through_what_imports_made():
    """To look through it took 0.1 s a trial, so that a no-op trial cost ten times what bare Ray Tune takes."""
    knots.clear()
    worker_module._imported.cache_clear()
    try:
        worker = actor(assignment("knotted"))
        messages = [heard(worker) for _ in range(3)]
        assert messages[-1]["is_last"]
        assert knots[0]() is None
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    finally:
        gc.unfreeze()


@pytest.mark.requirement("TRAIN-10")
def test_worker_environment_sets_the_allocator_and_thread_limits():
    variables = worker_environment(3)
    assert variables["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert (variables["MALLOC_TRIM_THRESHOLD_"], variables["MALLOC_MMAP_THRESHOLD_"]) == ("1073741824", "33554432")
    assert {variables[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}


def test_importing_the_worker_does_not_import_torch():
    code = "import sys, cluster.worker; print('torch' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.strip() == "False"
