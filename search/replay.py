"""Replay: ask again at every proposal of a journal and wherever a trial was taken up again, decide at every report.

`python -m search.replay RUN_DIR` says `identical`, or where the first difference lies (exit code 1). A difference means
that this code, these libraries or this machine do not search as those did that wrote the journal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.charter import charter_from
from search.errors import JournalError, SpaceError
from search.history import OBSERVED, PROPOSED, RESUMED, observation_from, trial_body
from search.journal import Journal
from search.mind import Mind

JOURNAL = "journal.sqlite"
"""Name of the journal in a run folder."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found: numbers of equal proposals and decisions, and the first difference, if any."""

    n_proposals: int
    n_decisions: int
    difference: str | None


def replay(path: Path) -> Replayed:
    """Replay a journal up to its end or to the first difference.

    Whether a proposal is feasible is not asked again: that is the family's word, and replay builds no family.

    Args:
        path: Of the journal.

    Raises:
        JournalError: The journal is missing, damaged or not understood.
        SpaceError: Its optimizer or stopping rule does not exist here.
    """
    n_proposals = n_decisions = 0
    with Journal.read(path) as journal:
        mind = Mind(charter_from(journal.header["study"]), journal.header)
        for event in journal.events():
            if event.kind == PROPOSED:
                difference = _first(_differences_of_proposal(mind, event.body))
                n_proposals += difference is None
            elif event.kind == RESUMED:
                difference = _first(_differences_of_resumption(mind, event.body["trial_id"]))
                n_decisions += difference is None
            elif event.kind == OBSERVED:
                difference = _first(_differences_of_decision(mind, event.body))
                n_decisions += difference is None
            else:
                difference = None
            if difference is not None:
                return Replayed(n_proposals, n_decisions, f"event {event.seq} ({event.time_utc}): {difference}")
            mind.apply(event)
    return Replayed(n_proposals, n_decisions, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the journal of a run folder and print what was found; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m search.replay", description="Search again from a journal, and compare."
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="run folder, holds journal.sqlite")
    path = parser.parse_args(arguments).run_dir / JOURNAL
    try:
        found = replay(path)
    except (JournalError, SpaceError) as error:
        print(f"{path}: {error}" if str(path) not in str(error) else error, file=sys.stderr)
        return 4
    told = f"replayed {found.n_proposals} proposals and {found.n_decisions} decisions: "
    print(told + ("identical" if found.difference is None else f"first difference at {found.difference}"))
    return 0 if found.difference is None else 1


def _differences_of_proposal(mind: Mind, body: Mapping[str, Any]) -> Iterator[str]:
    instead = mind.to_resume(is_last=False)
    if instead is not None:
        yield f"proposal of {body['trial_id']}: {instead} would go on instead"
    again = trial_body(mind.propose())
    for key, was in body.items():
        if key not in ("state", "reason") and again[key] != was:
            yield f"proposal of {body['trial_id']}: {key} was {was}, is now {again[key]}"


def _differences_of_resumption(mind: Mind, was: str) -> Iterator[str]:
    """Say where another trial would go on; whether a new one could have been proposed is not known any more."""
    now = [mind.to_resume(is_last=is_last) for is_last in (False, True)]
    if was not in now:
        yield f"{was} went on, now it would be {now[0] or now[1] or 'none'}"


def _differences_of_decision(mind: Mind, body: Mapping[str, Any]) -> Iterator[str]:
    trial, observation = mind.history.trials[body["trial_id"]], observation_from(body["observation"])
    decision, state, reason = mind.judge(trial, observation)
    for key, was, now in (
        ("decision", body["decision"], decision.value),
        ("state", body["state"], state.value),
        ("reason", body["reason"], reason),
    ):
        if was != now:
            yield f"{trial.trial_id} at rung {observation.rung}: {key} was {was!r}, is now {now!r}"


def _first(differences: Iterator[str]) -> str | None:
    return next(differences, None)


if __name__ == "__main__":
    sys.exit(main())
