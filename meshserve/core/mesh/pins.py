"""Which copies must be there before anybody asks: pinned models at their homes, and the models that aliases wait for.

A name's requests go to the home of that name, so a pinned model is at home where its own name is, and where each alias is that means it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshserve import errors
from meshserve.core.catalog import catalog_index
from meshserve.core.processes import workers
from meshserve.core.values import catalog, commands, desired, events, model

RETRY_S = 30.0
Place = tuple[str, model.ModelId]


class Pins:
    """What was asked of which worker.

    `held` says where each pinned model is pinned, `sought` where the target of each moving alias is loaded.
    """

    def __init__(self, book: catalog_index.CatalogIndex, workers: workers.Workers) -> None:
        self.held: dict[model.ModelId, frozenset[str]] = {}
        self.sought: dict[str, Place] = {}
        self._book = book
        self._workers = workers
        self._pools: dict[model.ModelId, str] = {}
        self._versions: dict[str, set[str]] = {}
        self._retry_at_s: dict[Place, float] = {}

    def forget_worker(self, worker_id: str) -> None:
        """The worker's process holds nothing any more."""
        for id_, homes in self.held.items():
            self.held[id_] = homes - {worker_id}
        self.sought = {
            alias: place for alias, place in self.sought.items() if place[0] != worker_id
        }
        self._retry_at_s = {
            place: at_s for place, at_s in self._retry_at_s.items() if place[0] != worker_id
        }

    def follow_name(
        self, name: str, declared: Iterable[model.ModelId]
    ) -> Iterator[commands.Command]:
        """What a change of the model, or of an alias for it, asks for. `declared` are the versions that must be loaded once more."""
        fresh = set(declared)
        for version in sorted(
            self._versions.get(name, set()).union(self._book.models.versions(name))
        ):
            id_ = model.ModelId(name, version)
            yield from self._follow(id_, is_fresh=id_ in fresh)

    def follow_pool(self, pool: str) -> Iterator[commands.Command]:
        """What a change among the pool's ready workers asks for."""
        for id_ in [id_ for id_, at in self._pools.items() if at == pool]:
            yield from self._follow(id_, is_fresh=False)

    def _follow(self, id_: model.ModelId, *, is_fresh: bool) -> Iterator[commands.Command]:
        before, after = self.held.get(id_, frozenset()), self.homes(id_)
        self._note(id_, after)
        for worker_id in sorted(before - after):
            if self._workers.is_ready(worker_id):
                yield commands.Unpin(worker_id, id_)
        for worker_id in sorted(after if is_fresh else after - before):
            yield commands.Pin(worker_id, id_)
            yield self._ensure(worker_id, id_)

    def _note(self, id_: model.ModelId, homes: frozenset[str]) -> None:
        declared = self._pinned(id_)
        if declared is not None:
            self.held[id_], self._pools[id_] = homes, declared.spec.pool
            self._versions.setdefault(id_.name, set()).add(id_.version)
        elif self.held.pop(id_, None) is not None:
            del self._pools[id_]
            self._versions[id_.name].discard(id_.version)

    def _pinned(self, id_: model.ModelId) -> catalog.ModelDeclared | None:
        declared = self._book.models.declared(id_)
        return declared if declared and declared.spec.pinned else None

    def homes(self, id_: model.ModelId) -> frozenset[str]:
        """The ready workers where the model must be pinned; none if it need not be."""
        declared = self._pinned(id_)
        if declared is None:
            return frozenset()
        names = [
            id_.name,
            *(
                alias
                for alias in self._book.aliases_of(id_.name)
                if self._book.models.resolve(alias) == id_
            ),
        ]
        homes = (self._workers.home(declared.spec.pool, name) for name in names)
        return frozenset(home for home in homes if home is not None)

    def follow_moving(self) -> Iterator[commands.Command]:
        """What the aliases that wait for their target ask for."""
        moving = {alias.alias: alias for alias in self._book.moving()}
        self.sought = {name: place for name, place in self.sought.items() if name in moving}
        for alias in moving.values():
            place = self._target(alias)
            if place is not None and self.sought.get(alias.alias) != place:
                self.sought[alias.alias] = place
                yield self._ensure(*place)

    def _target(self, alias: desired.DesiredAlias) -> Place | None:
        pool = self._book.pool_of(alias.target)
        home = self._workers.home(pool, alias.alias) if pool else None
        try:
            return (home, self._book.models.resolve(alias.target)) if home else None
        except errors.ModelNotFound:
            return None

    def _ensure(self, worker_id: str, id_: model.ModelId) -> commands.EnsureLoaded:
        declared = self._book.models.declared(id_)
        return commands.EnsureLoaded(
            worker_id, id_, declared.spec.load_timeout_s if declared else 0.0
        )

    def ensured(self, event: events.CopyEnsured, now_s: float) -> tuple[desired.DesiredAlias, ...]:
        """The aliases that waited for this end of a load. What failed is tried again some time later."""
        place = (event.worker_id, event.id)
        if event.failure or place in self.sought.values():
            self._retry_at_s[place] = now_s + RETRY_S
        return tuple(
            alias for alias in self._book.moving() if self.sought.get(alias.alias) == place
        )

    def seek_again(self, aliases: Iterable[desired.DesiredAlias]) -> None:
        """Ask once more for these aliases' targets."""
        for alias in aliases:
            self.sought.pop(alias.alias, None)

    def retry(self, now_s: float) -> Iterator[commands.Command]:
        """What is to be tried again now."""
        due = [place for place, at_s in self._retry_at_s.items() if at_s <= now_s]
        for worker_id, id_ in due:
            del self._retry_at_s[worker_id, id_]
            if worker_id in self.held.get(id_, ()) or (worker_id, id_) in self.sought.values():
                yield self._ensure(worker_id, id_)

    def check(self) -> None:
        """State what always holds: every pinned model is pinned on exactly its homes."""
        pinned = {declared.spec.id for declared in self._book.models if declared.spec.pinned}
        assert set(self.held) == pinned
        for id_ in pinned:
            assert self.held[id_] == self.homes(id_)
