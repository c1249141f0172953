from dataclasses import replace

import pytest

from analysis.measures.ic import IcEstimate
from analysis.reports import amounts, leaderboard, verdict
from analysis.reports.honesty import Honesty
from analysis.reports.skill import Skill
from analysis.run_folder import EvidenceCheck, RunFolder, inherited_trials
from tests.analysis import fake_run
from tests.analysis.reports.test_leaderboard import loss, run_of
from tests.analysis.test_run_folder import row

WHOLE = EvidenceCheck(n_expected=2, missing=(), broken=())


def written(run, skills=None, ics=None, check=WHOLE):
    silent = Honesty(finding="nothing")
    found = verdict.write(run.plan, leaderboard.build(run), check, skills, ics or {}, silent)
    return found.headline, " ".join(found.sentences), " ".join(found.warnings)


def test_a_winner_is_named_only_where_nobody_is_near(tmp_path):
    headline, text, _ = written(run_of(tmp_path, [loss(0, 1.0), loss(1, 2.0)]))
    assert headline == "t0000 leads; no other trial lies within one standard error of it."
    assert "a hint, not a proof" in text
    headline, text, _ = written(run_of(tmp_path, [loss(0, 1.0, 0.5), loss(1, 1.2, 0.5), loss(2, 9.0)]))
    assert headline.startswith("No single winner: t0000 and t0001 share")
    assert "lie 2 of 3 complete trials: t0000 and t0001" in text


def test_trials_of_an_earlier_search_on_these_folds_are_told_and_counted(tmp_path):
    run = run_of(tmp_path, [loss(0, 1.0), loss(1, 2.0)])
    run.plan = replace(run.plan, more={**run.plan.more, "inherited_trials": 36})
    assert inherited_trials(run.plan) == 36
    assert "An earlier search on these folds had tried 36 more" in written(run)[1]


def test_a_leader_by_a_later_criterion_is_explained(tmp_path):
    trials = [loss(0, 1.0, 0.5, **{"metric.ic": 0.0}), loss(1, 1.2, 0.5, **{"metric.ic": 0.3, "metric.ic.se": 0.1})]
    headline, text, _ = written(run_of(tmp_path, trials))
    assert headline == "t0001 leads, but 1 other trial cannot be told apart from the best."
    assert "The lowest loss is that of t0000, 1.00 ± 0.50; t0001 lies within its standard error" in text
    assert "decide (IC)" in text


@pytest.mark.parametrize(
    ("trials", "headline"),
    [
        ([], "No trial completed"),
        ([row(0, state="failed", n_folds=0)], "No trial completed"),
        ([loss(0, 1.0)], "t0000 is the only complete trial"),
    ],
)
def test_runs_with_little_in_them(tmp_path, trials, headline):
    found, text, _ = written(run_of(tmp_path, trials))
    assert found.startswith(headline)
    assert "vault (final test period 2018-07-01 to 2019-01-01) is unopened" in text


def test_one_fold_gives_no_standard_error_and_says_so(tmp_path):
    trials = [loss(0, 1.0, None, n_folds=1), loss(1, 2.0, None, n_folds=1)]
    _, text, warnings = written(run_of(tmp_path, trials))
    assert "With one fold there is no standard error" in text
    assert "Only 1 fold:" in warnings


def test_skill_and_correlation_are_told_with_their_uncertainty(tmp_path):
    better = Skill(measure="CRPS at 1d", baseline="a naive forecast", reduction=0.021, t=0.9, p=0.37, n_rows=630)
    estimate = IcEstimate(value=0.05, error=0.01, degrees_of_freedom=40, n_rows=630, n_independent=630)
    _, text, _ = written(run_of(tmp_path, [loss(0, 1.0)]), [better], {"1d": estimate})
    assert "CRPS at 1d is 2.1% lower than that of a naive forecast (630 rows; t = 0.9: cannot be told apart)" in text
    assert "+0.050 at 1d (t = 5.0: differs from zero)" in text
    _, text, _ = written(run_of(tmp_path, [loss(0, 1.0)]), [replace(better, reduction=-0.3, p=0.001, t=-4.0)])
    assert "30.0% higher than that of a naive forecast (630 rows; t = -4.0: they differ)" in text
    assert "not compared with a naive forecast" in written(run_of(tmp_path, [loss(0, 1.0)]), [])[1]
    assert "no usable evidence" in written(run_of(tmp_path, [loss(0, 1.0)]), None)[1]


def test_what_weakens_a_run_is_warned_of(tmp_path):
    trials = [loss(0, 1.0, **{"param.norm_scope": "global_documented"}), loss(1, 2.0)]
    check = EvidenceCheck(n_expected=2, missing=("t0001",), broken=(("evidence/t0000/fold-00.parquet", "cut short"),))
    run = run_of(tmp_path, trials, ended_utc=None, commit="0123+", vault={"start": "a", "end": "b"})
    _, _, warnings = written(run, check=check)
    for words in ("has not ended", "Leaky normaliser", "missing for 1 of 2 trials: t0001", "cut short", "uncommitted"):
        assert words in warnings


def test_numbers_end_where_their_error_begins(tmp_path):
    trials = [loss(0, 1.23456, 0.0999), loss(1, 1.23456, 0.000123), loss(2, 1.23456, None)]
    entries = {e.trial_id: e for e in leaderboard.build(run_of(tmp_path, trials)).ranked}
    texts = [amounts.amount(entries[f"t000{k}"], "val_loss") for k in range(3)]
    assert texts == ["1.23 ± 0.10", "1.23456 ± 0.00012", "1.235"]
    assert amounts.amount(entries["t0000"], "ic") == "–"


def test_a_realistic_run_reads_as_sentences(tmp_path):
    run = RunFolder(fake_run.write(tmp_path / "run"))
    _, text, _ = written(run)
    assert text.startswith("35 trials on 6 walk-forward folds (validation 2006-01-01 to 2009-01-01): 15 stopped")
    assert "None" not in text
    assert "nan" not in text
