"""The protocol by which workers follow their pool's catalog: numbered steps of catalog changes.

A worker that missed a step gets the full catalog again, and serves by the old one until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import catalog, containment, model

CHANGES_MAX = 1000
"""Changes in one step: bounds the size of one message, and the time that a worker spends on it."""

Parts = tuple[tuple[catalog.Change, ...], ...]


class MissedStep(errors.MeshError):
    """A step does not follow the last one, so the worker needs the full catalog.

    A MeshError although no user sees it: it crosses from the worker's process to the controller's.
    """


@dataclass(frozen=True, slots=True)
class SyncStep:
    """Changes that bring a catalog from revision `revision` - 1 to `revision`.

    A full catalog is sent as a series of steps: the worker begins an empty catalog with the step
    that `is_first`, and replaces its old catalog after the one that `is_last`.
    """

    revision: int
    changes: tuple[catalog.Change, ...]
    is_first: bool = False
    is_last: bool = False


def split_changes(changes: Iterable[catalog.Change]) -> Parts:
    """Return the changes in parts of at most `CHANGES_MAX`."""
    ordered = tuple(changes)
    starts = range(0, len(ordered), CHANGES_MAX)
    return tuple(ordered[start : start + CHANGES_MAX] for start in starts)


def incremental_steps(parts: Parts, revision: int) -> Iterator[SyncStep]:
    """Yield the steps that make the changes in `parts` in a catalog of revision `revision`.

    All workers of a pool share the parts.
    """
    return (SyncStep(number, part) for number, part in enumerate(parts, revision + 1))


def full_steps(parts: Parts, revision: int) -> tuple[SyncStep, ...]:
    """Return the steps that replace a catalog of revision `revision` by the catalog in `parts`.

    An empty catalog takes one step.
    """
    # A worker takes requests only after a step that is last, so an empty catalog has one too.
    last = max(0, len(parts) - 1)
    return tuple(
        SyncStep(revision + 1 + i, part, is_first=i == 0, is_last=i == last)
        for i, part in enumerate(parts or ((),))
    )


class CatalogFollower:
    """A worker's catalog.

    `revision` is that of the last step applied, 0 before the first step. `is_complete` is true
    from the first full catalog on.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.is_complete = False
        self.catalog = catalog.Catalog()
        self._incoming: catalog.Catalog | None = None

    def apply(self, step: SyncStep) -> tuple[catalog.Change, ...]:
        """Apply a step and return how `catalog` changed.

        The parts of a full catalog change nothing until the last one has come.

        Raises MissedStep, without any change, if the step does not follow the last one.
        """
        # At revision 0 the worker has no catalog that an incremental step could change.
        if not step.is_first and (step.revision != self.revision + 1 or self.revision == 0):
            raise MissedStep(f"step {step.revision} can't follow revision {self.revision}")
        if step.is_first:
            self._incoming = catalog.Catalog()
        # The revision grows with each part of a full catalog, so that a missing part is noticed.
        self.revision = step.revision
        if self._incoming is not None:
            return self._apply_part(self._incoming, step)
        for change in step.changes:
            self.catalog.apply(change)
        return step.changes

    def _apply_part(self, incoming: catalog.Catalog, step: SyncStep) -> tuple[catalog.Change, ...]:
        for change in step.changes:
            incoming.apply(change)
        if not step.is_last:
            return ()
        before, self.catalog, self._incoming = self.catalog, incoming, None
        self.is_complete = True
        return tuple(difference(before, incoming))


def difference(before: catalog.Catalog, after: catalog.Catalog) -> Iterator[catalog.Change]:
    """Yield the changes that turn `before` into `after`; removals come first, to free the names.

    No suspicion ends, and no stop of joining: a controller that has just started may not know of it
    yet.
    """
    for alias in before.aliases():
        if after.alias(alias.alias) is None:
            yield catalog.AliasCleared(alias.alias)
    for declared in before:
        if after.declared(declared.spec.id) is None:
            yield catalog.ModelWithdrawn(declared.spec.id)
    yield from (declared for declared in after if before.declared(declared.spec.id) != declared)
    yield from (alias for alias in after.aliases() if before.alias(alias.alias) != alias)
    for key in before.quarantines.keys() - after.quarantines.keys():
        yield containment.QuarantineEnded(key)
    yield from (
        standing
        for standing in after.standings()
        if standing not in (before.suspects.get(standing.key), before.quarantines.get(standing.key))
    )
    yield from (
        stop for key, stop in after.join_stops.items() if before.join_stops.get(key) != stop
    )


def can_share_copy(one: model.ModelSpec, other: model.ModelSpec) -> bool:
    """Return whether one copy serves both specs.

    They differ at most in origin, pin and unload, and in what they replace.
    """
    # None of those says anything about the bytes of a copy, nor how it runs.
    return one == dataclasses.replace(
        other,
        origin=one.origin,
        pinned=one.pinned,
        unloaded=one.unloaded,
        replaced=one.replaced,
    )
