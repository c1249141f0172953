"""Names in a space file -> the functions that make what they name, found on use."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from search.errors import SpaceError


def build(table: Mapping[str, str], place: str, name: str, *args: Any, **settings: Any) -> Any:
    """Call the function that a name stands for.

    Args:
        table: Name -> `module:function`.
        place: Key of the space file that holds the name, for the message.
        name: Key of the table, or a `module:function` of something that lives elsewhere.
        args: Passed on.
        settings: Passed on.

    Raises:
        SpaceError: Nothing has this name, or it refuses its settings.
    """
    if name not in table and ":" not in name:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}?" if near else "use one of them."
        raise SpaceError(f"{place}: expected one of {', '.join(table)}, found {name!r}; {hint}")
    module, _, function = table.get(name, name).partition(":")
    make = getattr(importlib.import_module(module), function)
    try:
        refuse_unknown(settings, make)
        return make(*args, **settings)
    except SpaceError:
        raise
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{place}: {name} refuses its settings: {error}") from error


def refuse_unknown(settings: Iterable[str], make: Callable[..., Any]) -> None:
    """Refuse settings that a function does not take; one that takes any (`**settings`) checks them itself.

    Raises:
        ValueError: A setting is unknown; those that are known are named.
    """
    taken = inspect.signature(make).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return
    unknown = [name for name in settings if name not in {parameter.name for parameter in taken}]
    if unknown:
        own = [parameter.name for parameter in taken if parameter.default is not parameter.empty]
        raise ValueError(f"expected settings among {', '.join(own) or 'none'}, found {', '.join(unknown)}; drop them")
