"""Runs with little or damaged in them, each with every section that a page can have, through the command itself."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest

from analysis import report, vault
from analysis.reports import flat, leaderboard
from analysis.run_folder import RunFolder
from tests.analysis import fake_run
from tests.analysis.reports.test_page import without_plotly
from tests.analysis.test_vault import entry, score


def write(run_dir, states=("complete",) * 10 + ("stopped",) * 3, *, n_folds=4, is_opened=True):
    """A run with all measures of flatness, an earlier search on its folds and, where a trial ranks, an open vault."""
    fake_run.write(run_dir, states=states, n_folds=n_folds, inherited_trials=12)
    generator = np.random.default_rng(1)
    folds, trials = (pl.read_parquet(run_dir / f"{name}.parquet") for name in ("folds", "trials"))
    losses = folds.filter(pl.col("metric") == "val_loss") if "metric" in folds.columns else folds.clear()
    for measure in set(flat.MEASURES) - {"flatness"} if len(losses) else ():
        values = pl.Series("value", generator.lognormal(size=len(losses)))
        folds = pl.concat([folds, losses.with_columns(pl.lit(measure).alias("metric"), values)])
        means = pl.Series(f"metric.{measure}", generator.lognormal(size=len(trials)))
        trials = trials.with_columns(pl.when(pl.col("n_folds") > 0).then(means).alias(f"metric.{measure}"))
    folds.write_parquet(run_dir / "folds.parquet")
    trials.write_parquet(run_dir / "trials.parquet")
    run = RunFolder(run_dir)
    leader = leaderboard.build(run).leader
    if leader is not None and is_opened:
        score(run, leader.trial_id, 0.05)
        vault.write_ledger(run_dir, [entry([leader.trial_id])])
    return run_dir


def told(run_dir):
    """Write the page by the command and return it without the code of plotly."""
    assert report.main([str(run_dir)]) == 0
    html = without_plotly((run_dir / "report.html").read_text(encoding="utf-8"))
    verdict = html[html.index("<h1>") : html.index("<noscript>")]
    assert not re.search(r"\b(nan|None|inf)\b", verdict)
    return html


def each(function):
    """Return what rewrites every evidence file of the folds."""

    def spoil(run_dir):
        for file in sorted(run_dir.glob("evidence/*/fold-*.parquet")):
            function(pl.read_parquet(file), int(file.stem[5:])).write_parquet(file)

    return spoil


@pytest.mark.parametrize(
    ("states", "n_folds"),
    [
        (("complete",), 4),
        (("complete",) * 10, 1),
        (("complete",), 1),
        (("stopped",) * 5, 4),
        (("failed", "diverged", "out_of_memory", "infeasible", "lost"), 4),
    ],
    ids=["one trial", "one fold", "one and one", "all pruned", "all failed"],
)
def test_small_runs_announce_no_winner_in_any_section(tmp_path, states, n_folds):
    html = told(write(tmp_path / "run", states, n_folds=n_folds))
    headline = re.search(r"<h1>(.*)</h1>", html).group(1)
    assert headline.startswith(("No winner", "No single winner", "No trial completed")) or len(states) == 1
    assert "An earlier search on these folds had tried 12 more" in html
    assert ("<h2>Final test</h2>" in html) == ("complete" in states)
    assert "so</th>" not in html or n_folds > 1  # one fold has no next


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            each(lambda rows, _: rows.with_columns(prediction_1d=pl.lit(0.0, pl.Float32))),
            "Their forecast never changes",
        ),
        (each(lambda rows, _: rows.with_columns(loss=pl.lit(1.0, pl.Float32))), "their loss never changes"),
        (each(lambda rows, _: rows.with_columns(target_1d=pl.lit(0.0, pl.Float32))), "<h1>"),
        (each(lambda rows, fold: rows.head(3 if fold % 2 else 126)), "common timestamps"),
        (each(lambda rows, _: rows.rename({"loss": "nll"})), "evidence cannot be used"),
        (each(lambda rows, _: rows.with_columns(pl.col("timestamp").cast(pl.String))), "evidence cannot be used"),
        (each(lambda rows, _: rows.clear()), "evidence cannot be used"),
    ],
    ids=[
        "constant prediction",
        "zero variance",
        "constant outcome",
        "lengths",
        "another schema",
        "text times",
        "empty",
    ],
)
def test_poor_evidence_of_all_trials_is_survived_and_said(tmp_path, spoil, words):
    run_dir = write(tmp_path / "run")
    spoil(run_dir)
    html = told(run_dir)
    assert words in html
    assert re.search(r"<h1>No (single )?winner|<h1>t\d+ leads", html)


def test_trials_without_evidence_or_with_a_cut_file_are_named_and_counted(tmp_path):
    run_dir = write(tmp_path / "run")
    *_, gone, cut = (e.trial_id for e in leaderboard.build(RunFolder(run_dir)).ranked)
    for file in (run_dir / "evidence" / gone).iterdir():
        file.unlink()
    file = run_dir / "evidence" / cut / "fold-01.parquet"
    file.write_bytes(file.read_bytes()[:200])
    html = told(run_dir)
    assert f"Evidence is missing for 1 of 13 trials: {gone}" in html
    assert f"evidence/{cut}/fold-01.parquet" in html
    assert "common timestamps of 8 trials" in html


@pytest.mark.parametrize("is_lost", [True, False], ids=["gone", "cut"])
def test_a_final_test_without_its_rows_keeps_the_numbers_of_the_ledger(tmp_path, is_lost):
    run_dir = write(tmp_path / "run")
    (file,) = run_dir.glob("final/01/evidence/*/fold-00.parquet")
    file.unlink() if is_lost else file.write_bytes(file.read_bytes()[:50])
    assert re.search(r"<td class=\"number\">1\.5</td>", told(run_dir))


def test_a_ledger_of_another_run_is_refused_in_one_line(tmp_path, capsys):
    run_dir = write(tmp_path / "run", is_opened=False)
    vault.write_ledger(run_dir, [entry(["t9999"])])
    assert report.main([str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "t9999" in error


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: (d / "trials.parquet").write_bytes(b"PAR1"), "trials.parquet"),
        (lambda d: (d / "folds.parquet").unlink(), "folds.parquet"),
        (lambda d: pl.read_parquet(d / "trials.parquet").drop("state").write_parquet(d / "trials.parquet"), "state"),
        (lambda d: (d / "vault.json").write_text(json.dumps([{"number": 1}])), "vault.json"),
        (lambda d: (d / "plan.json").write_text("{"), "plan.json"),
    ],
    ids=["trials cut", "no folds", "another schema", "another ledger", "plan cut"],
)
def test_damaged_tables_are_refused_in_one_line(tmp_path, capsys, damage, words):
    run_dir = write(tmp_path / "run", ("complete",) * 2)
    damage(run_dir)
    assert report.main([str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
