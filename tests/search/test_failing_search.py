"""A search whose every trial fails, through the real command line but for Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.run import main
from search.study import Study
from search.trial import TrialState


@pytest.mark.requirement("SEARCH-9")
def test_a_search_in_which_all_trials_fail_stops_says_why_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_all(study: Study, *_: Any, **__: Any) -> str:
        while (trial := study.next()) is not None:
            study.started(trial.trial_id)
            study.finish(trial.trial_id, TrialState.FAILED, "KeyError: 'close'")
        return "finished"

    monkeypatch.setattr("cluster.ray_tune.run_study", fail_all)
    out = tmp_path / "run"
    arguments = ["--space", "spaces/mlp.yaml", "--profile", "smoke", "--seed", "3", "--num-samples", "40"]
    code = main([*arguments, "--set", "tracking.enabled=false", "--out", str(out)])
    said = capsys.readouterr().out
    assert code == 1
    assert "the search stopped: budget.give_up_after: all of the first 10 trials failed" in " ".join(said.split())
    assert "KeyError: 'close'" in said
    assert said.splitlines()[-1] == str(out)
    assert len(Study.read(out / "journal.sqlite").trials) == 10
