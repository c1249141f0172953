"""A space file: text, profile and `--set` -> a checked model, and where everything in it was written.

All problems of a file are found before the first is reported. Each is one line:
`path:line:col key: expected ..., found ...; what to do`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ValidationError

from search.errors import SpaceError
from search.model_errors import Located, located
from search.space import Problem, nearest
from search.yaml_tree import Mark, Node, read_bytes, read_flag
from search.yaml_writer import write_yaml

Model = TypeVar("Model", bound=BaseModel)


@runtime_checkable
class _ChecksItself(Protocol):
    """A model with rules that span several of its places."""

    def problems(self) -> Iterable[Problem]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What was written, after profile and overrides.

    Attributes:
        tree: The values with their places.
        content: The checked model as JSON values, defaults filled in.
    """

    tree: Node
    content: dict[str, Any]

    def position(self, path: Sequence[str | int]) -> str:
        """Return `file:line:col`, or the flag, of a path of keys; where it was not written, of its nearest ancestor."""
        return str(_place(self.tree, path))

    def lines(self, problems: Iterable[Problem]) -> tuple[str, ...]:
        """Return problems, or warnings, as lines that begin with their place, in the order of the file."""
        return _lines(self.tree, [Located(*problem) for problem in problems])

    def resolved_yaml(self) -> str:
        """Return a file without profiles that loads to the same model again, every default written out."""
        sections = {key: value for key, value in self.content.items() if key != "profiles"}
        if isinstance(self.tree.value, dict) and "parameters" in self.tree.value:
            sections["parameters"] = self.tree.value["parameters"].plain()
        return write_yaml(sections)


def load(
    path: str | Path, *, model: type[Model], profile: str | None = None, overrides: Sequence[str] = ()
) -> tuple[Model, Document]:
    """Read and check a space file.

    Args:
        path: The file.
        model: Pydantic class of the whole file. A method `problems()` of it is asked for what spans several places.
        profile: Name below `profiles:` whose values replace those of the file. A parameter is replaced as a whole,
            so is a list and a mapping that names its `rule`; other mappings merge; null removes a key.
        overrides: `key.key=value`, applied last, values read as in a file; null removes the key.

    Raises:
        SpaceError: Anything is wrong; all of it, one line per problem.
    """
    tree = _profiled(_read(Path(path)), profile, str(path))
    tree = _overridden(tree, overrides)
    try:
        checked = model.model_validate_json(json.dumps(tree.plain()))
    except ValidationError as error:
        raise SpaceError(_lines(tree, located(error, tree, model))) from None
    problems: list[Located] = []
    if isinstance(checked, _ChecksItself):
        problems = [Located(*problem) for problem in checked.problems()]
    if problems:
        raise SpaceError(_lines(tree, problems))
    return checked, Document(tree=tree, content=checked.model_dump(mode="json"))


def _read(path: Path) -> Node:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        others = [str(p) for p in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        raise SpaceError(f"{path}: expected a space file, found none{nearest(str(path), others)}") from None
    except OSError as error:
        raise SpaceError(f"{path}: expected a readable file, found {error.strerror}; check the path") from None
    tree = read_bytes(content, str(path))
    if tree.value is None:
        raise SpaceError(f"{tree.mark}: expected sections, found an empty study file; write at least a family")
    if not isinstance(tree.value, dict):
        found = "a list" if isinstance(tree.value, list) else "a single value"
        raise SpaceError(f"{tree.mark}: expected sections (key: value) at the top level, found {found}")
    return tree


def _profiled(tree: Node, profile: str | None, source: str) -> Node:
    """Merge a profile over the rest of the file, and drop the section of profiles."""
    assert isinstance(tree.value, dict)
    section = tree.value.get("profiles")
    rest = _with_items(tree, {key: node for key, node in tree.value.items() if key != "profiles"}, tree.keys)
    profiles = {} if section is None else section.value
    if not isinstance(profiles, dict):
        raise SpaceError(
            _line(tree, Located(("profiles",), "expected a mapping from name to changes, found something else"))
        )
    for name, node in profiles.items():
        if not isinstance(node.value, dict):
            text = "expected a mapping of sections, found something else; indent what it changes below it"
            raise SpaceError(_line(tree, Located(("profiles", name), text)))
    if profile is None:
        return rest
    if profile not in profiles:
        known = f"one of {', '.join(profiles)}" if profiles else "none: the file has no profiles"
        raise SpaceError(f"{source}: --profile: expected {known}, found {profile!r}{nearest(profile, profiles)}")
    return _merged(rest, profiles[profile], ())


def _merged(under: Node, over: Node, path: tuple[str, ...]) -> Node:
    below, above = under.value, over.value
    replaces = path[:1] == ("parameters",) and len(path) == 2
    if replaces or not isinstance(below, dict) or not isinstance(above, dict) or "rule" in above:
        return over
    items = dict(below)
    for key, node in above.items():
        if node.value is None:
            items.pop(key, None)
        else:
            items[key] = _merged(below[key], node, (*path, key)) if key in below else node
    return _with_items(under, items, {**under.keys, **over.keys})


def _overridden(tree: Node, overrides: Sequence[str]) -> Node:
    problems: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        flag = f"--set {key}"
        if not equals or not all(key.split(".")):
            problems.append(f"--set {override}: expected key=value with a dotted key, found {override!r}")
            continue
        try:
            tree = _set(tree, tuple(key.split(".")), read_flag(text, flag), flag)
        except SpaceError as error:
            problems.extend(error.problems)
    if problems:
        raise SpaceError(tuple(problems))
    return tree


def _set(node: Node, path: tuple[str, ...], value: Node, flag: str) -> Node:
    if not path:
        return value
    key, rest = path[0], path[1:]
    empty = Node(value={}, mark=value.mark)
    if isinstance(node.value, dict):
        if not rest and value.value is None:
            return _with_items(node, {k: n for k, n in node.value.items() if k != key}, node.keys)
        changed = _set(node.value.get(key, empty), rest, value, flag)
        key_mark = node.keys[key] if rest and key in node.keys else value.mark
        return _with_items(node, {**node.value, key: changed}, {**node.keys, key: key_mark})
    if isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
        items = list(node.value)
        items[int(key)] = _set(items[int(key)], rest, value, flag)
        return replace(node, value=items)
    found = f"a list of {len(node.value)}" if isinstance(node.value, list) else repr(node.value)
    raise SpaceError(f"{flag}: expected something with a member {key!r}, found {found}; set the whole of it")


def _with_items(node: Node, items: dict[str, Node], keys: dict[str, Mark]) -> Node:
    return Node(value=items, mark=node.mark, keys={key: keys[key] for key in items})


def _place(tree: Node, path: Sequence[str | int], *, at_key: bool = False) -> Mark:
    """Return where a value is written; for a block mapping, and with `at_key`, where its key is."""
    node, mark = tree, tree.mark
    for position, part in enumerate(path):
        if isinstance(node.value, dict) and part in node.value:
            key_mark = node.keys[str(part)]
            node = node.value[str(part)]
            is_last = position == len(path) - 1
            mark = key_mark if isinstance(node.value, dict) or (at_key and is_last) else node.mark
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.mark
        else:
            break
    return mark


def _line(tree: Node, problem: Located) -> str:
    mark = _place(tree, problem.path, at_key=problem.at_key)
    key = ".".join(map(str, problem.path))
    start = str(mark) if str(mark) == f"--set {key}" or not key else f"{mark} {key}"
    return f"{start}: {problem.text}"


def _lines(tree: Node, problems: Sequence[Located]) -> tuple[str, ...]:
    def order(problem: Located) -> tuple[bool, int, int]:
        mark = _place(tree, problem.path, at_key=problem.at_key)
        return mark.line == 0, mark.line, mark.column

    return tuple(dict.fromkeys(_line(tree, problem) for problem in sorted(problems, key=order)))
