"""Pydantic's errors -> one line each in the project's grammar: expected, found, what to do."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError

from search.parameters import KINDS, shown
from search.space import nearest
from search.yaml_tree import Node

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "none_required": "null",
    "greater_than": "a value above {gt}",
    "greater_than_equal": "a value of at least {ge}",
    "less_than": "a value below {lt}",
    "less_than_equal": "a value of at most {le}",
    "too_short": "at least {min_length} item(s)",
    "too_long": "at most {max_length} item(s)",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "at least {min_length} character(s)",
    "string_too_long": "at most {max_length} characters",
}
"""Type of a pydantic error -> what was expected, filled from the error's context."""


class Located(NamedTuple):
    """A problem at a path of the tree; `at_key` where the key, and not its value, is wrong."""

    path: tuple[str | int, ...]
    text: str
    at_key: bool = False


def located(error: ValidationError, tree: Node, model: type[BaseModel]) -> list[Located]:
    """Return one problem per wrong place. The branches of a union speak with one voice: the deepest, joined by "or"."""
    wanted: dict[tuple[str | int, ...], list[str]] = {}
    problems = []
    for item in error.errors(include_url=False):
        kind, context = item["type"], item.get("ctx", {})
        path, node = _walk(tree, item["loc"], ends_missing=kind == "missing")
        if kind in _WANTED and kind != "literal_error" and node is not None:
            text = _WANTED[kind].format(**context)
            if text not in wanted.setdefault(path, []):
                wanted[path].append(text)
        else:
            problems.append(_single(item, path, node, tree, model))
    places = [*wanted, *(problem.path for problem in problems)]
    for path, texts in wanted.items():
        if not any(len(place) > len(path) and place[: len(path)] == path for place in places):
            node = _walk(tree, path)[1]
            assert node is not None
            problems.append(Located(path, f"expected {_either(texts)}, found {_found(node)}{_remedy(texts, node)}"))
    return problems


def _single(
    item: Mapping[str, Any], path: tuple[str | int, ...], node: Node | None, tree: Node, model: type[BaseModel]
) -> Located:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_names(model, item["loc"][:-1])
        hint = nearest(str(path[-1]), known) or f"; known: {', '.join(known)}"
        return Located(path, f"expected a known key, found unknown {str(path[-1])!r}{hint}", at_key=True)
    if kind == "missing":
        return Located(path, "expected a value, found none; add the key")
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return _wrong_tag(context, path, node)
    assert node is not None
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        hint = nearest(str(node.value), choices) if isinstance(node.value, str) else ""
        return Located(path, f"expected one of {', '.join(choices)}, found {_found(node)}{hint}")
    if kind == "value_error":
        return Located(path, str(context["error"]))
    return Located(path, f"expected what the schema says ({item['msg']}), found {_found(node)}; see spaces/schema.json")


def _wrong_tag(context: Mapping[str, Any], path: tuple[str | int, ...], node: Node | None) -> Located:
    """A mapping that must say which kind it is, does not or says an unknown one."""
    key = context["discriminator"].strip("'")
    names = list(KINDS) if key == "_tag()" else context.get("expected_tags", "").replace("'", "").split(", ")
    key = "type" if key == "_tag()" else key
    one_of = f"one of {', '.join(names)}" if names != [""] else "a name"
    if node is None or not isinstance(node.value, dict) or key not in node.value:
        return Located(path, f"expected a {key} ({one_of}), found none; add {key}")
    given = node.value[key]
    return Located((*path, key), f"expected {one_of}, found {_found(given)}{nearest(str(given.value), names)}")


def _walk(
    tree: Node, loc: tuple[str | int, ...], *, ends_missing: bool = False
) -> tuple[tuple[str | int, ...], Node | None]:
    """Follow a location of pydantic, skipping the names of union branches.

    Returns:
        Keys of the tree and the node there; with `ends_missing` the last key has no node.
    """
    node = tree
    path: list[str | int] = []
    for part in loc[:-1] if ends_missing else loc:
        value = node.value
        if isinstance(value, dict) and part in value:
            node = value[str(part)]
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            node = value[part]
            path.append(part)
    return ((*path, loc[-1]), None) if ends_missing else (tuple(path), node)


def _found(node: Node) -> str:
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list" if node.value else "an empty list"
    return f"text {node.value!r}" if isinstance(node.value, str) else shown(node.value)


def _either(texts: list[str]) -> str:
    return (
        "a plain value (number, text, true, false or null)"
        if {"a number", "text"} <= set(texts)
        else " or ".join(texts)
    )


def _remedy(texts: list[str], node: Node) -> str:
    value = node.value
    if isinstance(value, str) and any("number" in t for t in texts) and "text" not in texts:
        if re.fullmatch(r"[0-9.]+", value):
            return "; drop the quotes"
        return "; it is not a number: write plain decimal digits, such as 15 or 1e-3"
    if isinstance(value, str) and "true or false" in texts and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return "; write true or false"
    if texts == ["text"] and isinstance(value, bool | int | float):
        return "; put it in quotes"
    return ""


def _known_names(model: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Return the field names that are allowed at a location of pydantic."""
    kinds = _branches(model)
    for part in loc:
        tagged = [k for k in kinds if _tag_of(k) == part]
        fields = [k.model_fields[part].annotation for k in kinds if _is_model(k) and part in k.model_fields]
        items = [get_args(k)[-1] for k in kinds if get_origin(k) is dict]
        items += [get_args(k)[0] for k in kinds if get_origin(k) in (tuple, list) and isinstance(part, int)]
        kinds = tagged or [b for kind in (fields or items) for b in _branches(kind)]
    return list(dict.fromkeys(name for kind in kinds if _is_model(kind) for name in kind.model_fields))


def _branches(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _branches(get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [branch for part in get_args(annotation) for branch in _branches(part)]
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _tag_of(kind: Any) -> str | None:
    """Return the one value of the field that tells members of a union apart, if there is such a field."""
    if not _is_model(kind):
        return None
    for name in ("type", "rule"):
        field = kind.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return str(get_args(field.annotation)[0])
    return None
