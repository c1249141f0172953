import math

import pytest

from analysis.measures import gates
from analysis.measures.gates import Gate

BASE = 1.37


@pytest.mark.requirement("GATE-0", "GATE-5")
@pytest.mark.parametrize(
    ("ic", "crps", "outcome"),
    [
        (0.031, 0.899 * BASE, "pass"),
        (0.03, 0.5 * BASE, "fail"),
        (0.5, 0.90 * BASE, "fail"),
        (None, 0.5, "inconclusive"),
    ],
)
def test_proceed(ic, crps, outcome):
    assert gates.proceed(ic, crps, BASE).outcome == outcome


@pytest.mark.requirement("GATE-5")
@pytest.mark.parametrize("base", [0.1, 0.3, 0.7, 1.0, 3.3, 12345.678])
def test_ninety_percent_of_any_baseline_fails_exactly(base):
    assert gates.proceed(0.5, 0.9 * base, base).outcome == "fail"


@pytest.mark.requirement("GATE-1")
def test_phase_1_needs_a_word_on_memory():
    assert gates.phase_1(0.021, None).outcome == "inconclusive"
    assert gates.phase_1(0.021, "not_measured").outcome == "pass"
    assert gates.phase_1(0.02, 11.5).outcome == "fail"


@pytest.mark.requirement("GATE-2")
def test_phase_2_is_measured_against_phase_1():
    assert gates.phase_2(0.8, 1.0).outcome == "pass"
    assert gates.phase_2(0.86, 1.0).outcome == "fail"
    assert gates.phase_2(0.8, None).outcome == "inconclusive"


@pytest.mark.requirement("GATE-3")
def test_phase_3_needs_enough_tail_events():
    assert gates.phase_3(0.56, 100).outcome == "pass"
    assert gates.phase_3(0.55, 100).outcome == "fail"
    assert gates.phase_3(0.9, 99).outcome == "inconclusive"


@pytest.mark.requirement("GATE-4")
@pytest.mark.parametrize(
    ("accuracy", "nan_rate", "outcome", "step"),
    [
        (0.5501, 0.0, "pass", "target 1"),
        (0.60, 0.0, "pass", "target 1"),
        (0.6001, 0.0, "pass", "target 2"),
        (0.50, 0.0, "fail", "below the baseline"),
        (0.7, 0.05, "fail", "target 2"),
    ],
)
def test_ladder(accuracy, nan_rate, outcome, step):
    found = gates.ladder(accuracy, nan_rate)
    assert found.outcome == outcome
    assert f": {step};" in found.reason


@pytest.mark.requirement("ACC-1")
def test_scalper_accuracy_must_also_beat_the_majority():
    assert gates.scalper_accuracy(0.53, 0.52).outcome == "pass"
    assert gates.scalper_accuracy(0.53, 0.53).outcome == "fail"
    assert gates.scalper_accuracy(0.52, 0.40).outcome == "fail"


@pytest.mark.requirement("ACC-2")
def test_sharpe_is_strict():
    assert gates.sharpe(1.0).outcome == "fail"
    assert gates.sharpe(1.01).margin == pytest.approx(0.01)
    assert gates.sharpe(math.nan).outcome == "inconclusive"


@pytest.mark.requirement("ACC-3")
@pytest.mark.parametrize(
    ("pnl", "outcome"),
    [
        ([1, 1, 1, 1, 1, 1, 1, -0.1, -0.1, -0.1], "pass"),
        ([1, 1, 1, 1, 1, 1, -0.1, -0.1, -0.1, -0.1], "fail"),
        ([1, 1, 1, -0.9], "fail"),
        ([-1, -1, -1], "fail"),
        ([1], "inconclusive"),
    ],
)
def test_consistent_profit(pnl, outcome):
    assert gates.consistent_profit(pnl).outcome == outcome


@pytest.mark.requirement("ACC-4")
def test_recent_decline():
    # Earlier folds: mean 2, standard error 1/sqrt(3).
    assert gates.no_recent_decline([1, 2, 3, 1.43, 1.43, 1.43]).outcome == "pass"
    assert gates.no_recent_decline([1, 2, 3, 1.42, 1.42, 1.42]).outcome == "fail"
    assert gates.no_recent_decline([1, 2, 3, 4]).outcome == "inconclusive"


@pytest.mark.requirement("ACC-5")
def test_each_check_of_overfitting_can_fail():
    train, validation = [1.0, 1.0, 1.0], [1.05, 0.95, 1.0]
    held = {"is_causal": True, "regime_loss_ratio": 1.0}
    assert gates.no_overfitting(train, validation, **held).outcome == "pass"
    assert "overfitting" in gates.no_overfitting([0.5, 1.0, 1.0], validation, **held).reason
    assert "data problem" in gates.no_overfitting(train, [1.0, math.nan, 1.0], **held).reason.replace("_", " ")
    assert "vary over folds" in gates.no_overfitting([0.1, 9.0, 0.1], [0.1, 9.0, 0.1], **held).reason
    assert "look-ahead" in gates.no_overfitting(train, validation, **(held | {"is_causal": False})).reason
    assert "regimes" in gates.no_overfitting(train, validation, **(held | {"regime_loss_ratio": 1.2})).reason
    assert gates.no_overfitting(train, validation).outcome == "inconclusive"


@pytest.mark.requirement("ACC-6")
def test_nan_rate_counts_in_the_worst_fold():
    assert gates.stable_training([0.0, 0.049]).outcome == "pass"
    assert gates.stable_training([0.0, 0.05]).outcome == "fail"
    assert gates.stable_training([]).outcome == "inconclusive"


@pytest.mark.requirement("ACC-7")
def test_aspiration_needs_its_own_figures_and_all_gates():
    passed = [Gate(name="GATE-0", outcome="pass", margin=0.1, reason="")]
    failed = [Gate(name="GATE-3", outcome="fail", margin=-0.1, reason="")]
    unknown = [Gate(name="GATE-1", outcome="inconclusive", margin=None, reason="")]
    assert gates.aspiration(0.051, 0.74, 1.0, passed).outcome == "pass"
    assert gates.aspiration(0.05, 0.74, 1.0, passed).outcome == "fail"
    assert gates.aspiration(0.051, 0.75, 1.0, passed).outcome == "fail"
    assert gates.aspiration(0.051, 0.74, 1.0, passed + failed).outcome == "fail"
    assert gates.aspiration(0.051, 0.74, 1.0, passed + unknown).outcome == "inconclusive"


@pytest.mark.requirement("ANALYSIS-12")
@pytest.mark.parametrize(
    ("train", "validation", "label"),
    [(1.0, 1.09, "healthy"), (1.0, 1.3, "overfitting"), (1.3, 1.0, "unusual"), (1.0, math.nan, "data_problem")],
)
def test_four_curves_have_four_labels(train, validation, label):
    assert gates.diagnose(train, validation) == label
    assert gates.ADVICE[label]
