"""Collects which requirement ids were proven, for `make requirements`."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("machine", deadline=None)  # shared machines pause; a pause is no failure
hypothesis.settings.load_profile("machine")

PROVEN = Path(__file__).parent.parent / ".pytest_cache" / "requirements.json"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        needs = [name for name in ("gpu", "cluster") if item.get_closest_marker(name)]
        for mark in item.iter_markers("requirement"):
            for name in mark.args:
                row = config.stash[_OUTCOMES].setdefault(name, {})
                row[item.nodeid] = {"outcome": "not run", "needs": needs}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" or report.outcome != "passed":
        for row in item.config.stash[_OUTCOMES].values():
            if item.nodeid in row:
                row[item.nodeid]["outcome"] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    outcomes = session.config.stash[_OUTCOMES]
    if outcomes and not session.config.option.collectonly:
        PROVEN.parent.mkdir(exist_ok=True)
        PROVEN.write_text(json.dumps(outcomes, indent=1, sort_keys=True), encoding="utf-8")


_OUTCOMES = pytest.StashKey[dict[str, dict[str, dict[str, object]]]]()
