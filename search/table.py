"""Names in a space file -> the functions that make what they name, found on use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
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
        return make(*args, **settings)
    except SpaceError:
        raise
    except (TypeError, ValueError) as error:
        raise SpaceError(f"{place}: {name} refuses its settings: {error}") from error
