"""What holds for the config of every family."""

import subprocess
import sys

import pytest

from trainables.catalogue import CONFIGS, config_class


@pytest.mark.parametrize("family", CONFIGS)
def test_every_field_says_what_it_is(family):
    assert all(field.description for field in config_class(family).model_fields.values())


@pytest.mark.parametrize("family", CONFIGS)
def test_config_and_sizes_import_no_torch(family):
    code = (
        f"import sys; from trainables.catalogue import config_class; config_class({family!r})().memory_bytes(); "
        "print([m for m in ('torch', 'numpy', 'numba', 'scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
