"""What is served, by whose wish, and in which pool: all models and aliases, and what each pool's workers must know of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshserve.core.catalog import changeset
from meshserve.core.values import catalog, catalog_sync, desired, events, model


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A change of what one pool's workers must know."""

    pool: str
    change: catalog.Change


class CatalogIndex:
    """All models and aliases, and beside them each pool's share, which is exactly what its workers get."""

    def __init__(self) -> None:
        self.desired = desired.Desired(pools=())
        self.models = catalog.Catalog()
        self.aliases: dict[str, desired.DesiredAlias] = {}
        self.routes: dict[str, str] = {}
        self._shares: dict[str, catalog.Catalog] = {}
        self._wholes: dict[str, catalog_sync.Parts] = {}
        self._pools: dict[str, str] = {}
        self._meant: dict[str, set[str]] = {}
        self._moving: set[str] = set()
        self._by_origin: dict[model.Origin, set[model.ModelId]] = {}

    def draft(self, wanted: desired.Desired | None = None) -> changeset.Changeset:
        """A sheet for changes, held against the pools and LLMs of `wanted`, or of what is desired now."""
        return changeset.Changeset(self.models, self.aliases, wanted or self.desired)

    def share(self, pool: str) -> catalog.Catalog:
        """What the pool's workers must know."""
        return self._shares.setdefault(pool, catalog.Catalog())

    def whole(self, pool: str) -> catalog_sync.Parts:
        """All of it, cut for sending: the same parts for every worker until they change."""
        there = self._wholes.get(pool)
        if there is None:
            there = self._wholes[pool] = catalog_sync.split_changes(self.share(pool).changes())
        return there

    def pool_of(self, name: str) -> str | None:
        """The pool that serves a model or an alias."""
        alias = self.aliases.get(name)
        return self._pools.get(alias.name if alias else name)

    def aliases_of(self, name: str) -> frozenset[str]:
        """The aliases that mean the model now."""
        return frozenset(self._meant.get(name, ()))

    def needing(self, name: str) -> tuple[desired.DesiredAlias, ...]:
        """The aliases that mean the model, or will."""
        meaning = [self.aliases[alias] for alias in sorted(self.aliases_of(name))]
        return (*meaning, *(alias for alias in self.moving() if alias.target == name))

    def moving(self) -> tuple[desired.DesiredAlias, ...]:
        """The aliases whose target has not taken over yet."""
        return tuple(self.aliases[alias] for alias in sorted(self._moving))

    def of_origin(self, origin: model.Origin) -> frozenset[model.ModelId]:
        """What was declared by that origin."""
        return frozenset(self._by_origin.get(origin, ()))

    def make(self, change: events.RegistryChange) -> tuple[PoolChange, ...]:
        """Make a change and say what the workers of which pools must know of it."""
        made = tuple(self._make(change))
        for each in made:
            self.share(each.pool).apply(each.change)
            self._wholes.pop(each.pool, None)
        return made

    def touched(self, changes: Iterable[events.RegistryChange]) -> dict[str, list[model.ModelId]]:
        """The names of models that the changes, not made yet, bear on, each with its versions that are declared anew."""
        names: dict[str, list[model.ModelId]] = {}
        for change in changes:
            match change:
                case catalog.ModelDeclared():
                    names.setdefault(change.spec.id.name, []).append(change.spec.id)
                case catalog.ModelWithdrawn():
                    names.setdefault(change.id.name, [])
                case desired.DesiredAlias() | catalog.AliasCleared():
                    meanings = [
                        self.aliases.get(change.alias),
                        change if isinstance(change, desired.DesiredAlias) else None,
                    ]
                    names.update((each.name, names.get(each.name, [])) for each in meanings if each)
        return names

    def routes_of(self, names: Iterable[str]) -> dict[str, str]:
        """The routes of these models or aliases, and of the aliases that mean them."""
        wider = {each for name in names for each in (name, *self.aliases_of(name))}
        return {name: self.routes[name] for name in wider if name in self.routes}

    def _make(self, change: events.RegistryChange) -> Iterable[PoolChange]:
        match change:
            case catalog.ModelDeclared():
                return self._declare(change)
            case catalog.ModelWithdrawn():
                return self._withdraw(change)
            case desired.DesiredAlias():
                return self._set_alias(change)
            case catalog.AliasCleared():
                return self._clear_alias(change.alias)
            case desired.Desired():
                self.desired = change
                return ()

    def _declare(self, declared: catalog.ModelDeclared) -> Iterator[PoolChange]:
        id_, pool = declared.spec.id, declared.spec.pool
        before = self.models.declared(id_)
        if before is not None:
            self._by_origin[before.spec.origin].discard(id_)
            if before.spec.pool != pool:
                yield PoolChange(before.spec.pool, catalog.ModelWithdrawn(id_))
        self.models.apply(declared)
        self._by_origin.setdefault(declared.spec.origin, set()).add(id_)
        yield PoolChange(pool, declared)
        yield from self._place(id_.name, pool)

    def _withdraw(self, withdrawn: catalog.ModelWithdrawn) -> Iterator[PoolChange]:
        before = self.models.declared(withdrawn.id)
        if before is None:
            return
        self.models.apply(withdrawn)
        self._by_origin[before.spec.origin].discard(withdrawn.id)
        yield PoolChange(before.spec.pool, withdrawn)
        if not self.models.versions(withdrawn.id.name):
            yield from self._place(withdrawn.id.name, None)

    def _place(self, name: str, pool: str | None) -> Iterator[PoolChange]:
        """The name is served by another pool now, or by none, and with it all that means it."""
        before = self._pools.get(name)
        if before == pool:
            return
        if pool is None:
            del self._pools[name]
        else:
            self._pools[name] = pool
        for alias in sorted(self.aliases_of(name)):
            yield from self._tell(alias, before, pool)
            self._route(alias, pool)
        self._route(name, pool)

    def _tell(self, alias: str, before: str | None, pool: str | None) -> Iterator[PoolChange]:
        if before is not None and before != pool:
            yield PoolChange(before, catalog.AliasCleared(alias))
        if pool is not None:
            meaning = self.aliases[alias]
            yield PoolChange(pool, catalog.AliasSet(alias, meaning.name, meaning.version))

    def _set_alias(self, alias: desired.DesiredAlias) -> Iterator[PoolChange]:
        before = self.pool_of(alias.alias)
        self._forget_meaning(alias.alias)
        self.aliases[alias.alias] = alias
        if alias.target:
            self._moving.add(alias.alias)
        self._meant.setdefault(alias.name, set()).add(alias.alias)
        self.models.apply(catalog.AliasSet(alias.alias, alias.name, alias.version))
        pool = self._pools.get(alias.name)
        self._route(alias.alias, pool)
        yield from self._tell(alias.alias, before, pool)

    def _clear_alias(self, alias: str) -> Iterator[PoolChange]:
        if alias not in self.aliases:
            return
        before = self.pool_of(alias)
        self._forget_meaning(alias)
        self.models.apply(catalog.AliasCleared(alias))
        self._route(alias, None)
        yield from self._tell(alias, before, None)

    def _forget_meaning(self, alias: str) -> None:
        old = self.aliases.pop(alias, None)
        self._moving.discard(alias)
        if old is not None:
            self._meant[old.name].discard(alias)
            if not self._meant[old.name]:
                del self._meant[old.name]

    def _route(self, name: str, pool: str | None) -> None:
        if pool is None or pool == desired.DEFAULT_POOL:
            self.routes.pop(name, None)
        else:
            self.routes[name] = pool

    def check(self) -> None:
        """State what always holds: every version in exactly one share, and routes for exactly the names outside the default pool."""
        assert sum(map(len, self._shares.values())) == len(self.models)
        for declared in self.models:
            assert self.share(declared.spec.pool).declared(declared.spec.id) == declared
            assert self._pools[declared.spec.id.name] == declared.spec.pool
            assert declared.spec.id in self._by_origin[declared.spec.origin]
        for pool, cut in self._wholes.items():
            assert cut == catalog_sync.split_changes(self.share(pool).changes())
        named = {declared.spec.id.name for declared in self.models}
        assert named == set(self._pools)
        assert not named & set(self.aliases)
        self._check_aliases(named)

    def _check_aliases(self, named: set[str]) -> None:
        for alias in self.aliases.values():
            assert alias.alias in self._meant[alias.name]
            for pool, share in self._shares.items():
                assert (share.alias(alias.alias) is not None) == (pool == self.pool_of(alias.alias))
        pools = {name: self.pool_of(name) for name in named.union(self.aliases)}
        assert self.routes == {
            name: pool for name, pool in pools.items() if pool not in (None, desired.DEFAULT_POOL)
        }
