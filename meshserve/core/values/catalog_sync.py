"""How a worker keeps its catalog equal to its pool's: numbered steps, and a whole catalog wherever one was missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import catalog, model

CHANGES_MAX = 1000
Parts = tuple[tuple[catalog.Change, ...], ...]


class MissedStep(errors.MeshError):
    """A step came that can't follow the last one: the whole catalog is needed."""


@dataclass(frozen=True, slots=True)
class SyncStep:
    """Changes that bring a catalog from the revision before to `revision`.

    A whole catalog comes in several steps: the first `begins` it, whatever was there before, and it holds from the one that `ends` it.
    """

    revision: int
    changes: tuple[catalog.Change, ...]
    begins: bool = False
    ends: bool = False


def steps(changes: Iterable[catalog.Change], revision: int) -> Iterator[SyncStep]:
    """The changes in messages of bounded size, from the revision after `revision` on."""
    for number, part in enumerate(parts(changes), revision + 1):
        yield SyncStep(number, part)


def whole(changes: Iterable[catalog.Change], revision: int) -> tuple[SyncStep, ...]:
    """A whole catalog in messages of bounded size; at least one, however empty."""
    return whole_of(parts(changes), revision)


def whole_of(cut: Parts, revision: int) -> tuple[SyncStep, ...]:
    """The same of a catalog that is cut already: many workers may share the parts."""
    last = max(0, len(cut) - 1)
    return tuple(
        SyncStep(revision + 1 + i, part, begins=i == 0, ends=i == last)
        for i, part in enumerate(cut or ((),))
    )


def parts(changes: Iterable[catalog.Change]) -> Parts:
    """The changes in parts of bounded size."""
    every = tuple(changes)
    return tuple(every[start : start + CHANGES_MAX] for start in range(0, len(every), CHANGES_MAX))


class CatalogFollower:
    """A worker's catalog. `revision` is the last step's, 0 before the first; `is_whole` once a whole one has come."""

    def __init__(self) -> None:
        self.revision = 0
        self.is_whole = False
        self.catalog = catalog.Catalog()
        self._coming: catalog.Catalog | None = None

    def take(self, step: SyncStep) -> tuple[catalog.Change, ...]:
        """Take a step in and say what it changes here: nothing until a whole catalog has ended. Raises Gap, and changes nothing then."""
        if not step.begins and (step.revision != self.revision + 1 or self.revision == 0):
            raise MissedStep(f"step {step.revision} can't follow revision {self.revision}")
        if step.begins:
            self._coming = catalog.Catalog()
        self.revision = step.revision
        if self._coming is not None:
            return self._take_part(self._coming, step)
        for change in step.changes:
            self.catalog.apply(change)
        return step.changes

    def _take_part(self, coming: catalog.Catalog, step: SyncStep) -> tuple[catalog.Change, ...]:
        for change in step.changes:
            coming.apply(change)
        if not step.ends:
            return ()
        before, self.catalog, self._coming = self.catalog, coming, None
        self.is_whole = True
        return tuple(difference(before, coming))


def difference(before: catalog.Catalog, after: catalog.Catalog) -> Iterator[catalog.Change]:
    """The changes that make `after` out of `before`: names are freed before they are taken."""
    yield from (
        catalog.AliasCleared(alias.alias)
        for alias in before.aliases()
        if after.alias(alias.alias) is None
    )
    yield from (
        catalog.ModelWithdrawn(each.spec.id)
        for each in before
        if after.declared(each.spec.id) is None
    )
    yield from (each for each in after if before.declared(each.spec.id) != each)
    yield from (alias for alias in after.aliases() if before.alias(alias.alias) != alias)


def same_copy(one: model.ModelSpec, other: model.ModelSpec) -> bool:
    """Whether a copy of the one serves the other as well: what differs is only who declared it, and whether it is pinned."""
    fields = (field for field in model.ModelSpec.__slots__ if field not in ("origin", "pinned"))
    return all(getattr(one, field) == getattr(other, field) for field in fields)
