"""A registry in memory, and repositories whose scans a test provides."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Sequence

from meshserve import errors
from meshserve.core.interfaces import cluster_control, registry_store
from meshserve.core.values import catalog, desired, model, registry_contents, reports


class FakeStore:
    """Implements `registry_store.RegistryStore`.

    With `is_broken` every write fails; with `stall` every write waits until the event is set. A
    test changes `lease` to have another mesh take the registry. With `is_unsure` a save keeps its
    changes, and raises OutcomeUnknown.
    """

    def __init__(self) -> None:
        self.models: dict[model.ModelId, catalog.ModelDeclared] = {}
        self.aliases: dict[str, desired.DesiredAlias] = {}
        self.document = ""
        self.learned: dict[model.ModelId, model.Measured] = {}
        self.is_broken = False
        self.is_unsure = False
        self.stall: threading.Event | None = None
        self.lease = registry_contents.WriteLease()
        self._epoch = 0

    def load(self) -> registry_contents.RegistryContents:
        """Return everything that was saved."""
        measured = (
            dataclasses.replace(declared, measured=self.learned.get(id_))
            for id_, declared in self.models.items()
        )
        return registry_contents.RegistryContents(
            (*measured, *self.aliases.values()), self.document, "fake"
        )

    def save(self, changes: Sequence[registry_contents.RegistryChange]) -> None:
        """Keep the changes. Raises Unavailable if `is_broken`."""
        self._check()
        for change in changes:
            self._save(change)
        if self.is_unsure:
            raise registry_store.OutcomeUnknown("the connection broke")

    def settle(self) -> bool:
        """Return True: saves that are unsure are kept. Raises Unavailable if `is_broken`."""
        self._check()
        return True

    def read_lease(self) -> registry_contents.WriteLease:
        """Return `lease`."""
        return self.lease

    def take_lease(self, holder: str, about: str, seen: registry_contents.WriteLease) -> bool:
        """Take the lease if it is as `seen`."""
        if seen != self.lease:
            return False
        self._epoch = seen.epoch + 1
        self.lease = registry_contents.WriteLease(holder, about, self._epoch, seen.beats + 1)
        return True

    def renew_lease(self) -> None:
        """Count a beat. Raises as a save does."""
        self._check()
        self.lease = dataclasses.replace(self.lease, beats=self.lease.beats + 1)

    def release_lease(self) -> None:
        """Leave the lease."""
        if self.lease.epoch == self._epoch:
            self.lease = dataclasses.replace(self.lease, holder="", about="")

    def interrupt(self) -> None:
        """Have the calls fail that wait for `stall`: none does, as with SQLite."""

    def _save(self, change: registry_contents.RegistryChange) -> None:
        match change:
            case catalog.ModelDeclared():
                self.models[change.spec.id] = change
            case catalog.ModelWithdrawn():
                self.models.pop(change.id, None)
            case desired.DesiredAlias():
                self.aliases[change.alias] = change
            case catalog.AliasCleared():
                self.aliases.pop(change.alias, None)
            case desired.Desired():
                self.document = change.document

    def remember(self, learned: Sequence[reports.LearnedMeasurement]) -> None:
        """Keep the measurements. Raises Unavailable if `is_broken`."""
        self._check()
        self.learned.update((measurement.id, measurement.measured) for measurement in learned)

    def _check(self) -> None:
        if self.stall is not None:
            # Blocks its thread, as a database that does not answer does.
            self.stall.wait()
        if self.lease.epoch != self._epoch:
            raise registry_store.LeaseLost(f"{self.lease.about} has taken the registry")
        if self.is_broken:
            raise errors.Unavailable("the registry is broken")


class FakeWatch:
    """Implements `cluster_control.RepositoryWatch`; a test adds a repository's scans by `put`.

    `known` has what each generator of scans began with, `looks` the names of models looked at. A
    test sets what `as_declared` returns.
    """

    def __init__(self) -> None:
        self._scans: dict[str, asyncio.Queue[cluster_control.RepositoryScan]] = {}
        self.known: dict[str, tuple[model.ModelSpec, ...]] = {}
        self.looks: list[str] = []
        self.declared: tuple[model.ModelSpec, ...] = ()

    def put(self, place: str, scan: cluster_control.RepositoryScan) -> None:
        """Add the next scan of the repository at `place`."""
        self._scans.setdefault(place, asyncio.Queue()).put_nowait(scan)

    async def scans(
        self,
        repository: desired.RepositorySettings,
        load_timeout_s: float,
        known: tuple[model.ModelSpec, ...] = (),
    ) -> AsyncIterator[cluster_control.RepositoryScan]:
        """Yield the added scans in order. Raises InvalidRequest for a timeout of 0 or less."""
        self.known[repository.place] = known
        if load_timeout_s <= 0:
            raise errors.InvalidRequest("no time to load")
        scans = self._scans.setdefault(repository.place, asyncio.Queue())
        yield await scans.get()
        # Without a watch a repository is scanned once.
        while repository.watch:
            yield await scans.get()

    async def look_at(self, repository: desired.RepositorySettings, name: str) -> None:  # noqa: ARG002
        """Note the name."""
        self.looks.append(name)

    async def as_declared(
        self,
        repository: desired.RepositorySettings,  # noqa: ARG002
        spec: model.ModelSpec,  # noqa: ARG002
        configuration: str,  # noqa: ARG002
    ) -> tuple[model.ModelSpec, ...]:
        """Return `declared`."""
        return self.declared
