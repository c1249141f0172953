"""A journal that lasts as long as its process: for simulated searches, which have nothing to lose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from search.journal import Event, through_json


class MemoryJournal:
    """The event log of a study in memory; see `search.journal.EventLog`.

    Bodies go through JSON as in the file, so that a simulated study sees the very values that a live one sees. Events
    carry no time: there is no clock.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.header: Mapping[str, Any] = through_json(header)[1]
        self._events: list[Event] = []

    def append(self, kind: str, body: Mapping[str, Any]) -> Event:
        """Keep an event.

        Raises:
            ValueError: The body holds something that JSON has no word for.
        """
        event = Event(len(self._events) + 1, "", kind, through_json(body)[1])
        self._events.append(event)
        return event

    @contextmanager
    def group(self) -> Iterator[None]:
        """Do nothing more: there is no disk to wait for."""
        yield

    def events(self) -> Iterator[Event]:
        """Yield all events in order."""
        return iter(tuple(self._events))

    def close(self) -> None:
        """Keep the events for whoever still holds this."""
