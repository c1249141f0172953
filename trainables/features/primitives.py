"""The twenty rule primitives of the 52-feature condor schema, read from a YAML rule file (FEAT-CB-P1..P20)."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trainables.config import StrictModel
from trainables.features import rules
from trainables.features.bars import Bars
from trainables.features.rolling import Float
from trainables.features.row import FeatureRow, Kind
from trainables.features.schemas import PRIMITIVES

SHIPPED_RULES = Path(__file__).with_name("primitives.yaml")

_CATEGORIES = ("macd_signal",)
_ACROSS_SESSIONS = ("vol_regime", "beta1_regime", "iv_rv_spread", "tda_persistence")


class Rule(StrictModel):
    """One entry of a rule file, under the name of its column."""

    id: str = Field(pattern=r"^P\d{3}$")
    """Number of the primitive, P001 to P020."""
    formula: str
    """Text in the rule language (`trainables.features.rules`)."""


_RULE_FILE = TypeAdapter(dict[str, Rule])


def read_rules(path: Path) -> dict[str, ast.expr]:
    """Read a rule file and check every formula in it.

    Args:
        path: YAML file: column name -> {id, formula}.

    Returns:
        Column name -> parsed formula, in the order of the file.

    Raises:
        ValueError: The file cannot be read, is not such a mapping, names an unknown primitive or holds a wrong formula.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        entries = _RULE_FILE.validate_json(json.dumps(content))
    except OSError as error:
        raise ValueError(f"{path}: expected a rule file, found none ({error.strerror}); correct rules_file") from None
    except (YAMLError, TypeError) as error:
        raise ValueError(f"{path}: expected YAML, found {' '.join(str(error).split())}; correct the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "top"
        raise ValueError(
            f"{path}: {place}: {first['msg']}, found {first['input']!r}; write name: {{id, formula}}"
        ) from None
    for name in entries:
        if name not in PRIMITIVES:
            near = difflib.get_close_matches(name, PRIMITIVES, n=1) or PRIMITIVES
            raise ValueError(f"{path}: unknown primitive {name!r}; nearest: {', '.join(near)}")
    return {name: rules.parse(rule.formula, where=f"{path}: {name}") for name, rule in entries.items()}


@lru_cache(maxsize=8)
def _rules_at(path: str | None, changed_ns: int) -> Mapping[str, ast.expr]:
    shipped = read_rules(SHIPPED_RULES)
    return shipped if path is None else {**shipped, **read_rules(Path(path))}


def active_rules(rules_file: str | None) -> Mapping[str, ast.expr]:
    """Return the shipped rules, those of the user's file in place of their namesakes; read once per file version."""
    changed_ns = Path(rules_file).stat().st_mtime_ns if rules_file and Path(rules_file).exists() else 0
    return _rules_at(rules_file, changed_ns)


def _row(position: int, name: str) -> FeatureRow:
    def values(bars: Bars) -> Float:
        return rules.evaluate(active_rules(bars.settings.rules_file)[name], bars)

    number = position + 1
    kind: Kind = "category" if name in _CATEGORIES else "number"
    return FeatureRow(
        name=name,
        family="condor",
        group="primitive",
        lookback=lambda s, per_session: rules.lookback(active_rules(s.rules_file)[name], s, per_session),
        source="condor document 18.2" if number <= 10 else "specification, C-28",
        requirement=f"FEAT-CB-P{number}",
        function=values,
        kind=kind,
        scope="segment" if name in _ACROSS_SESSIONS else "session",
    )


ROWS = tuple(_row(position, name) for position, name in enumerate(PRIMITIVES))
