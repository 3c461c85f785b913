"""The last things that happened to one worker's copies, for its reports."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection

from meshserve.core.memory import copies, version_choice
from meshserve.core.values import mesh_events, model, model_figures

EVENTS_MAX = 500
"""A worker that loads and evicts without pause has some 600 events a second, and reports once."""

NAMES_MAX = 8
"""Models of one copy that are told of; thousands may share the same bytes."""


class CopyHistory:
    """Numbered events, of which the oldest are forgotten first. All times are of one clock."""

    def __init__(self) -> None:
        self._events: collections.deque[tuple[float, mesh_events.CopyEvent]] = collections.deque(
            maxlen=EVENTS_MAX
        )
        self._numbers = itertools.count(1)
        self._figures: collections.defaultdict[model.ModelId, model_figures.ModelFigures] = (
            collections.defaultdict(model_figures.ModelFigures)
        )

    def count_load(self, copy: copies.Copy) -> None:
        """Count a load for each model that has waited for it, else for the copy's first ones."""
        for id_ in first_names(set(copy.waiters.values()) or copy.names):
            self._figures[id_].loads += 1
            self._figures[id_].load_s += copy.load_s

    def count_eviction(self, copy: copies.Copy) -> None:
        """Count an eviction for the copy's first models."""
        for id_ in first_names(copy.names):
            self._figures[id_].evictions += 1

    def take_figures(self) -> list[tuple[model.ModelId, model_figures.ModelFigures]]:
        """Return the loads and evictions by model since the last call."""
        taken = list(self._figures.items())
        self._figures.clear()
        return taken

    def note(
        self,
        kind: mesh_events.CopyKind,
        ids: Collection[model.ModelId],
        now_s: float,
        reason: str = "",
        took_s: float = 0.0,
    ) -> None:
        """Note what happens now to the copy of these models."""
        for id_ in first_names(ids):
            event = mesh_events.CopyEvent(next(self._numbers), kind, id_, reason, took_s)
            self._events.append((now_s, event))

    def after(self, number: int, now_s: float) -> tuple[mesh_events.CopyEvent, ...]:
        """Return the events after the one of this number, oldest first, as they are told now."""
        later = itertools.takewhile(lambda entry: entry[1].number > number, reversed(self._events))
        entries = [event._replace(ago_s=now_s - at_s) for at_s, event in later]
        return tuple(reversed(entries))


def first_names(ids: Collection[model.ModelId]) -> list[model.ModelId]:
    """Return the first of these models by name, as users know them."""
    return sorted(set(map(version_choice.public_id, ids)))[:NAMES_MAX]


def in_words(copy: copies.Copy) -> str:
    """Return the names of the models with a copy, the first ones of many."""
    names = first_names(copy.names)
    more = f" and {len(copy.names) - len(names)} more" if len(copy.names) > len(names) else ""
    return ", ".join(map(str, names)) + more or f"copy {copy.key}"
