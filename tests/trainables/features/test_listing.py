"""The listing of features, and that names can be had without numerical libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from trainables.features.__main__ import main
from trainables.features.registry import REGISTRY
from trainables.features.schemas import SCHEMAS


@pytest.mark.requirement("FEAT-SC-4")
def test_json_lists_every_feature_with_its_requirement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == set(REGISTRY)
    assert all(
        row["requirement"].startswith(("FEAT-", "DATA-")) and row["source"] and row["lookback"] >= 1 for row in rows
    )


def test_table_of_a_schema_is_in_column_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--schema", "condor52"]) == 0
    lines = capsys.readouterr().out.splitlines()
    places = [next(i for i, line in enumerate(lines) if f" {key} " in line) for key in SCHEMAS["condor52"]]
    assert places == sorted(places)


def test_an_unknown_schema_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["list", "--schema", "condor53"])
    assert error.value.code == 2
    assert "condor52" in capsys.readouterr().err


def test_every_feature_belongs_to_a_schema_and_every_schema_to_the_registry() -> None:
    used = {key for keys in SCHEMAS.values() for key in keys}
    assert used == set(REGISTRY)


def test_names_and_settings_load_without_numerical_libraries() -> None:
    code = (
        "import sys, trainables.features.schemas, trainables.features.settings;"
        "print({'numba', 'talib', 'torch', 'numpy', 'gudhi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
