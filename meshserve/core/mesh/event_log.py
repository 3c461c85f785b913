"""The last events of a mesh: of each kind so many, so that none pushes out another."""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from meshserve.core.values import mesh_events

COPY_EVENTS_MAX = 4000
OTHER_EVENTS_MAX = 1000
FREQUENT = frozenset({"loaded", "evicted", "unloaded", "parked"})
"""Kinds of which a mesh that is short of memory has thousands a minute."""


class EventChoice(NamedTuple):
    """Which events to read: those after the one numbered `after`, not before `since_s`.

    `about` is a model, `model:version`, worker, replica, LLM, pool or node; "" is all. Of more
    than `limit` the newest are read, but with `after` the oldest, so that a reader misses none.
    """

    about: str = ""
    kind: str = ""
    after: int | None = None
    since_s: float | None = None
    limit: int = 1000


class NumberedEvent(NamedTuple):
    """An event with its number in the log, in which a later one has a higher number."""

    number: int
    event: mesh_events.MeshEvent


class EventLog:
    """Events by kind, numbered from 1 in the order in which the controller learned of them.

    `missed` counts what workers could not tell, because more happened than they remember.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._rings: dict[str, collections.deque[NumberedEvent]] = {
            kind: collections.deque(
                maxlen=COPY_EVENTS_MAX if kind in FREQUENT else OTHER_EVENTS_MAX
            )
            for kind in mesh_events.KINDS
        }
        self._numbers = itertools.count(1)
        self.last_number = 0

    def add(self, event: mesh_events.MeshEvent) -> None:
        """Append an event, in place of the oldest of its kind if there are too many."""
        self.last_number = next(self._numbers)
        self._rings[event.kind].append(NumberedEvent(self.last_number, event))

    def read(self, choice: EventChoice) -> list[NumberedEvent]:
        """Return the chosen events in the order of their numbers."""
        chosen = self._chosen(choice)
        if choice.after is not None:
            return list(itertools.islice(chosen, choice.limit))
        return list(collections.deque(chosen, maxlen=choice.limit))

    def _chosen(self, choice: EventChoice) -> Iterator[NumberedEvent]:
        rings = [ring for kind, ring in self._rings.items() if choice.kind in ("", kind)]
        for numbered in heapq.merge(*rings):
            event = numbered.event
            if (
                numbered.number > (choice.after or 0)
                and (choice.since_s is None or event.at_s >= choice.since_s)
                and (not choice.about or _is_about(event, choice.about))
            ):
                yield numbered


def _is_about(event: mesh_events.MeshEvent, about: str) -> bool:
    # A worker's id is its pool's name with a number after `-`, a replica's that of its LLM after /.
    pool, llm = event.process.rpartition("-")[0], event.process.rpartition("/")[0]
    versioned = f"{event.model}:{event.version}"
    names = (event.model, versioned, event.process, event.node, event.pool, pool, llm)
    return about in names
