"""YAML text -> a tree of nodes that know their place. YAML 1.2 rules, nothing constructed, everything bounded.

ruamel.yaml gives the events; scalars are resolved here, because readers differ in them (`1e-3` is text to some, `no` is
false, `1:30` is 90, `017` is 15). Aliases share nodes, so a file of a kilobyte cannot become a gigabyte.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from search.errors import SpaceError
from search.parameters import Scalar

MOST_BYTES = 1_000_000
MOST_NODES = 100_000
"""Nodes of a file, each alias counted as what it stands for."""
DEEPEST = 64
LARGEST_EXACT = 2**53
"""Whole numbers up to here are exact in float64."""

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_UNREADABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Mark(NamedTuple):
    """Where something was written: a file with line and column from 1, or a flag (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value and its place.

    Attributes:
        value: A scalar, a list of nodes, or a mapping from key to node.
        mark: Where it begins.
        keys: For a mapping, where each key stands.
    """

    value: Scalar | list[Node] | dict[str, Node]
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)

    def plain(self) -> Any:
        """Return the value without places: scalars, lists and dicts."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read_bytes(content: bytes, source: str) -> Node:
    """Read one YAML document.

    Raises:
        SpaceError: It is not UTF-8, not YAML, empty, too large or too deep, or holds something that is refused: a tag,
            a duplicate key, a second document, a number with a leading zero, NaN, infinity.
    """
    if len(content) > MOST_BYTES:
        raise SpaceError(f"{source}: expected at most {MOST_BYTES} bytes, found {len(content)}; split the search")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mark = _mark_at(content[: error.start].decode("utf-8", "replace"), source)
        raise SpaceError(
            f"{mark}: expected UTF-8 text, found byte 0x{content[error.start]:02x}; save it as UTF-8"
        ) from None
    return read_text(text, source)


def read_text(text: str, source: str) -> Node:
    """Read one YAML document from text; see `read_bytes`."""
    return _Reader(source, is_flag=False).read(text)


def read_flag(text: str, flag: str) -> Node:
    """Read the value of a flag such as `--set lr=1e-3`, by the rules of a file; its place is the flag."""
    return _Reader(flag, is_flag=True).read(text)


def _mark_at(before: str, source: str) -> Mark:
    lines = before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return Mark(source, len(lines), len(lines[-1]) + 1)


@dataclass(slots=True, kw_only=True)
class _Open:
    """A collection whose end was not seen yet, or the document itself."""

    node: Node
    anchor: str | None
    key: str | None = None
    expanded: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True)
class _Anchored:
    node: Node
    expanded: int
    depth: int


class _Reader:
    def __init__(self, source: str, *, is_flag: bool) -> None:
        self._source = source
        self._is_flag = is_flag
        self._problems: list[str] = []
        self._anchors: dict[str, _Anchored] = {}
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._n_nodes = 0

    def read(self, text: str) -> Node:
        bad = _UNREADABLE.search(text)
        if bad:
            mark = self._flagged(_mark_at(text[: bad.start()], self._source))
            raise SpaceError(f"{mark}: expected printable text, found character U+{ord(bad.group()):04X}; delete it")
        for event in self._events(text.replace("\r\n", "\n").replace("\r", "\n")):
            self._take(event)
        if self._problems:
            raise SpaceError(tuple(self._problems))
        if self._root is None:
            raise SpaceError(f"{self._source}: expected a document, found an empty file; write at least a family")
        return self._root

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(io.StringIO(text))
        except MarkedYAMLError as error:
            place = error.problem_mark or error.context_mark
            mark = self._mark(place) if place else self._flagged(Mark(self._source, 1, 1))
            found = " ".join(str(error.problem or error.context).split())
            tab = "; indent with spaces" if "\\t" in found else ""
            raise SpaceError(f"{mark}: expected YAML, {found}{tab}") from None
        except (YAMLError, YAMLStreamError) as error:
            raise SpaceError(f"{self._source}: expected YAML, {' '.join(str(error).split())}") from None

    def _take(self, event: Any) -> None:
        if isinstance(event, DocumentStartEvent) and self._root is not None:
            raise SpaceError(
                f"{self._mark(event.start_mark)}: expected one document, found a second; delete the line ---"
            )
        if isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent) and event.ctag is not None:
            found = f"{event.ctag}"
            raise SpaceError(
                f"{self._mark(event.start_mark)}: expected a plain value, found the tag {found}; delete it"
            )
        if isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, ScalarEvent):
            self._scalar(event)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            done = self._stack.pop()
            self._place(done.node, done.anchor, done.expanded, done.depth)

    def _begin(self, event: Any) -> None:
        mark = self._mark(event.start_mark)
        is_mapping = isinstance(event, MappingStartEvent)
        self._refuse_as_key(mark, "a mapping" if is_mapping else "a list")
        self._limit(mark, expanded=1, depth=1)
        self._stack.append(_Open(node=Node(value={} if is_mapping else [], mark=mark), anchor=event.anchor))

    def _alias(self, event: Any) -> None:
        mark = self._mark(event.start_mark)
        self._refuse_as_key(mark, "an alias")
        known = self._anchors.get(event.anchor)
        if known is None:
            raise SpaceError(
                f"{mark}: expected an anchor that was closed before, found *{event.anchor}; define it above"
            )
        self._limit(mark, known.expanded, known.depth)
        self._place(known.node, None, known.expanded, known.depth)

    def _scalar(self, event: Any) -> None:
        mark = self._mark(event.start_mark)
        if self._expects_key():
            self._key(event, mark)
            return
        self._limit(mark, expanded=1, depth=0)
        value = self._resolve(event.value, mark) if event.implicit[0] else event.value
        self._place(Node(value=value, mark=mark), event.anchor, expanded=1, depth=0)

    def _key(self, event: Any, mark: Mark) -> None:
        top = self._stack[-1]
        key = event.value
        if key == "" or (event.implicit[0] and _NULL.match(key)):
            self._problems.append(f"{mark}: expected a key, found {key or 'nothing'}; name it")
        elif key in top.node.keys:
            first = top.node.keys[key]
            self._problems.append(f"{mark} {key}: expected each key once, found it again; first at line {first.line}")
        else:
            top.node.keys[key] = mark
        top.key = key

    def _place(self, node: Node, anchor: str | None, expanded: int, depth: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = _Anchored(node, expanded, depth)
        if not self._stack:
            self._root = node
            return
        top = self._stack[-1]
        top.expanded += expanded
        top.depth = max(top.depth, depth + 1)
        if isinstance(top.node.value, dict):
            assert top.key is not None
            top.node.value.setdefault(top.key, node)
            top.key = None
        elif isinstance(top.node.value, list):
            top.node.value.append(node)

    def _resolve(self, text: str, mark: Mark) -> Scalar:
        if _NULL.match(text):
            return None
        if _BOOL.match(text):
            return text.lower() == "true"
        if _FLOAT.match(text) or _NOT_FINITE.match(text):
            return self._number(text, mark)
        if "${" in text:
            wrong = "expected the value itself, found a variable"
            self._problems.append(
                f"{mark}: {wrong} {text}; variables are not replaced: write the value, or quote the text"
            )
        return text

    def _number(self, text: str, mark: Mark) -> Scalar:
        if _LEADING_ZERO.match(text):
            self._problems.append(
                f"{mark}: expected a number, found {text} with a leading zero; drop it, or quote the text"
            )
            return None
        if _NOT_FINITE.match(text) or abs(float(text)) == float("inf") or len(text) > 400:
            self._problems.append(f"{mark}: expected a finite number, found {text[:40]}; write a finite number")
            return None
        number = float(text)
        if _INT.match(text):
            return int(text)
        is_whole = "." not in text and number.is_integer() and abs(number) < LARGEST_EXACT
        return int(number) if is_whole else number

    def _expects_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].node.value, dict) and self._stack[-1].key is None

    def _refuse_as_key(self, mark: Mark, found: str) -> None:
        if self._expects_key():
            raise SpaceError(f"{mark}: expected a plain key, found {found}; quote it if it is text")

    def _limit(self, mark: Mark, expanded: int, depth: int) -> None:
        if len(self._stack) + depth > DEEPEST:
            raise SpaceError(f"{mark}: expected at most {DEEPEST} levels, found nesting > {DEEPEST}; flatten it")
        self._n_nodes += expanded
        if self._n_nodes > MOST_NODES:
            raise SpaceError(
                f"{mark}: expected at most {MOST_NODES} values, found alias expansion > limit; use fewer aliases"
            )

    def _mark(self, place: Any) -> Mark:
        return self._flagged(Mark(self._source, place.line + 1, place.column + 1))

    def _flagged(self, mark: Mark) -> Mark:
        return Mark(self._source) if self._is_flag else mark
