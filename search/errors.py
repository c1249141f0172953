"""Errors of the search.

SpaceError(ValueError)        a space file, a profile, a flag or a configuration is wrong            -> exit 2
ProtocolError(RuntimeError)   `ask`, `observe` and `finish` came in an order that cannot be
JournalError(RuntimeError)    the journal cannot be read, is locked, or belongs to something else    -> exit 4
"""

from __future__ import annotations


class SpaceError(ValueError):
    """One or more things wrong with a space file, reported together.

    Args:
        problems: One line each: where, expected, found, what to do.
    """

    def __init__(self, problems: tuple[str, ...] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[SpaceError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class ProtocolError(RuntimeError):
    """An optimizer or a study was called out of order."""


class JournalError(RuntimeError):
    """The journal cannot be used; the message says which file, why, and what to do."""
