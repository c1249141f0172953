"""Family name -> where its config and its code are. Nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module
from typing import Any

CONFIGS = {
    "condor": "trainables.condor.config:CondorConfig",
    "grok": "trainables.grok.config:GrokConfig",
    "mlp": "trainables.mlp.config:MlpConfig",
    "scalper": "trainables.scalper.config:ScalperConfig",
}
FAMILIES = {
    "condor": "trainables.condor.trainable:FAMILY",
    "grok": "trainables.grok.trainable:FAMILY",
    "mlp": "trainables.mlp.trainable:FAMILY",
    "scalper": "trainables.scalper.trainable:FAMILY",
}


def config_class(family: str) -> Any:
    """Return the pydantic config class of a family; imports no torch.

    Raises:
        ValueError: Unknown family; the message offers the nearest name.
    """
    return _resolve(CONFIGS, family)


def family(name: str) -> Any:
    """Return the family object (see `trainables.training.family.Family`); imports torch.

    Raises:
        ValueError: Unknown family; the message offers the nearest name.
    """
    return _resolve(FAMILIES, name)


def source_file(family: str) -> str:
    """Return the file of a family's config class, which lies beside its other files; imports no torch.

    Raises:
        ValueError: Unknown family; the message offers the nearest name.
    """
    return str(sys.modules[config_class(family).__module__].__file__)


def _resolve(table: dict[str, str], name: str) -> Any:
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"family: expected one of {', '.join(sorted(table))}, found {name!r}{hint}")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
