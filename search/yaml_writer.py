"""JSON values -> YAML text that `search.yaml_tree` reads back to the same values."""

from __future__ import annotations

import json
import re
from typing import Any

from search.yaml_tree import read_flag

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

BLOCK_LEVELS = 2
"""Mappings down to this depth get a line per key; deeper values are written in flow style."""


def write_yaml(content: dict[str, Any]) -> str:
    """Return YAML text; sections and their keys a line each, what lies deeper on one line."""
    return "".join(_block(content, level=0))


def _block(content: dict[str, Any], level: int) -> list[str]:
    lines = []
    for key, value in content.items():
        start = "  " * level + _text(key) + ":"
        if isinstance(value, dict) and value and level + 1 < BLOCK_LEVELS:
            lines += [start + "\n", *_block(value, level + 1)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [start + "\n", *("  " * (level + 1) + f"- {_flow(item)}\n" for item in value)]
        else:
            lines.append(f"{start} {_flow(value)}\n")
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """Write text plainly where it reads back as the same text, else in double quotes."""
    if _PLAIN.match(value) and read_flag(value, "").value == value:
        return value
    return _ESCAPED.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(value, ensure_ascii=False))
