"""spaces/condor_grid.yaml: the recommended grid comes first, whole or scaled down (SEARCH-3, SEARCH-16)."""

from itertools import pairwise

import pytest

from search.study import Study
from search.trial import ladder
from tests.spaces.shipped import problems, read, refusals
from trainables.condor.config import PRESETS, CondorConfig

ROWS = [
    (1024, 32, 128, 1e-4),
    (1024, 32, 256, 1e-4),
    (1024, 32, 128, 5e-5),
    (512, 24, 128, 1e-4),
    (2048, 48, 128, 1e-4),
]


def first_trials(profile, n=7):
    file, _ = read("condor_grid", profile)
    study = Study.in_memory(
        space=file.space(),
        ladder=ladder(2),
        n_trials=n,
        optimizer=file.search.optimizer,
        stopping="none",
        enqueue=file.search.enqueue,
        population=file.search.population,
    )
    return [study.next() for _ in range(n)]


def row(config):
    return config["d_model"], config["n_layers"], config["lookback"], config["lr"]


@pytest.mark.requirement("SEARCH-3")
def test_the_five_rows_are_generation_zero():
    trials = first_trials(None)
    assert [row(t.config) for t in trials[:5]] == ROWS
    assert [t.generation for t in trials] == [0] * 5 + [1] * 2
    presets = ("baseline", "longer_context", "lower_learning_rate", "smaller", "larger")
    for trial, name in zip(trials, presets, strict=False):
        config = CondorConfig(**trial.config)
        assert all(getattr(config, field) == value for field, value in PRESETS[name].items())
        assert config.batch_size * config.accum_steps == 256
    sizes = [CondorConfig(**t.config).n_parameters() for t in trials[:5]]
    assert sizes[4] == pytest.approx(1.24e9, rel=0.02)
    assert read("condor_grid")[0].budget.trials == 5


@pytest.mark.requirement("SEARCH-3")
@pytest.mark.requirement("SEARCH-16")
@pytest.mark.parametrize("profile", ["laptop", "smoke"])
def test_the_scaled_rows_differ_where_the_rows_do(profile):
    scaled = [row(t.config) for t in first_trials(profile)[:5]]
    assert len(set(scaled)) == 5
    for column in range(4):
        whole = [r[column] for r in ROWS]
        small = [r[column] for r in scaled]
        order = [(a > b) - (a < b) for a, b in pairwise(whole)]
        if (profile, column) != ("smoke", 1):  # depths 24, 32 and 48 are 1, 1 and 2 there
            assert [(a > b) - (a < b) for a, b in pairwise(small)] == order
    assert max(CondorConfig(**t.config).n_parameters() for t in first_trials(profile)) < 100_000


@pytest.mark.parametrize("profile", [None, "laptop", "smoke"])
def test_all_points_can_be_trained(profile):
    assert problems("condor_grid", profile) == ((), ())
    assert refusals("condor_grid", profile) == set()
