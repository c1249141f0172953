"""The virtual cluster: schedules by hand, determinism, failures, and that it is the study of a real search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.recorded_table import RecordedTable, write_table
from cluster.simulated import Step, Table, simulate
from cluster.synthetic_tables import MIXED_SPACE, SyntheticTable, World
from search.space import Choice, Space
from search.study import Study
from search.trial import Config, Observation, Rung, TrialState, ladder

ROOT = Path(__file__).parents[2]


class ByHand:
    """Three configs; `x` is the loss and the seconds of a fold."""

    space = Space({"x": Choice(choices=(3, 2, 4))})
    ladder = ladder(2, 2)

    def report(self, config: Config, rung: Rung) -> Observation:
        loss = float(config["x"])
        return Observation(
            rung=rung.index,
            fold=rung.fold,
            share=rung.share,
            metrics={"val_loss": loss},
            n_scored=10,
            seconds=loss / 2,
        )

    def true_loss(self, config: Config) -> float:
        return float(config["x"])


def study_of(table: Table, **changes: Any) -> Study:
    known: dict[str, Any] = {"n_trials": 3, "optimizer": "grid", "stopping": "none", "seed": 1}
    return Study.in_memory(**{"space": table.space, "ladder": table.ladder, **known, **changes})


def reports_of(study: Study, steps: Sequence[Step]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for step in steps:
        found.setdefault(str(study.trials[step.trial_id].config["x"]), []).append(step.time_s)
    return found


def test_one_worker_runs_trials_one_after_another() -> None:
    study = study_of(ByHand())
    steps = simulate(study, ByHand(), n_workers=1)
    assert study.is_done
    assert steps[-1].time_s == 2 * (3 + 2 + 4)
    assert steps[-1].folds == 6.0
    assert [step.folds for step in steps[:3]] == [0.5, 1.0, 1.5]


def test_workers_run_side_by_side() -> None:
    study = study_of(ByHand())
    steps = simulate(study, ByHand(), n_workers=3)
    assert reports_of(study, steps) == {"3": [1.5, 3, 4.5, 6], "2": [1, 2, 3, 4], "4": [2, 4, 6, 8]}
    assert [step.time_s for step in steps] == sorted(step.time_s for step in steps)
    assert study.trials[steps[-1].best_id or ""].config == {"x": 2}


def test_a_budget_of_folds_ends_everything() -> None:
    study = study_of(ByHand())
    steps = simulate(study, ByHand(), n_workers=2, most_folds=2.0)
    assert steps[-1].folds == 2.0
    assert not study.is_done


def test_failures_end_their_trial_and_free_the_worker() -> None:
    study = study_of(ByHand())
    steps = simulate(
        study,
        ByHand(),
        n_workers=1,
        failure=lambda trial, rung: (TrialState.LOST, "gone") if trial.number == 1 and rung.index == 2 else None,
    )
    assert [t.state for t in study.trials.values()] == [TrialState.COMPLETE, TrialState.LOST, TrialState.COMPLETE]
    assert [step.decision for step in steps].count(None) == 1
    assert study.trials["t0001"].reason == "gone"


def test_another_ladder_and_no_worker_are_refused() -> None:
    with pytest.raises(ValueError, match="ladder of the table"):
        simulate(study_of(ByHand(), ladder=ladder(3)), ByHand(), n_workers=1)
    with pytest.raises(ValueError, match="expected 1 or more, found 0"):
        simulate(study_of(ByHand()), ByHand(), n_workers=0)


@pytest.mark.parametrize("rule", ["asha", "hyperband", "fold_racing", "predicted"])
@pytest.mark.requirement("REPRO-1")
def test_equal_seeds_give_equal_searches_in_memory_and_on_disk(tmp_path: Path, rule: str) -> None:
    def steps_of(study: Study, seed: int = 4) -> tuple[Step, ...]:
        return simulate(study, SyntheticTable(seed), n_workers=3)

    arguments: dict[str, Any] = {
        "space": MIXED_SPACE,
        "ladder": SyntheticTable(4).ladder,
        "n_trials": 14,
        "optimizer": "random",
        "stopping": rule,
        "seed": 2,
    }
    first = steps_of(Study.in_memory(**arguments))
    assert steps_of(Study.in_memory(**arguments)) == first
    with Study.create(tmp_path / "journal.sqlite", **arguments) as study:
        assert steps_of(study) == first
    assert steps_of(Study.in_memory(**arguments), seed=5) != first


def test_it_imports_no_ray() -> None:
    program = "import sys; sys.modules['ray'] = None; import cluster.simulated, cluster.synthetic_tables"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


# The synthetic tables.


def test_the_optimum_is_a_point_of_the_space_and_nothing_is_better() -> None:
    for seed in range(4):
        table = SyntheticTable(seed)
        assert MIXED_SPACE.problems(table.optimum) == ()
        assert table.true_loss(table.optimum) == 0.0
        rng = np.random.default_rng(seed)
        losses = [table.true_loss(MIXED_SPACE.sample(rng)) for _ in range(300)]
        assert min(losses) > 0.0
        assert np.std(losses) == pytest.approx(1.0, rel=0.2)


def test_a_report_is_the_truth_plus_noise_that_trials_share_in_part() -> None:
    world = World(noise=1.0, memory=0.0, tail=np.inf, unrest=0.0, interaction=0.0, fold_spread=2.0, n_scored=400)
    table = SyntheticTable(3, world)
    rng = np.random.default_rng(0)
    configs = [MIXED_SPACE.sample(rng) for _ in range(60)]
    rungs = table.ladder
    seen = np.array([[table.report(c, r).metrics["val_loss"] - table.true_loss(c) for r in rungs] for c in configs])
    assert (seen - seen.mean(axis=0)).std() == pytest.approx(1 / 20, rel=0.15)  # own noise of 400 timestamps
    assert seen.mean(axis=0).std() > 1.0  # folds differ, for all alike
    report = table.report(configs[0], rungs[0])
    assert len(report.blocks) == 16
    assert np.mean(report.blocks) == pytest.approx(report.metrics["val_loss"])


def test_a_fold_that_is_not_trained_to_its_end_looks_worse() -> None:
    table = SyntheticTable(1, World(rungs_per_fold=3, learning=9.0))
    first, second, third = (table.report(table.optimum, rung).metrics["val_loss"] for rung in table.ladder[:3])
    assert first - third == pytest.approx(4.0)
    assert second - third == pytest.approx(1.0)


def test_interactions_differ_between_configs_and_average_out() -> None:
    table = SyntheticTable(2, World(n_folds=400, interaction=0.5, fold_spread=0.0))
    effects = [table.fold_loss(table.optimum, fold) for fold in range(400)]
    assert np.std(effects) == pytest.approx(0.5, rel=0.25)
    assert abs(table.ladder_loss(table.optimum)) < 3 * 0.5 / 20


# Recorded tables.


def test_a_recorded_table_gives_back_what_was_recorded(tmp_path: Path) -> None:
    table, path = ByHand(), tmp_path / "table.parquet"
    pairs = [(config, table.report(config, rung)) for config in table.space.points() for rung in table.ladder]
    write_table(path, table.space, pairs)
    again = RecordedTable(path)
    assert again.space.fingerprint() == table.space.fingerprint()
    assert again.ladder == table.ladder
    assert [again.report(config, again.ladder[seen.rung]) for config, seen in pairs] == [seen for _, seen in pairs]
    assert again.true_loss({"x": 4}) == 4.0
    assert simulate(study_of(again), again, n_workers=2) == simulate(study_of(table), table, n_workers=2)


def test_a_table_with_holes_is_refused(tmp_path: Path) -> None:
    table, path = ByHand(), tmp_path / "table.parquet"
    pairs = [(config, table.report(config, rung)) for config in table.space.points() for rung in table.ladder]
    write_table(path, table.space, pairs[:-1])
    with pytest.raises(ValueError, match="expected 4 rungs of every config"):
        RecordedTable(path)


def test_the_recorded_real_table_is_a_world_to_search_in() -> None:
    """72 small mlp configs on 12 folds of S&P 500 days, trained by benchmarks/record_table.py: folds disagree a lot."""
    table = RecordedTable(ROOT / "benchmarks" / "tables" / "arch_sp500_mlp.parquet")
    losses = np.array([table.true_loss(config) for config in table.space.points()])
    assert losses.shape == (72,)
    assert len(table.ladder) == 12
    assert 0 < losses.min() < losses.max() < 2
    study = study_of(table, n_trials=20, stopping="fold_racing", optimizer="random", seed=1)
    steps = simulate(study, table, n_workers=4)
    best = study.best()
    assert best is not None
    assert len(steps) <= 20 * 12
