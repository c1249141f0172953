from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis import vault
from analysis.measures.ic import spearman
from analysis.reports import console, final, honesty, page
from analysis.run_folder import RunFolder, RunFolderError
from tests.analysis import fake_run


@pytest.fixture
def run(tmp_path):
    return RunFolder(fake_run.write(tmp_path / "run"))


def entry(trial_ids: list[str], number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "number": number,
        "time_utc": f"2026-0{number}-02T10:00:00+00:00",
        "who": "ada@lab",
        "choice": "leader",
        "trial_ids": trial_ids,
        "n_trials": 35,
        "n_scored": 126,
        "scores": {name: {"val_loss": 1.5, "ic": 0.2} for name in trial_ids},
        **changes,
    }


def score(run: RunFolder, trial_id: str, skill: float, number: int = 1) -> pl.DataFrame:
    """Write evidence of a trial on the vault, with or without skill."""
    shocks = np.random.default_rng(5).standard_normal((1, 126)) * 0.011
    rows = fake_run.fold_evidence(np.random.default_rng(9), 0, skill, shocks)
    rows = rows.with_columns(pl.col("timestamp").dt.offset_by("12y"))
    folder = vault.folder(run.path, number) / "evidence" / trial_id
    folder.mkdir(parents=True)
    rows.write_parquet(folder / "fold-00.parquet")
    return rows


def leader(run: RunFolder) -> str:
    return vault.choose(run, "leader")[0]


def test_the_leader_the_set_or_named_trials_are_chosen(run):
    board_first = leader(run)
    members = vault.choose(run, "confidence_set")
    assert members
    assert set(members) <= set(run.trials.filter(pl.col("state") == "complete")["trial_id"])
    assert vault.choose(run, f"{members[-1]},{board_first}") == (members[-1], board_first)
    stopped = run.trials.filter(pl.col("state") == "stopped")["trial_id"][0]
    with pytest.raises(ValueError, match=f"found {stopped}; see ranking.csv"):
        vault.choose(run, stopped)


def test_choice_report_and_ledger_count_the_same_trials(tmp_path, monkeypatch, capsys):
    run = RunFolder(
        fake_run.write(tmp_path / "run", states=(*["complete"] * 4, "infeasible", "failed"), inherited_trials=9)
    )
    counted = []
    assess = honesty.assess

    def note(evidence, *, n_started, **more):
        counted.append(n_started)
        return assess(evidence, n_started=n_started, **more)

    monkeypatch.setattr(honesty, "assess", note)
    vault.choose(run, "confidence_set")
    vault.write_ledger(run.path, [entry([leader(run)], n_trials=run.n_tried)])
    _, said = page.write(run)
    console.show_final(run, vault.read_ledger(run.path), [])
    assert counted == [5 + 9, 5 + 9]
    assert "started after the vault" not in " ".join(said.warnings) + capsys.readouterr().out


def test_a_run_without_complete_trials_has_nothing_to_score(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run", states=("failed", "stopped")))
    with pytest.raises(ValueError, match="expected a complete trial"):
        vault.choose(run, "leader")


def test_an_unopened_vault_says_so(run):
    assert vault.read_ledger(run.path) == []
    assert vault.scores(run) == []
    assert "is unopened" in final.sentences(run.plan, [], [])[0]


def test_the_scores_are_those_of_the_rows(run):
    name = leader(run)
    rows = score(run, name, skill=0.9)
    vault.write_ledger(run.path, [entry([name])])
    (found,) = vault.scores(run)
    assert found.loss.mean == pytest.approx(rows["loss"].cast(pl.Float64).mean())
    assert found.ic.value == pytest.approx(spearman(rows["prediction_1d"], rows["target_1d"]))
    assert found.validation["val_loss"] == run.trials.filter(pl.col("trial_id") == name)["metric.val_loss"][0]
    assert found.measure == "CRPS at 1d"
    assert found.saving.n_rows == 126


@pytest.mark.requirement("SEARCH-17")
def test_who_opened_it_when_and_after_how_many_trials_is_in_the_report(run):
    name = leader(run)
    score(run, name, skill=0.9)
    vault.write_ledger(run.path, [entry([name])])
    _, said = page.write(run)
    html = (run.path / "report.html").read_text(encoding="utf-8")
    text = " ".join(said.sentences)
    assert f"opened once on 2026-01-02 by ada@lab, for the leader ({name}), after 35 trials" in text
    assert f"On it, {name} has loss" in text
    assert "<h2>Final test</h2>" in html
    assert not any("opened 2 times" in warning for warning in said.warnings)


@pytest.mark.requirement("SEARCH-17")
def test_a_second_opening_and_later_trials_show_in_every_later_report(run):
    name = leader(run)
    score(run, name, skill=0.0, number=2)
    vault.write_ledger(run.path, [entry([name], n_trials=30), entry([name], number=2)])
    _, said = page.write(run)
    warnings = " ".join(said.warnings)
    assert "The vault was opened 2 times (before: 2026-01-02 by ada@lab" in warnings
    assert f"{run.n_tried - 30} trials were started after the vault had been opened" in warnings


def test_missing_rows_leave_the_means_of_the_ledger(run, capsys):
    name = leader(run)
    vault.write_ledger(run.path, [entry([name])])
    (found,) = vault.scores(run)
    assert (found.loss, found.ic, found.saving) == (None, None, None)
    assert final.cells(found)[2] == "1.5"
    console.show_final(run, vault.read_ledger(run.path), [found])
    assert "after 35 trials" in " ".join(capsys.readouterr().out.split())


def test_a_damaged_ledger_is_named(run):
    (run.path / vault.LEDGER).write_text('[{"number": 1}]')
    with pytest.raises(RunFolderError, match=r"vault\.json: expected the ledger"):
        vault.read_ledger(run.path)
