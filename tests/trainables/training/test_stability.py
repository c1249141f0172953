from __future__ import annotations

import math
import pickle

import pytest

from trainables.protocol import TrialDiverged
from trainables.training.options import RunOptions
from trainables.training.stability import Stability

LIMITS = RunOptions()


def run(losses, norms):
    stability = Stability()
    for loss, norm in zip(losses, norms, strict=True):
        stability.record(loss, norm)
        stability.check(2, norm, LIMITS)
    return stability


@pytest.mark.requirement("TRAIN-13")
@pytest.mark.requirement("MLP-3")
def test_a_nan_stream_triggers_above_five_percent_and_not_below():
    def stream(n_bad: int, n: int = 1000) -> list[float]:
        step = n / n_bad
        bad = {round((k + 1) * step) - 1 for k in range(n_bad)}
        return [math.nan if i in bad else 1.0 for i in range(n)]

    calm = run(stream(49), [1.0] * 1000)
    assert calm.metrics()["nan_rate"] == pytest.approx(0.049)
    assert calm.metrics()["valid_rate"] == pytest.approx(0.951)
    with pytest.raises(TrialDiverged, match=r"fold 2, step \d+: loss or gradient not finite in 5\.\d% of the steps"):
        run(stream(52), [1.0] * 1000)


@pytest.mark.requirement("TRAIN-13")
def test_the_share_is_judged_from_the_fiftieth_step_on():
    run([math.nan] * 49, [1.0] * 49)
    with pytest.raises(TrialDiverged, match="step 50"):
        run([math.nan] * 50, [1.0] * 50)


@pytest.mark.requirement("TRAIN-13")
@pytest.mark.requirement("MLP-3")
def test_three_explosions_in_a_row_are_a_divergence_and_two_are_not():
    run([1.0] * 6, [356_000.0, 356_000.0, 1.0, 356_000.0, 356_000.0, 1e5])
    with pytest.raises(TrialDiverged, match=r"fold 2, step 4: gradient norm above 100000 in 3 consecutive steps"):
        run([1.0] * 4, [1.0, 1e6, 1e6, 1e6])


def test_telemetry_counts_finite_norms_only_and_survives_a_checkpoint():
    stability = run([1.0, math.nan, 1.0], [2.0, math.inf, 4.0])
    assert Stability.from_json(stability.to_json()) == stability
    assert stability.metrics() == {
        "nan_rate": pytest.approx(1 / 3),
        "valid_rate": pytest.approx(2 / 3),
        "grad_norm_max": 4.0,
        "grad_norm_mean": 3.0,
        "grad_norm_variance": 1.0,
    }
    assert Stability().metrics() == {}


def test_a_divergence_crosses_process_borders():
    error = pickle.loads(pickle.dumps(TrialDiverged("fold 1, step 2: gone")))
    assert (error.reason, str(error)) == ("fold 1, step 2: gone", "fold 1, step 2: gone")


@pytest.mark.requirement("ANALYSIS-10")
def test_constant_gradients_have_no_variance():
    assert run([1.0] * 20, [0.3] * 20).metrics()["grad_norm_variance"] == 0.0
