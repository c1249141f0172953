"""What an earlier search gives to a new one: values where they mean the same, configs where not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.charter import charter_from, prior_body
from search.errors import SpaceError
from search.objective import Objective
from search.replay import replay
from search.settings import FidelitySection
from search.space import Float, Ordered, Space
from search.study import Study
from search.trial import TrialState, ladder
from search.validity import resolved
from search.warm_start import WarmStart, as_heard, as_point, earlier_search, typed, warm_start
from tests.search.toy_search import RUNGS, observed, run_trial, running
from trainables.fidelity import SCALES
from trainables.mlp.config import MlpConfig

NARROW = Space({"lr": Float(low=1e-3, high=1e-2, log=True), "epochs": Ordered(choices=(30, 60))})
WIDE = Space(
    {
        "lr": Float(low=1e-4, high=1e-1, log=True),
        "epochs": Ordered(choices=(30, 60, 90)),
        "dropout": Float(low=0.0, high=0.5, default=0.3),
    }
)
FULL, SMALL, TINY = (SCALES[name].model_dump() for name in ("full", "small", "tiny"))
FACTS = {"family": "mlp", "scored": "abc", "fidelity": FULL}


def resolve(config: Any) -> dict[str, Any] | None:
    return resolved(config, MlpConfig)


def fidelity_of(section: FidelitySection) -> dict[str, Any]:
    return SCALES[section.scale].model_dump()


def searched(folder: Path, n: int = 9, *, header: Any = FACTS, stopping: Any = "asha") -> Path:
    """Run a search of n trials; the loss falls with lr; every fifth trial runs out of memory."""
    arguments: dict[str, Any] = {"space": NARROW, "ladder": RUNGS, "optimizer": "random", "n_trials": n, "seed": 3}
    folder.mkdir()
    with Study.create(folder / "journal.sqlite", header=header, stopping=stopping, **arguments) as study:
        while (trial := study.next()) is not None:
            if trial.number % 5 == 4:
                study.finish(trial.trial_id, TrialState.OUT_OF_MEMORY, "full")
            else:
                run_trial(study, trial, [1 - trial.config["lr"] + fold / 10 for fold in range(4)])
    return folder


def taken(source: str, *, space: Space = WIDE, facts: Any = FACTS, rungs: Any = RUNGS, records: Any = ()) -> WarmStart:
    earlier = earlier_search(source, Objective(), lambda uri, name: records, resolve, fidelity_of)
    return warm_start(earlier, space=space, ladder=rungs, facts=facts, resolve=resolve)


def test_a_widened_space_hears_every_result_and_tries_the_leaders_first(tmp_path: Path) -> None:
    before = Study.read(searched(tmp_path / "a") / "journal.sqlite")
    warm = taken(str(tmp_path / "a"))
    complete = [t for t in before.trials.values() if t.state is TrialState.COMPLETE]
    leaders = sorted(complete, key=lambda t: -t.config["lr"])[:5]
    assert [c["lr"] for c in warm.enqueue] == [t.config["lr"] for t in leaders]
    assert all(c["dropout"] == MlpConfig().dropout for c in warm.enqueue), "what was not searched had its default"
    assert warm.is_comparable
    assert len(warm.prior) + len(warm.enqueue) == len(before.trials)
    assert warm.n_inherited == len(warm.prior)
    assert {t.state for t in warm.prior} >= {TrialState.STOPPED, TrialState.OUT_OF_MEMORY}
    assert [t.number for t in warm.prior] == list(range(-len(warm.prior), 0))
    assert all(t.trial_id.startswith("a/t0") for t in warm.prior)
    old = {f"a/{t.trial_id}": t for t in before.trials.values()}
    assert all(t.observations == old[t.trial_id].observations for t in warm.prior)
    header = {"warm_start": warm.to_header(), "study": {"prior": [prior_body(trial) for trial in warm.prior]}}
    assert WarmStart.from_header(json.loads(json.dumps(header))) == warm


@pytest.mark.parametrize("facts", [{**FACTS, "scored": "other"}, {**FACTS, "family": "condor"}])
def test_other_data_give_configs_and_no_value(tmp_path: Path, facts: Any) -> None:
    searched(tmp_path / "a")
    warm = taken(str(tmp_path / "a"), facts=facts)
    assert not warm.is_comparable
    assert (warm.prior, warm.n_inherited) == ((), 0)
    assert 1 <= len(warm.enqueue) <= 5
    assert "no value is taken" in warm.describe()


def test_a_run_that_does_not_say_what_it_scored_gives_configs_only(tmp_path: Path) -> None:
    searched(tmp_path / "a", header={})
    assert not taken(str(tmp_path / "a")).is_comparable


@pytest.mark.requirement("SEARCH-16")
@pytest.mark.parametrize(
    ("before", "words"), [(SMALL, "scale small (width 0.5"), ({**FULL, "data_frac": 0.3}, "data 0.3")]
)
@pytest.mark.parametrize(("n", "n_promoted"), [(9, 1), (12, 1), (13, 2), (25, 2), (26, 3)])
def test_the_best_tenth_of_a_lower_fidelity_is_promoted(
    tmp_path: Path, before: Any, words: str, n: int, n_promoted: int
) -> None:
    folder = searched(tmp_path / "a", n, header={**FACTS, "fidelity": before}, stopping="none")
    complete = [t for t in Study.read(folder / "journal.sqlite").trials.values() if t.state is TrialState.COMPLETE]
    assert n_promoted == math.ceil(len(complete) / 10)
    warm = taken(str(folder))
    best = sorted((t.config["lr"] for t in complete), reverse=True)[:n_promoted]
    assert [config["lr"] for config in warm.enqueue] == best
    assert (warm.is_comparable, warm.prior) == (False, ())
    assert warm.n_inherited == n, "all were chances to be lucky on these folds, and what is promoted is trained anew"
    said = warm.describe()
    assert words in said
    assert "its best tenth is promoted" in said
    assert f"{n_promoted} config{'s are' if n_promoted > 1 else ' is'} tried first; no value is compared" in said
    header = {"warm_start": warm.to_header(), "study": {"prior": []}}
    assert WarmStart.from_header(json.loads(json.dumps(header))) == warm


@pytest.mark.requirement("SEARCH-16")
@pytest.mark.parametrize("before", [FULL, {**TINY, "width_frac": 1.0}, None])
def test_a_fidelity_that_is_not_lower_or_not_known_gives_leaders_and_no_value(tmp_path: Path, before: Any) -> None:
    folder = searched(tmp_path / "a", header={**FACTS, "fidelity": before}, stopping="none")
    warm = taken(str(folder), facts={**FACTS, "fidelity": SMALL})
    assert (len(warm.enqueue), warm.prior, warm.promoted_from) == (5, (), "")
    assert warm.n_inherited == 9
    assert "fidelity, so no value is taken" in warm.describe()


@pytest.mark.requirement("SEARCH-16")
def test_nothing_is_promoted_from_other_rows(tmp_path: Path) -> None:
    folder = searched(tmp_path / "a", header={**FACTS, "fidelity": SMALL}, stopping="none")
    warm = taken(str(folder), facts={**FACTS, "scored": "other"})
    assert (len(warm.enqueue), warm.n_inherited, warm.promoted_from) == (5, 0, "")


@pytest.mark.requirement("SEARCH-16")
@pytest.mark.parametrize(
    ("section", "n_first", "is_comparable"),
    [("fidelity: {scale: small}", 1, False), ("fidelity: {rungs_per_fold: 1}", 5, True), ("family: mlp", 5, True)],
)
def test_a_journal_without_fidelity_had_that_of_its_space_file(
    tmp_path: Path, section: str, n_first: int, is_comparable: bool
) -> None:
    folder = searched(tmp_path / "a", header={"family": "mlp", "scored": "abc"}, stopping="none")
    assert not taken(str(folder)).is_comparable, "nothing says what it was"
    (folder / "space.yaml").write_text(section, encoding="utf-8")
    warm = taken(str(folder))
    assert (len(warm.enqueue), warm.is_comparable) == (n_first, is_comparable)
    (folder / "space.yaml").write_text("fidelity: {scale: huge}", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"space\.yaml: fidelity: expected what a run wrote, found .*huge"):
        taken(str(folder))


@pytest.mark.requirement("SEARCH-16")
def test_the_count_goes_on_from_scale_to_scale(tmp_path: Path) -> None:
    folder = searched(tmp_path / "a", header={**FACTS, "fidelity": TINY})
    facts = {**FACTS, "fidelity": SMALL}
    warm = taken(str(folder), facts=facts)
    assert warm.n_inherited == 9
    folder = searched(tmp_path / "b", header={**facts, "warm_start": warm.to_header()})
    assert taken(str(folder)).n_inherited == 9 + 9


def test_the_count_of_trials_goes_on_over_two_widenings(tmp_path: Path) -> None:
    searched(tmp_path / "a")
    warm = taken(str(tmp_path / "a"))
    searched(tmp_path / "b", header={**FACTS, "warm_start": warm.to_header()})
    again = taken(str(tmp_path / "b"))
    assert again.n_inherited + len(again.enqueue) == 9 + warm.n_inherited


@pytest.mark.parametrize(
    "optimizer", ["tpe", "evolutionary_bayesian", "nsga2", "gp", "cma_es", "qmc", "population_based"]
)
def test_a_search_that_begins_warm_replays_from_its_own_journal(tmp_path: Path, optimizer: str) -> None:
    searched(tmp_path / "a", 12)
    warm = taken(str(tmp_path / "a"))
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    path = tmp_path / "journal.sqlite"
    arguments: dict[str, Any] = {
        "space": WIDE, "ladder": RUNGS, "optimizer": optimizer, "n_trials": len(warm.enqueue) + 3, "seed": 3,
        "enqueue": warm.enqueue, "prior": warm.prior, "defaults": resolve({}), "stopping": "none",
    }  # fmt: skip
    with Study.create(path, header={"warm_start": warm.to_header()}, **arguments) as study:
        trial = study.next()
        assert trial is not None
        run_trial(study, trial, [0.5] * 4)
    kept = WarmStart.from_header(Study.read(path).header)
    with Study.resume(path, **{**arguments, "prior": kept.prior, "enqueue": kept.enqueue}) as study:
        while (trial := study.next()) is not None:
            run_trial(study, trial, [0.5 + trial.number / 100] * 4)
    assert charter_from(study.history.header["study"]).prior == warm.prior
    assert replay(path).difference is None


def test_earlier_results_change_what_is_proposed(tmp_path: Path) -> None:
    searched(tmp_path / "a", 40)
    warm = taken(str(tmp_path / "a"), space=NARROW)
    arguments: dict[str, Any] = {"space": NARROW, "ladder": RUNGS, "optimizer": {"name": "tpe", "n_startup": 5}}
    rates = []
    for prior in (warm.prior, ()):
        with Study.in_memory(**arguments, prior=prior, n_trials=12, seed=1) as study:
            rates.append([t.config["lr"] for t in iter(study.next, None)])
    assert sorted(rates[0])[6] > 1.5 * sorted(rates[1])[6]


def test_a_config_keeps_its_training_seed_in_a_wider_space(tmp_path: Path) -> None:
    folder = searched(tmp_path / "a", stopping="none")
    warm = taken(str(folder))
    seeds = {json.dumps(t.config["lr"]): t.seed for t in Study.read(folder / "journal.sqlite").trials.values()}
    usual = resolve({})
    with Study.in_memory(space=NARROW, ladder=RUNGS, optimizer="random", n_trials=9, seed=3, defaults=usual) as narrow:
        before = {t.config["lr"]: t.seed for t in iter(narrow.next, None)}
    with Study.in_memory(
        space=WIDE, ladder=RUNGS, optimizer="random", n_trials=5, seed=3, defaults=usual, enqueue=warm.enqueue
    ) as wide:
        after = {t.config["lr"]: t.seed for t in iter(wide.next, None)}
    assert len(warm.enqueue) >= 3
    assert {lr: after[lr] for lr in (c["lr"] for c in warm.enqueue)} == {c["lr"]: before[c["lr"]] for c in warm.enqueue}
    assert len(set(seeds.values())) == len(seeds)


def test_the_same_config_twice_has_two_seeds() -> None:
    one = Space({"lr": Float(low=1e-3, high=1e-3)})
    with Study.in_memory(space=one, ladder=RUNGS, optimizer="random", n_trials=3) as study:
        assert len({t.seed for t in iter(study.next, None)}) == 3


def test_a_shorter_ladder_completes_and_a_longer_one_does_not() -> None:
    trial = replace(running(0, {"lr": 1e-3}, [1.0, 2.0]), state=TrialState.STOPPED)
    for n_folds, state, seen in ((2, TrialState.COMPLETE, 2), (1, TrialState.COMPLETE, 1), (4, TrialState.STOPPED, 2)):
        heard = as_heard(trial, trial.config, ladder(n_folds))
        assert heard is not None
        assert (heard.state, len(heard.observations)) == (state, seen)
    assert as_heard(replace(trial, inherit={"trial_id": "t0", "folds": [[0, 0]]}), trial.config, ladder(2)) is None
    failed = replace(trial, state=TrialState.FAILED)
    assert as_heard(failed, failed.config, ladder(2)) is None
    assert as_heard(replace(trial, observations=()), trial.config, ladder(2)) is None


def test_a_config_that_is_no_point_of_the_space_is_left_out() -> None:
    assert as_point({"lr": 1e-3, "epochs": 30}, NARROW, resolve) == {"lr": 1e-3, "epochs": 30}
    assert as_point({"lr": 1e-1, "epochs": 30}, NARROW, resolve) is None
    assert as_point({"lr": 1e-3, "epochs": 30, "dropout": 0.2}, NARROW, resolve) is None
    assert as_point({"lr": 1e-3, "epochs": 30, "dropout": MlpConfig().dropout}, NARROW, resolve) is not None
    assert as_point({"lr": 1e-3, "epochs": 30, "unknown": 1}, NARROW, resolve) is None
    assert typed({"feature_stage": "10", "epochs": "60", "hidden": "64-32-16"}, resolve) == {
        "feature_stage": "10", "epochs": 60, "hidden": "64-32-16"
    }  # fmt: skip


def test_an_optuna_storage_gives_its_best_configs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="mine", direction="maximize")
    for k in range(8):
        told = optuna.trial.create_trial(
            params={"lr": (k + 1) * 1e-3},
            distributions={"lr": optuna.distributions.FloatDistribution(1e-3, 1e-2)},
            value=float(k),
        )
        study.add_trial(told)
    warm = taken(f"optuna:{url}#mine")
    assert [c["lr"] for c in warm.enqueue] == pytest.approx([8e-3, 7e-3, 6e-3, 5e-3, 4e-3])
    assert not warm.is_comparable


def test_a_tracking_server_gives_losses_by_fold_where_they_compare() -> None:
    records = [
        {"trial_id": f"t{k}", "state": state, "parameters": {"lr": f"{(k + 1) * 1e-3}", "epochs": "60"},
         "fold_losses": [(fold, 1.0 - k / 10) for fold in range(n)], **FACTS}
        for k, (state, n) in enumerate([("complete", 4)] * 6 + [("stopped", 1), ("failed", 0)])
    ]  # fmt: skip
    warm = taken("mlflow:sqlite:///x.db#mine", records=records)
    assert [c["lr"] for c in warm.enqueue] == pytest.approx([6e-3, 5e-3, 4e-3, 3e-3, 2e-3])
    assert [(t.trial_id, t.state.value) for t in warm.prior] == [("mine/t0", "complete"), ("mine/t6", "stopped")]
    assert warm.prior[0].config["epochs"] == 60
    assert taken("mlflow:x#mine", records=[{**r, "scored": None} for r in records]).prior == ()
    assert taken("mlflow:x#mine", records=[{**r, "fidelity": None} for r in records]).prior == ()
    small = taken("mlflow:x#mine", records=[{**r, "fidelity": SMALL} for r in records])
    assert ([c["lr"] for c in small.enqueue], small.prior) == ([pytest.approx(6e-3)], ())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "--warm-start nowhere: expected a run folder"),
        ("optuna:sqlite:///none.db", "add # and a name"),
        ("mlflow:#x", "add # and a name"),
    ],
)
def test_a_source_that_is_not_there_is_told(source: str, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpaceError, match=message):
        taken(source)


def test_a_missing_study_and_a_server_that_refuses_are_one_line(tmp_path: Path) -> None:
    def refuse(uri: str, name: str) -> Any:
        raise ValueError("expected a tracking store at x, found none that answers: no")

    optuna.create_study(storage=f"sqlite:///{tmp_path / 's.db'}", study_name="other")
    with pytest.raises(SpaceError, match="expected a study mine in"):
        taken(f"optuna:sqlite:///{tmp_path / 's.db'}#mine")
    with pytest.raises(SpaceError, match="expected a tracking store"):
        earlier_search("mlflow:x#y", Objective(), refuse, resolve, fidelity_of)


def test_a_space_that_nothing_fits_is_refused(tmp_path: Path) -> None:
    searched(tmp_path / "a")
    other = Space({"lr": Float(low=0.5, high=0.9)})
    with pytest.raises(SpaceError, match="expected configs of this space, found 9 of another"):
        taken(str(tmp_path / "a"), space=other)


def test_observations_carry_where_they_were_taken_from(tmp_path: Path) -> None:
    with Study.create(tmp_path / "j.sqlite", space=NARROW, ladder=RUNGS, optimizer="random", n_trials=1) as study:
        trial = study.next()
        assert trial is not None
        attempt = study.started(trial.trial_id)
        study.observe(trial.trial_id, replace(observed(0, 1.0), reused_from="a/t0001"), attempt)
    (known,) = Study.read(tmp_path / "j.sqlite").trials.values()
    assert known.observations[0].reused_from == "a/t0001"
