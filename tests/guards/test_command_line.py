"""The command line is a promise: its flags are frozen, its help is quick, and what the README says exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = {
    "--space",
    "--profile",
    "--seed",
    "--num-samples",
    "--out",
    "--set",
    "--mlflow-uri",
    "--warm-start",
    "--resume",
    "--dry-run",
    "--final-eval",
    "--reopen",
    "--help",
}


def test_the_flags_are_frozen() -> None:
    text = subprocess.run(
        [sys.executable, "search/run.py", "--help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) == FLAGS


def readme_commands() -> list[str]:
    blocks = re.findall(r"```(?:console|bash|sh)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(make|python|ray|mlflow)\b", line)]


@pytest.mark.requirement("ACC-8")
def test_the_readme_opens_with_the_two_commands_and_names_those_of_the_card() -> None:
    commands = readme_commands()
    assert [c.split("#")[0].strip() for c in commands[:2]] == ["make search", "make test"]
    assert any(c.startswith("ray job submit") and "search/run.py --space" in c for c in commands)
    assert any(c.startswith("ray start") for c in commands)
    assert any("mlflow ui" in c or c.startswith("make ui") for c in commands)


@pytest.mark.parametrize("command", readme_commands())
def test_what_the_readme_types_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert all(word in targets for word in words[1:] if "=" not in word)
    for word in words:
        if word.startswith(("search/", "spaces/", "benchmarks/", "tests/")):
            assert (ROOT / word).exists(), word
    if "search/run.py" in words:
        flags = {w for w in words[words.index("search/run.py") :] if w.startswith("--")}
        assert flags <= FLAGS
    if "-m" in words:
        module = words[words.index("-m") + 1]
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
