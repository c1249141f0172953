from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis import hypotheses as command
from analysis.reports import hypotheses
from analysis.reports.documented_claims import CLAIMS, Claim
from analysis.run_folder import RunFolder, write_plan, write_tables
from tests.analysis import fake_run
from tests.analysis.test_run_folder import row

BASE = {"use_in": True, "use_pe": True, "variable_attention": True, "patch": "none", "window_bars": 128}
N_DAYS = 8


def ablation(tmp_path, trials: list[tuple[dict[str, Any], float, float]], *, has_scale: bool = True) -> RunFolder:
    """A run of grok: trials as (changes of the base, skill, factor of CRPS) on minutes of New York sessions."""
    generator = np.random.default_rng(4)
    tmp_path.mkdir(exist_ok=True)
    write_plan(tmp_path, fake_run.plan(family="grok"))
    times = [
        datetime(2024, 1, 8 + day, 14, 31, tzinfo=UTC) + timedelta(minutes=5 * k)
        for day in range(N_DAYS)
        for k in range(78)
    ]
    n = len(times)
    volatility = np.exp(0.5 * np.repeat(generator.standard_normal(N_DAYS), 78))
    target, noise = volatility * generator.standard_normal(n), generator.standard_normal(n)
    rows, folds = [], []
    for number, (changes, skill, factor) in enumerate(trials):
        parameters = {f"param.{k}": v for k, v in {**BASE, **changes}.items()}
        rows.append(row(number, n_folds=1, **{"metric.val_loss": 1.0}, **parameters))
        folds.append({"trial_id": f"t{number:04d}", "fold": 0, "metric": "val_loss", "value": 1.0, "n_scored": n})
        evidence = {"timestamp": times, "loss": np.ones(n), "crps": factor * (1 + 0.1 * np.abs(noise))}
        for horizon in ("5m", "15m", "120m", "240m"):
            evidence[f"prediction_{horizon}"] = skill * target + noise
            evidence[f"target_{horizon}"] = target
            if has_scale:
                evidence[f"scale_{horizon}"] = volatility
        folder = tmp_path / "evidence" / f"t{number:04d}"
        folder.mkdir(parents=True)
        pl.DataFrame(evidence).write_parquet(folder / "fold-00.parquet")
    write_tables(tmp_path, rows, folds)
    return RunFolder(tmp_path)


def judged(run: RunFolder, name: str) -> list[hypotheses.Judged]:
    return [j for j in hypotheses.judge(run) if j.name == name]


@pytest.mark.requirement("HYP-1")
@pytest.mark.parametrize(("factor", "expected"), [(1.40, "supported"), (1.05, "not_supported")])
def test_unquiet_times_decide_about_normalisation(tmp_path, factor, expected):
    run = ablation(tmp_path, [({}, 0.2, 1.0), ({"use_in": False}, 0.2, factor)])
    (found,) = judged(run, "HYP-1")
    assert found.verdict == expected
    assert (found.base, found.ablated) == ("t0000", "t0001")
    assert found.found.value == pytest.approx(1 - 1 / factor)
    assert found.found.n_rows < N_DAYS * 78 / 2


@pytest.mark.requirement("HYP-2")
def test_the_longest_window_is_compared_with_each_shorter_one(tmp_path):
    run = ablation(tmp_path, [({}, 3.0, 1.0), ({"window_bars": 32}, 0.0, 1.0)])
    found = judged(run, "HYP-2")
    assert [f.verdict for f in found] == ["supported", "supported"]
    assert all((f.base, f.ablated) == ("t0000", "t0001") for f in found)


@pytest.mark.requirement("HYP-3")
def test_a_pair_differs_in_the_switch_alone(tmp_path):
    changes = [{}, {"variable_attention": False, "use_pe": False}, {"variable_attention": False}]
    run = ablation(tmp_path, [({}, 3.0, 1.0), (changes[1], 0.1, 1.0), (changes[2], 0.5, 1.0)])
    (found,) = judged(run, "HYP-3")
    assert (found.base, found.ablated, found.verdict) == ("t0000", "t0002", "supported")


@pytest.mark.requirement("HYP-4")
def test_a_spread_that_follows_volatility_is_supported_and_none_is_left_out(tmp_path):
    (found,) = judged(ablation(tmp_path / "a", [({}, 0.2, 1.0)]), "HYP-4")
    assert found.found.value > 0.3
    assert "Sharpe ratio of a row" in found.reason
    assert judged(ablation(tmp_path / "b", [({}, 0.2, 1.0)], has_scale=False), "HYP-4") == []


@pytest.mark.requirement("HYP-5")
def test_the_open_is_exactly_its_thirty_minutes(tmp_path):
    times = [datetime(2024, 7, 1, 13, 31, tzinfo=UTC) + timedelta(minutes=k) for k in range(390)]
    rows = pl.DataFrame({"timestamp": times})
    chosen = rows.filter(hypotheses.SELECT["open"](rows))["timestamp"]
    assert len(chosen) == 30
    assert chosen[0] == times[0]  # the bar from 09:30 to 09:31 is decided upon at its end
    closing = rows.filter(hypotheses.SELECT["close"](rows))["timestamp"]
    assert (len(closing), closing[-1]) == (30, times[-1])


@pytest.mark.requirement("HYP-6")
def test_mixed_kinds_of_a_parameter_are_read_as_they_were(tmp_path):
    run = ablation(tmp_path, [({}, 3.0, 1.0), ({"patch": 8}, 0.3, 1.0)])
    assert run.trials["param.patch"].dtype == pl.String
    assert {f.verdict for f in judged(run, "HYP-6")} == {"supported"}


@pytest.mark.requirement("HYP-7")
def test_a_measure_that_was_not_recorded_is_named(tmp_path):
    run = ablation(tmp_path, [({"lgu": True}, 1.0, 1.0), ({"lgu": False}, 1.0, 1.0)])
    (found,) = judged(run, "HYP-7")
    assert (found.verdict, found.reason) == ("inconclusive", "not recorded: grad_norm_variance")


def test_a_switch_that_does_not_vary_is_not_asked_about(tmp_path):
    assert {j.name for j in hypotheses.judge(ablation(tmp_path, [({}, 1.0, 1.0)]))} == {"HYP-4"}


def test_without_a_pair_the_reason_is_given(tmp_path):
    changes = {"use_in": False, "patch": 8}
    (found,) = judged(ablation(tmp_path, [({}, 1.0, 1.0), (changes, 1.0, 1.0)]), "HYP-1")
    assert (found.verdict, found.reason) == ("inconclusive", "no two complete trials differ in it alone")


@pytest.mark.requirement("HYP-8")
def test_every_module_of_condor_has_a_claim():
    switches = {name for claim in CLAIMS if claim.family == "condor" for name in claim.ablated}
    assert switches == {"loss", "vol_gated_attn", "moe", "feature_schema", "tda"}
    assert all(isinstance(c, Claim) and c.base.keys() == c.ablated.keys() for c in CLAIMS)


def test_the_command_prints_and_keeps_what_it_found(tmp_path, capsys):
    run = ablation(tmp_path, [({}, 0.2, 1.0), ({"use_in": False}, 0.2, 1.4)])
    assert command.main([str(run.path)]) == 0
    assert "supported" in capsys.readouterr().out
    assert command.main([str(run.path), "--json"]) == 0
    kept = json.loads((run.path / command.FILE).read_text())
    assert json.loads(capsys.readouterr().out) == kept
    assert command.main([str(tmp_path / "nothing")]) == 2
