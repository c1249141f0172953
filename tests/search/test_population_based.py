"""Population-based training: who inherits what, and that all of it can be replayed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.lineage import inherited_from
from search.objective import Constraint
from search.optimizers import Proposal
from search.optimizers.population_based import population_based
from search.replay import replay
from search.study import Study
from search.trial import Decision, Observation, TrialState, ladder
from tests.search.toy_search import OBJECTIVES, RUNGS, SPACE, loss_of, observed, running

GENES = ["lr", "dropout"]
PBT = {"name": "population_based", "genes": GENES, "quantile": 0.5}


@given(st.sets(st.integers(0, 6)), st.integers(1, 7))
def test_weights_come_from_the_same_fold_or_an_earlier_one(complete: set[int], n_folds: int) -> None:
    parent = running(3, {})
    for fold in complete:
        seen = Observation(rung=fold, fold=fold, share=1.0, metrics={"val_loss": 1.0}, n_scored=1, seconds=0.0)
        parent = parent.observed(seen)
    parent = parent.observed(Observation(rung=7, fold=9, share=0.5, metrics={}, n_scored=1, seconds=0.0))
    found = inherited_from(parent, ladder(n_folds, 2))
    assert found["trial_id"] == "t0003"
    pairs = dict(found["folds"])
    for fold in range(n_folds):
        earlier = [known for known in complete if known <= fold]
        assert pairs.get(fold) == (max(earlier) if earlier else None)


def test_children_keep_what_weights_depend_on_and_come_from_good_parents() -> None:
    search = population_based(SPACE, objectives=OBJECTIVES, population=4, seed=0, genes=GENES)
    proposals: list[Proposal] = []
    parents = {}
    for number in range(40):
        proposal = search.ask(number, number)
        proposals.append(proposal)
        trial = running(number, proposal.config, [loss_of(proposal.config)] * 4, state=TrialState.COMPLETE)
        parents[trial.trial_id] = trial
        search.tell(trial)
    assert all(not p.inherit and p.origin == "random" for p in proposals[:4])
    children = [p for p in proposals if p.inherit]
    assert len(children) >= 30
    for child in children:
        parent = parents[child.inherit].config
        assert child.parents == (child.inherit,)
        assert {n: v for n, v in child.config.items() if n not in GENES} == {
            n: v for n, v in parent.items() if n not in GENES
        }
        assert child.config != parent
    chosen = [loss_of(parents[c.inherit].config) for c in children]
    assert sum(chosen) / len(chosen) < sum(loss_of(t.config) for t in parents.values()) / len(parents)


def test_trials_without_weights_are_nobodys_parents() -> None:
    search = population_based(SPACE, objectives=OBJECTIVES, population=1, seed=0, genes=GENES)
    config = search.ask(0, 0).config
    earlier = running(0, config, [1.0], state=TrialState.COMPLETE)
    for number, state in ((-1, TrialState.COMPLETE), (1, TrialState.FAILED), (2, TrialState.OUT_OF_MEMORY)):
        search.tell(running(number, config, [1.0], state=state) if number >= 0 else _numbered(earlier, number))
    assert search.ask(3, 1).inherit == ""


def _numbered(trial: Any, number: int) -> Any:
    from dataclasses import replace

    return replace(trial, number=number)


@given(st.data())
@settings(max_examples=15, deadline=None)
@pytest.mark.requirement("REPRO-1")
def test_any_interleaving_with_reuse_constraints_and_kills_replays(data: st.DataObject) -> None:
    """Results in any order, taken over or trained, slow models, kills at any event: replay says the same."""
    rule = data.draw(st.sampled_from(["none", "asha", "dominated"]))
    arguments: dict[str, Any] = {
        "space": SPACE, "ladder": RUNGS, "optimizer": PBT, "stopping": rule, "n_trials": 9, "population": 3, "seed": 4,
        "constraints": [Constraint("latency_ms", "max", 9.0)], "defaults": {"dropout": 0.0},
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        study = Study.create(path, **arguments)
        waiting: list[str] = []
        for _ in range(60):
            what = data.draw(st.sampled_from(["ask", "report", "report", "report", "kill"]))
            if what == "kill":
                study.close()
                study = Study.resume(path, **arguments)
                waiting = []
            elif what == "ask" and len(waiting) < 3:
                trial = study.next()
                if trial is not None and trial.trial_id not in waiting:
                    study.started(trial.trial_id)
                    waiting.append(trial.trial_id)
            elif waiting:
                trial_id = data.draw(st.sampled_from(waiting))
                if not reported(study, trial_id, data):
                    waiting.remove(trial_id)
        before = dict(study.trials)
        study.close()
        assert replay(path).difference is None
        assert Study.read(path).trials == before
        for trial in before.values():
            for fold, source in dict(trial.inherit.get("folds", [])).items():
                assert source <= fold
                assert source in before[trial.inherit["trial_id"]].by_fold()


def reported(study: Study, trial_id: str, data: st.DataObject) -> bool:
    """Report the next rung of a trial, or its end; return whether it goes on."""
    trial = study.trials[trial_id]
    if data.draw(st.integers(0, 9)) == 0:
        study.finish(trial_id, TrialState.OUT_OF_MEMORY, "full")
        return False
    rung = len(trial.observations)
    latency = data.draw(st.sampled_from([1.0, 5.0, 12.0]))
    base = observed(rung, loss_of(trial.config) + rung / 10, latency_ms=latency)
    fields = {name: getattr(base, name) for name in ("rung", "fold", "share", "metrics", "n_scored", "seconds")}
    told = Observation(**fields, reused_from=data.draw(st.sampled_from(["", "a/t0001"])))
    return study.observe(trial_id, told, trial.attempts) is Decision.CONTINUE
