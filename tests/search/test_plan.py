"""What a search is going to cost, before it does: trials and hours of each rung."""

from __future__ import annotations

import pytest

from search.plan import CPU_FLOPS, FOLD_S, GPU_FLOPS, STEP_S, describe_stopping, expected_visits, training_seconds
from search.settings import Asha, FoldRacing, Hyperband, NoStopping
from search.trial import ladder

RUNGS = ladder(9, 2)


def by_fold(visits: list[float]) -> list[float]:
    assert visits[::2] == visits[1::2]
    return visits[::2]


@pytest.mark.requirement("SEARCH-16")
def test_each_milestone_of_asha_lets_one_in_eta_go_on() -> None:
    assert by_fold(expected_visits(90, RUNGS, Asha())) == [90, 30, 30, 10, 10, 10, 10, 10, 10]
    assert by_fold(expected_visits(90, RUNGS, Asha(min_folds=2, eta=4))) == [90, 90, *[22.5] * 6, 5.625]


def test_hyperband_is_the_sum_of_its_brackets() -> None:
    """Brackets from folds 1, 3 and 9 in the proportions 9 : 5 : 3 (Li et al. 2018, table 1, for R = 9)."""
    shares = by_fold(expected_visits(17, RUNGS, Hyperband()))
    assert shares[0] == pytest.approx(17)
    assert shares[1] == pytest.approx(9 / 3 + 5 + 3)
    assert shares[3] == pytest.approx(9 / 9 + 5 / 3 + 3)


@pytest.mark.parametrize("rule", [FoldRacing(), NoStopping()])
def test_what_depends_on_the_results_is_told_at_its_most(rule: FoldRacing | NoStopping) -> None:
    assert expected_visits(7, RUNGS, rule) == [7.0] * 18
    text = describe_stopping(rule, RUNGS)
    assert text == "none" or text == (
        "fold racing, alpha 0.05, margin 0, looks after 1 to 8 folds (trials and hours: at most)"
    )


def test_the_seconds_of_a_rung_grow_with_its_trials_and_the_bars_of_its_fold() -> None:
    visits = [4.0, 4.0, 2.0, 2.0]
    cpu = training_seconds(visits, ladder(2, 2), [1000, 3000], flops=1e6, n_steps=0.01, on_gpu=False)
    first = 1000 * (1e6 / CPU_FLOPS + 0.01 * STEP_S) + FOLD_S
    second = 3000 * (1e6 / CPU_FLOPS + 0.01 * STEP_S) + FOLD_S
    assert cpu == pytest.approx([2 * first, 2 * first, second, second])
    gpu = training_seconds(visits, ladder(2, 2), [1000, 3000], flops=1e6, n_steps=0.01, on_gpu=True)
    assert gpu[0] == pytest.approx(2 * (1000 * (1e6 / GPU_FLOPS + 0.01 * STEP_S) + FOLD_S))
