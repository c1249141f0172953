"""The direction of imports (ARCHITECTURE.md) and the one place of each vendor, read from the source as text."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("search", "trainables", "cluster", "analysis", "tests", "benchmarks")
ALLOWED = {
    "analysis/measures": {"analysis.measures"},
    "analysis": {"analysis"},
    "search": {"search"},
    "trainables": {"trainables", "analysis.measures"},
    "cluster": {"cluster", "search", "analysis.tracking", "trainables.protocol", "trainables.catalogue"},
}
VENDORS = {
    "ray": ("cluster/",),
    "optuna": ("search/optimizers/optuna_samplers.py", "search/optimizers/evolutionary_sampler.py"),
    "deepspeed": ("trainables/training/deepspeed_engine.py",),
    "mlflow": ("analysis/mlflow_tracker.py", "analysis/mlflow_registry.py"),
    "mamba_ssm": ("trainables/ops/scan/fused.py",),
    "flash_attn": ("trainables/ops/attention/fused.py",),
    "triton": ("trainables/ops/scan/one_chunk.py",),
}
FRONT_DOOR = ("search/run.py", "search/command/")
"""Where all parts meet, each imported where it is used."""
FILES = sorted(p.relative_to(ROOT).as_posix() for package in OURS[:4] for p in (ROOT / package).rglob("*.py"))


def imported(path: str) -> set[str]:
    """Every module that a file imports anywhere, relative imports resolved."""
    names: set[str] = set()
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("path", [f for f in FILES if not f.startswith(FRONT_DOOR)])
def test_imports_point_downwards(path: str) -> None:
    folder = next(f for f in ALLOWED if path.startswith(f + "/"))
    assert not [name for name in imported(path) if name.startswith(("search.run", "search.command"))], path
    for name in imported(path):
        if name.split(".")[0] in OURS:
            assert any(name == a or name.startswith(a + ".") for a in ALLOWED[folder]), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES)
def test_each_vendor_has_one_place(path: str) -> None:
    for vendor, places in VENDORS.items():
        if any(name.split(".")[0] == vendor for name in imported(path)):
            assert path.startswith(places), f"{path} imports {vendor}; its place is {places}"


def test_families_do_not_import_one_another() -> None:
    families = ("condor", "mlp", "grok", "scalper", "meta")
    for path in FILES:
        own = next((f for f in families if path.startswith(f"trainables/{f}/")), None)
        if own:
            others = {f"trainables.{f}" for f in families if f != own}
            assert not {".".join(n.split(".")[:2]) for n in imported(path)} & others, path


@pytest.mark.requirement("TRAIN-17")
def test_trainables_import_without_ray_optuna_mlflow_deepspeed_and_kernels() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'mlflow', 'deepspeed', 'mamba_ssm', 'flash_attn'): sys.modules[name] = None\n"
        "from trainables import catalogue\n"
        "import trainables.training.walk, trainables.train\n"
        "[catalogue.family(name) for name in catalogue.FAMILIES]\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_planning_imports_neither_torch_nor_ray() -> None:
    program = (
        "import sys\n"
        "from search.run import main\n"
        "assert main(['--space', 'spaces/condor.yaml', '--profile', 'laptop', '--dry-run']) == 0\n"
        "heavy = {'torch', 'ray', 'optuna', 'mlflow', 'deepspeed', 'arch', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120, stdout=subprocess.DEVNULL)


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "common", "misc", "base", "manager", "util", "helper"}
    assert not [f for f in FILES if empty & set(f.removesuffix(".py").split("/"))]


def test_no_file_of_search_hides_a_module_of_python() -> None:
    names = {f.split("/")[1].removesuffix(".py") for f in FILES if f.startswith("search/")} - {"__init__"}
    assert not names & (set(sys.stdlib_module_names) | set(VENDORS))
