"""Copies that are loaded before any request: pinned models, and targets of moving aliases.

Requests for a name go to the worker that is the name's home. So a pinned model is pinned at the
home of its own name, and at the home of each alias that means it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable

from meshserve.core.catalog import catalog_index
from meshserve.core.mesh import copy_requests
from meshserve.core.processes import workers
from meshserve.core.values import catalog, commands, desired, events, model

RETRY_S = 30.0
Place = tuple[str, model.ModelId]
"""A worker's id, and a model on it."""


class Pins:
    """The pins and loads that were ordered, by worker.

    `pinned` maps each pinned model to the workers that pin it, `loading` each moving alias to the
    place where its target is being loaded.
    """

    def __init__(
        self, index: catalog_index.CatalogIndex, workers_: workers.Workers, out: commands.Outbox
    ) -> None:
        self.pinned: dict[model.ModelId, frozenset[str]] = {}
        self.loading: dict[str, Place] = {}
        self._index = index
        self._workers = workers_
        self._out = out
        self._pools: dict[model.ModelId, str] = {}
        self._pinned_counts: collections.Counter[str] = collections.Counter()
        self._versions: dict[str, set[str]] = {}
        self._retry_at_s: dict[Place, float] = {}

    def forget_worker(self, worker_id: str) -> None:
        """Forget what was ordered on a worker whose process has ended."""
        for id_, homes in self.pinned.items():
            self.pinned[id_] = homes - {worker_id}
        self.loading = {
            alias: place for alias, place in self.loading.items() if place[0] != worker_id
        }
        self._retry_at_s = {
            place: at_s for place, at_s in self._retry_at_s.items() if place[0] != worker_id
        }

    def follow_name(self, name: str, declared: Iterable[model.ModelId]) -> None:
        """Order the pins and loads that a change of the model, or of an alias of it, requires.

        `declared` are the versions that were declared anew: a pinned one is loaded again.
        """
        # Versions that were pinned before are followed too: they may have been withdrawn.
        redeclared = set(declared)
        declarations = self._index.models.declarations(name)
        for version in sorted({*declarations, *self._versions.get(name, ())}):
            id_ = model.ModelId(name, version)
            self._follow(id_, is_redeclared=id_ in redeclared)

    def follow_pool(self, pool: str) -> None:
        """Order the pins and loads that a change of the pool's ready workers requires."""
        # A list, because `_follow` adds and removes pools of models.
        for id_ in [id_ for id_, of_pool in self._pools.items() if of_pool == pool]:
            self._follow(id_, is_redeclared=False)

    def _follow(self, id_: model.ModelId, *, is_redeclared: bool) -> None:
        # Each registration comes here, and nearly no model is pinned.
        if id_ not in self.pinned and self._pinned_declaration(id_) is None:
            return
        before, after = self.pinned.get(id_, frozenset()), self.homes(id_)
        self._remember(id_, after)
        # Sorted, because a set's order differs between processes, and commands must not.
        for worker_id in sorted(before - after):
            # A worker that is not ready has lost its pins, or is about to.
            if self._workers.is_ready(worker_id):
                self._out.append(commands.Unpin(worker_id, id_))
        for worker_id in sorted(after if is_redeclared else after - before):
            self._out.append(commands.Pin(worker_id, id_))
            self._load((worker_id, id_))

    def _remember(self, id_: model.ModelId, homes: frozenset[str]) -> None:
        declared = self._pinned_declaration(id_)
        before = self._pools.get(id_)
        if before is not None:
            self._pinned_counts[before] -= 1
        if declared is not None:
            self.pinned[id_], self._pools[id_] = homes, declared.spec.pool
            self._pinned_counts[declared.spec.pool] += 1
            self._versions.setdefault(id_.name, set()).add(id_.version)
        elif self.pinned.pop(id_, None) is not None:
            del self._pools[id_]
            self._versions[id_.name].discard(id_.version)

    def has_pinned(self, pool: str) -> bool:
        """Return whether a model of the pool is pinned, loaded or not."""
        return self._pinned_counts[pool] > 0

    def _pinned_declaration(self, id_: model.ModelId) -> catalog.ModelDeclared | None:
        declared = self._index.models.declared(id_)
        return declared if declared and declared.spec.pinned else None

    def homes(self, id_: model.ModelId) -> frozenset[str]:
        """Return the ready workers that must pin the model; none if it is not pinned."""
        declared = self._pinned_declaration(id_)
        if declared is None:
            return frozenset()
        aliases = (
            alias
            for alias in self._index.aliases_of(id_.name)
            if self._index.models.resolve(alias) == id_
        )
        homes = (self._workers.home(declared.spec.pool, name) for name in (id_.name, *aliases))
        return frozenset(home for home in homes if home is not None)

    def follow_moving(self) -> None:
        """Order the loads that moving aliases wait for."""
        moving = self._index.moving()
        # Nearly always no alias moves, and this runs after every event.
        if not (moving or self.loading):
            return
        names = {alias.alias for alias in moving}
        self.loading = {name: place for name, place in self.loading.items() if name in names}
        for alias in moving:
            place = self._target(alias)
            if place is not None and self.loading.get(alias.alias) != place:
                self.loading[alias.alias] = place
                self._load(place)

    def _target(self, alias: desired.DesiredAlias) -> Place | None:
        # The target is loaded at the alias's home, because requests for the alias will go there.
        pool = self._index.pool_of(alias.target)
        home = self._workers.home(pool, alias.alias) if pool else None
        return (home, self._index.models.resolve(alias.target)) if home else None

    def _load(self, place: Place) -> None:
        self._out.append(copy_requests.load_command(self._index, *place))

    def copy_ensured(
        self, event: events.CopyEnsured, now_s: float
    ) -> tuple[desired.DesiredAlias, ...]:
        """Schedule the next try of a failed load; return the aliases that waited for this load."""
        place = (event.worker_id, event.id)
        # Also after a success: if the alias's move can't be saved, this retry repeats it.
        if event.failure or place in self.loading.values():
            self._retry_at_s[place] = now_s + RETRY_S
        return tuple(
            alias for alias in self._index.moving() if self.loading.get(alias.alias) == place
        )

    def load_again(self, aliases: Iterable[desired.DesiredAlias]) -> None:
        """Have the targets of these aliases loaded once more."""
        for alias in aliases:
            self.loading.pop(alias.alias, None)

    def retry(self, now_s: float) -> None:
        """Order the loads whose next try is due, where they are still needed."""
        due = [place for place, at_s in self._retry_at_s.items() if at_s <= now_s]
        for worker_id, id_ in due:
            del self._retry_at_s[worker_id, id_]
            if worker_id in self.pinned.get(id_, ()) or (worker_id, id_) in self.loading.values():
                self._load((worker_id, id_))

    def check(self) -> None:
        """Assert that every pinned model is pinned on exactly its homes."""
        pinned = {declared.spec.id for declared in self._index.models if declared.spec.pinned}
        assert set(self.pinned) == pinned
        for id_ in pinned:
            assert self.pinned[id_] == self.homes(id_)
        assert +self._pinned_counts == collections.Counter(self._pools.values())
