"""Peers whose packages the project does not need: importable without them, and they say what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import epoch_quality, peers_ask_tell, peers_by_epochs, search_quality

ROOT = Path(__file__).parents[2]
MODULES = ("smac", "ConfigSpace", "hebo", "dehb", "loguru")


def test_peers_import_without_their_packages() -> None:
    program = (
        "import sys\n"
        f"for name in {MODULES}: sys.modules[name] = None\n"
        "import benchmarks.search_quality, benchmarks.epoch_quality\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_every_peer_names_its_package() -> None:
    assert set(peers_ask_tell.PACKAGES) == {*peers_ask_tell.PEERS, *peers_by_epochs.PEERS}


@pytest.mark.parametrize("name", sorted(peers_ask_tell.PACKAGES))
def test_a_peer_without_its_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = peers_ask_tell.PACKAGES[name][0]
    monkeypatch.setitem(sys.modules, module, None)
    search = (peers_ask_tell if name in peers_ask_tell.PEERS else peers_by_epochs).search_by_turns
    with pytest.raises(ImportError, match=f"{name}: expected the package {module}, found none; pip install "):
        search(name, None, 1, seed=0)


@pytest.mark.parametrize(
    ("benchmark", "options"), [(search_quality, ("--optimizers", "smac")), (epoch_quality, ("--searches", "dehb"))]
)
def test_a_benchmark_says_it_in_one_line(
    benchmark: ModuleType,
    options: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(tables: object, chosen: object) -> None:
        peers_ask_tell.require(options[1])

    for module, _ in peers_ask_tell.PACKAGES.values():
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(benchmark, "tables_of", lambda folder: "tables")
    monkeypatch.setattr(benchmark, "run", run)
    monkeypatch.setattr(sys, "argv", ["", *options])
    assert benchmark.main() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"skipped: {options[1]}: expected the package" in line


class Bowl:
    """A task of two parameters; its curve falls with every epoch."""

    space = (("x", "float", 0.0, 1.0, False), ("n", "int", 1, 4, False))
    max_fid = 9

    def eval(self, config: dict[str, float], epochs: int = 9) -> float:
        return (config["x"] - 0.5) ** 2 + config["n"] - epochs


def test_curve_holds_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def grid(task: object, n_trials: int, seed: int) -> peers_ask_tell.Turns:
        for x in (0.0, 0.5, 1.0):
            told.append((yield {"x": x, "n": 1}))

    monkeypatch.setattr(peers_ask_tell, "PEERS", {"grid": grid})
    monkeypatch.setattr(peers_ask_tell, "require", lambda name: None)
    curve, seconds = peers_ask_tell.search_by_turns("grid", Bowl(), 3, seed=0)
    assert curve == [-7.75, -8.0, -8.0]
    assert told == [-7.75, -8.0]
    assert seconds >= 0.0


def test_a_config_that_goes_on_pays_what_it_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    def halving(task: object, budget: float, seed: int) -> peers_by_epochs.Turns:
        for x, epochs in ((0.0, 3), (0.5, 3), (0.5, 9), (1.0, 9)):
            yield {"x": x, "n": 1}, epochs

    monkeypatch.setattr(peers_by_epochs, "PEERS", {"halving": halving})
    monkeypatch.setattr(peers_by_epochs, "require", lambda name: None)
    curve, _ = peers_by_epochs.search_by_turns("halving", Bowl(), 2.2, seed=0)
    assert [value for _, value in curve] == [-8.0, -8.0]
    assert [spent for spent, _ in curve] == pytest.approx([12 / 9, 21 / 9])
