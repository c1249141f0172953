import json
import math
import re
import shutil
import subprocess

import numpy as np
import polars as pl
import pytest

from analysis import report
from analysis.reports import leaderboard, page, plots
from analysis.run_folder import RunFolder
from tests.analysis import fake_run
from tests.analysis.reports.test_leaderboard import loss, run_of
from tests.analysis.test_run_folder import row

FIGURES = {
    *("leaderboard", "confidence", "folds", "flatness", "pareto", "calibration", "ic_horizon", "ic_time"),
    *("importance", "slices", "parallel", "stability", "history", "lineage", "cost"),
}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = RunFolder(fake_run.write(tmp_path_factory.mktemp("page") / "run"))
    page.write(run)
    return run


@pytest.fixture(scope="module")
def html(run):
    return (run.path / "report.html").read_text(encoding="utf-8")


def without_plotly(html: str) -> str:
    return html.replace(str(page._plotly()), "")


@pytest.mark.requirement("RANK-2")
def test_every_figure_has_its_place_and_its_data(html):
    figures = json.loads(re.search(r"const figures = (.*);\n", without_plotly(html)).group(1))
    assert set(figures) == FIGURES
    for name in figures:
        assert f'id="{name}"' in html
        assert figures[name]["data"]


def test_the_page_needs_no_network(html):
    own = without_plotly(html)
    assert len(own) < len(html) - 1_000_000  # plotly is in it, once
    assert not re.search(r"(src|href)\s*=|@import|url\(", own)


def test_text_of_trials_cannot_become_markup(html):
    own = without_plotly(html)
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in own
    assert "</script><b>" not in own


def test_marks_and_verdict_come_before_any_table(html):
    body = without_plotly(html)
    assert body.index("modelled by Black-Scholes") < body.index("<table")
    assert body.index("trials on 6 walk-forward folds") < body.index("<table")
    assert body.index("is unopened") < body.index("<table")


def test_trials_that_did_not_rank_are_listed_with_reason_and_folds(html):
    assert "worker died 3 times" in html
    assert re.search(r"stopped early</td><td class=\"number\">3 of 6", html)


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [row(0, state="failed", n_folds=0, reason="ValueError")],
        [row(0, state="stopped", n_folds=1, **{"metric.val_loss": 1.0})],
        [loss(0, 1.0)],
        [loss(0, 1.0, None, n_folds=1), loss(1, 1.0, None, n_folds=1)],
        [loss(0, 1.0, 0.0, **{"metric.flatness": -1.0, "metric.ic": 0.0}), loss(1, 1.0, 0.0, **{"param.a": None})],
    ],
    ids=["none", "failed", "stopped", "one", "one_fold", "constant"],
)
def test_runs_with_little_in_them_have_a_page(tmp_path, trials):
    assert "<h1>" in page.render(run_of(tmp_path, trials), leaderboard.build(run_of(tmp_path, trials)))


def test_leader_with_broken_evidence_is_not_compared(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    leader = leaderboard.build(run).leader.trial_id
    cut = run.path / "evidence" / leader / "fold-01.parquet"
    cut.write_bytes(cut.read_bytes()[:100])
    html = page.render(run, leaderboard.build(run))
    assert "no usable evidence" in html
    assert f"evidence/{leader}/fold-01.parquet" in html


def test_leader_with_infinite_predictions_is_not_compared(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    file = run.path / "evidence" / leaderboard.build(run).leader.trial_id / "fold-00.parquet"
    pl.read_parquet(file).with_columns(pl.lit(math.inf, pl.Float32).alias("prediction_1d")).write_parquet(file)
    assert "no usable evidence" in page.render(run, leaderboard.build(run))


def test_timestamps_may_be_nanoseconds_as_numbers(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    for file in (run.path / "evidence" / leaderboard.build(run).leader.trial_id).iterdir():
        pl.read_parquet(file).with_columns(pl.col("timestamp").dt.epoch("ns")).write_parquet(file)
    assert "rank correlation with what happened" in page.render(run, leaderboard.build(run))


def test_inactive_parameters_have_a_tick_of_their_own(run):
    figure = plots.parallel_coordinates(leaderboard.build(run), run.parameters)
    (axis,) = [d for d in figure.data[0].dimensions if d.label == "moe_n_experts"]
    assert axis.ticktext[0] == "–"
    assert 0 in axis.values


def test_heat_map_is_the_distance_to_the_median_complete_trial(run):
    figure = plots.fold_heat_map(leaderboard.build(run), run.folds, ["val_loss"])
    n_ranked = len(leaderboard.build(run).ranked)
    for gaps in figure.data[0].z:
        ranked = sorted(gaps[:n_ranked])
        assert ranked[n_ranked // 2 - 1] + ranked[n_ranked // 2] == pytest.approx(0.0, abs=1e-12)


def test_a_few_bad_trials_do_not_set_the_colours_of_the_heat_map(run):
    board = leaderboard.build(run)
    bad = [e.trial_id for e in board.ranked[:4]]
    worse = pl.when(pl.col("trial_id").is_in(bad)).then(pl.col("value") + 100.0).otherwise(pl.col("value"))
    plain, spoilt = (
        plots.fold_heat_map(board, folds, ["val_loss"]).data[0] for folds in (run.folds, run.folds.with_columns(worse))
    )
    assert plain.zmax == pytest.approx(3 * np.nanmedian(np.abs(np.array(plain.z, dtype=float))))
    assert spoilt.zmax < 2 * plain.zmax
    assert (spoilt.zmin, spoilt.zmid) == (-spoilt.zmax, 0)
    assert spoilt.colorbar.ticktext[-1] == f"≥ {spoilt.zmax:.2g}"


def test_command_writes_the_page_again(run, capsys):
    (run.path / "report.html").unlink()
    assert report.main([str(run.path)]) == 0
    assert (run.path / "report.html").is_file()
    assert capsys.readouterr().out.strip().endswith("report.html")


def test_command_refuses_what_is_no_run(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "plan.json: expected a plan" in error


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_all_figures_and_needs_no_scrolling_at_1280_pixels(run, tmp_path):
    page.write(run)
    widths = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth + '/' + e.clientWidth).join(' ')"
    html = (run.path / "report.html").read_text(encoding="utf-8") + f"<script>document.title = {widths}</script>"
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    command += ["--window-size=1280,900", "--virtual-time-budget=8000", "--dump-dom"]
    command += [(tmp_path / "report.html").resolve().as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    drawn = set(re.findall(r'<div class="plot js-plotly-plot" id="(\w+)"', dom))
    assert drawn == FIGURES
    for width in re.search("<title>(.*)</title>", dom).group(1).split():
        assert len(set(width.split("/"))) == 1


def spoil(run_dir, function):
    for file in run_dir.glob("evidence/*/fold-*.parquet"):
        function(pl.read_parquet(file)).write_parquet(file)
    return RunFolder(run_dir)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda frame: frame.with_columns(prediction_1d=pl.lit(0.0, pl.Float32)), "Their forecast never changes"),
        (lambda frame: frame.with_columns(loss=pl.lit(1.0, pl.Float32)), "their loss never changes"),
        (lambda frame: frame.drop("prediction_1d", "scale_1d"), "holds nothing naive to compare them with"),
        (lambda frame: frame.head(3), "<h1>"),
        (lambda frame: frame.drop("loss"), "evidence cannot be used"),
    ],
    ids=["constant prediction", "constant loss", "loss only", "three rows", "no loss"],
)
def test_poor_evidence_has_a_page_that_says_so(tmp_path, function, words):
    run = spoil(fake_run.write(tmp_path / "run", states=("complete",) * 4), function)
    assert words in page.render(run, leaderboard.build(run))


@pytest.mark.parametrize(
    ("states", "n_folds"),
    [
        (("complete",), 6),
        (("complete",) * 3, 1),
        (("stopped",) * 4, 6),
        (("failed", "diverged"), 6),
        (("complete",) * 2, 2),
    ],
    ids=["one trial", "one fold", "all stopped", "all failed", "two and two"],
)
def test_small_runs_have_a_page_without_a_winner(tmp_path, states, n_folds):
    run = RunFolder(fake_run.write(tmp_path / "run", states=states, n_folds=n_folds))
    html = without_plotly(page.render(run, leaderboard.build(run)))
    headline = re.search(r"<h1>(.*)</h1>", html).group(1)
    assert headline.startswith(
        ("No winner", "No single winner", "No trial completed", "t0000, the only complete trial, beats")
    )
    assert not re.search(r"\b(nan|None)\b", html[html.index("<h1>") : html.index("</ul>")])


@pytest.mark.requirement("SEARCH-17")
def test_the_page_says_how_much_of_the_best_is_luck(html):
    text = without_plotly(html)
    for words in (
        "deflated z of the lowest loss",
        "best against the median trial",
        "34 started",
        "backtest overfitting",
    ):
        assert words in text


@pytest.mark.requirement("ANALYSIS-12")
def test_the_page_diagnoses_overfitting(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run", states=("complete",) * 5))
    folds = run.folds.with_columns(
        value=pl.when(pl.col("metric") == "train_loss").then(pl.lit(0.2)).otherwise(pl.col("value"))
    )
    folds.write_parquet(run.path / "folds.parquet")
    run = RunFolder(run.path)
    html = without_plotly(page.render(run, leaderboard.build(run)))
    assert re.search(r"<td>overfitting</td><td class=\"number\">5</td>", html)


def test_best_trials_at_the_end_of_a_range_are_warned_of(tmp_path):
    run_dir = fake_run.write(tmp_path / "run", states=("complete",) * 20)
    trials = pl.read_parquet(run_dir / "trials.parquet").sort("metric.val_loss")
    rates = [9.9e-3] * 10 + [1e-4 * (1 + k) for k in range(10)]
    trials.with_columns(pl.Series("param.lr", rates), pl.lit(1).alias("metric.val_loss.se") * 0.0).write_parquet(
        run_dir / "trials.parquet"
    )
    (run_dir / "space.yaml").write_text("parameters:\n  lr: {type: float, low: 1e-5, high: 1e-2, log: true}\n")
    html = page.render(RunFolder(run_dir), leaderboard.build(RunFolder(run_dir)))
    assert "the best 5 trials have lr at its upper end (0.01)" in html
    (run_dir / "space.yaml").write_text("parameters:\n  lr: {type: float, low: 1e-5, high: 1.0, log: true}\n")
    assert "Edge of the range" not in page.render(RunFolder(run_dir), leaderboard.build(RunFolder(run_dir)))
    (run_dir / "space.yaml").write_text("parameters: [\n")
    assert "<h1>" in page.render(RunFolder(run_dir), leaderboard.build(RunFolder(run_dir)))


def test_an_evidence_file_of_a_newer_plan_is_refused(tmp_path):
    run_dir = fake_run.write(tmp_path / "run", states=("complete",))
    plan = json.loads((run_dir / "plan.json").read_text()) | {"format": 99}
    (run_dir / "plan.json").write_text(json.dumps(plan))
    assert report.main([str(run_dir)]) == 2
