"""All models and aliases that are served, and the share of them that each pool's workers get."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from meshserve.core.catalog import node_table
from meshserve.core.values import (
    catalog,
    catalog_sync,
    containment,
    desired,
    model,
    nodes,
    registry_contents,
    reports,
)

JOIN_STOPS_MAX = 10_000
"""Copies that are remembered as never to be joined: old keys of changed artifacts are among them.
"""

MEASURING_NOISE = 0.2
"""Footprints that differ by less of the larger one are one footprint, measured twice."""

ChangesByPool = dict[str, list[catalog.Change]]


@dataclass(frozen=True, slots=True)
class PoolChange:
    """A change of the catalog of one pool's workers."""

    pool: str
    change: catalog.Change


def _alias_set(alias: desired.DesiredAlias) -> catalog.AliasSet:
    return catalog.AliasSet(alias.alias, alias.name, alias.version, alias.before)


class CatalogIndex:
    """All models and aliases, and for each pool the share of them that its workers get.

    No query costs more with more models, so that no event does.
    """

    def __init__(self) -> None:
        self.desired = desired.Desired(pools=())
        self.nodes = node_table.NodeTable()
        self.models = catalog.Catalog()
        self.aliases: dict[str, desired.DesiredAlias] = {}
        self.routes: dict[str, str] = {}
        self._shares: dict[str, catalog.Catalog] = {}
        # A share cut for sending, kept until it changes: cut once for all workers of the pool.
        # In simulation, losing a tenth of 1,000 workers with 1,000,000 models took 31 s without
        # this and without looking at changed workers alone, 1.4 s with both.
        self._parts: dict[str, catalog_sync.Parts] = {}
        self._pools: dict[str, str] = {}
        self._aliases_of: dict[str, set[str]] = {}
        self._moving: set[str] = set()
        self._by_origin: dict[model.Origin, set[model.ModelId]] = {}
        self._pool_changes: list[PoolChange] = []

    # Reading

    def share(self, pool: str) -> catalog.Catalog:
        """Return the catalog of the pool's workers."""
        share = self._shares.get(pool)
        if share is None:
            # What was found of a copy holds in all pools, also in one that comes later.
            of_copies = (*self.models.standings(), *self.models.join_stops.values())
            share = self._shares[pool] = catalog.Catalog(of_copies)
        return share

    def parts(self, pool: str) -> catalog_sync.Parts:
        """Return the catalog of the pool's workers, cut for sending."""
        parts = self._parts.get(pool)
        if parts is None:
            parts = self._parts[pool] = catalog_sync.split_changes(self.share(pool).changes())
        return parts

    def pool_of(self, name: str) -> str | None:
        """Return the pool that serves a model or an alias, None if nothing has this name."""
        alias = self.aliases.get(name)
        return self._pools.get(alias.name if alias else name)

    def aliases_of(self, name: str) -> frozenset[str]:
        """Return the aliases that mean the model now."""
        return frozenset(self._aliases_of.get(name, ()))

    def needing(self, name: str) -> tuple[desired.DesiredAlias, ...]:
        """Return the aliases that mean the model now, or will once they have moved."""
        meaning = [self.aliases[alias] for alias in sorted(self.aliases_of(name))]
        return (*meaning, *(alias for alias in self.moving() if alias.target == name))

    def moving(self) -> tuple[desired.DesiredAlias, ...]:
        """Return the aliases whose target has not taken over yet."""
        return tuple(self.aliases[alias] for alias in sorted(self._moving))

    def of_origin(self, origin: model.Origin) -> frozenset[model.ModelId]:
        """Return the versions that the origin has declared."""
        return frozenset(self._by_origin.get(origin, ()))

    def affected_names(
        self, changes: Iterable[registry_contents.RegistryChange]
    ) -> dict[str, list[model.ModelId]]:
        """Return the model names that changes, not applied yet, affect.

        The value holds the versions that the changes declare anew.
        """
        names: dict[str, list[model.ModelId]] = {}
        for change in changes:
            match change:
                case catalog.ModelDeclared():
                    names.setdefault(change.spec.id.name, []).append(change.spec.id)
                case catalog.ModelWithdrawn():
                    names.setdefault(change.id.name, [])
                case desired.DesiredAlias():
                    names.setdefault(change.name, [])
                    self._add_meaning(names, change.alias)
                case catalog.AliasCleared():
                    self._add_meaning(names, change.alias)
                case (
                    desired.Desired()
                    | containment.CopyQuarantined()
                    | containment.QuarantineEnded()
                    | nodes.NodeDraining()
                    | nodes.NodeDrainingEnded()
                ):
                    pass
                case _:
                    assert_never(change)
        return names

    def _add_meaning(self, names: dict[str, list[model.ModelId]], alias: str) -> None:
        before = self.aliases.get(alias)
        if before is not None:
            names.setdefault(before.name, [])

    def routes_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the routes of these models and aliases, and of the aliases that mean them."""
        with_aliases = {alias for name in names for alias in (name, *self.aliases_of(name))}
        return {name: self.routes[name] for name in with_aliases if name in self.routes}

    # Changing

    def apply_saved(self, changes: Iterable[registry_contents.RegistryChange]) -> ChangesByPool:
        """Apply saved changes; return the changes of pools' catalogs that follow from them."""
        return _by_pool(
            pool_change
            for change in changes
            for pool_change in self.apply(self._with_newest_measurement(change))
        )

    def _with_newest_measurement(
        self, change: registry_contents.RegistryChange
    ) -> registry_contents.RegistryChange:
        # A measurement that came while the change was being saved must not be overwritten.
        if not isinstance(change, catalog.ModelDeclared):
            return change
        declared = self.models.declared(change.spec.id)
        measured = declared.measurement_for(change.spec) if declared else None
        return dataclasses.replace(change, measured=measured or change.measured)

    def learn(
        self, measurements: Iterable[reports.LearnedMeasurement]
    ) -> tuple[tuple[reports.LearnedMeasurement, ...], ChangesByPool]:
        """Keep the measurements that differ from the known ones.

        Return these, and the changes of pools' catalogs that follow from them.
        """
        learned: list[reports.LearnedMeasurement] = []
        # Collected, so that a report of many measurements is one step for each worker.
        pool_changes: list[PoolChange] = []
        for measurement in measurements:
            declared = self.models.declared(measurement.id)
            if declared and not measurement.measured.is_known(declared.measured, MEASURING_NOISE):
                learned.append(measurement)
                changed = dataclasses.replace(declared, measured=measurement.measured)
                pool_changes += self.apply(changed)
        return tuple(learned), _by_pool(pool_changes)

    def apply(  # noqa: C901 - one case for each change
        self, change: registry_contents.RegistryChange
    ) -> tuple[PoolChange, ...]:
        """Apply a saved change; return the changes of the catalogs of pools that follow from it."""
        match change:
            case catalog.ModelDeclared():
                self._declare(change)
            case catalog.ModelWithdrawn():
                self._withdraw(change)
            case desired.DesiredAlias():
                self._set_alias(change)
            case catalog.AliasCleared():
                self._clear_alias(change.alias)
            case desired.Desired():
                self.desired = change
            case containment.CopyQuarantined():
                self._apply_standing(change)
            case nodes.NodeDraining() | nodes.NodeDrainingEnded():
                self.nodes.apply(change)
            case containment.QuarantineEnded():
                self._apply_standing(change)
                # It is tried alone at first: another death then costs no worker.
                self._apply_standing(
                    containment.CopySuspected(change.key, containment.PROBATION.base_s)
                )
            case _:
                assert_never(change)
        return self._take_pool_changes()

    def suspect(self, key: str, probation_s: float) -> ChangesByPool:
        """Suspect a copy; return the changes of pools' catalogs. It is not saved."""
        self._apply_standing(containment.CopySuspected(key, probation_s))
        return _by_pool(self._take_pool_changes())

    def acquit(self, key: str) -> ChangesByPool:
        """End the suspicion of a copy, if there is one; return the changes of pools' catalogs."""
        if key in self.models.suspects:
            self._apply_standing(containment.SuspicionEnded(key))
        return _by_pool(self._take_pool_changes())

    def stop_joining(self, stop: catalog.JoiningStopped) -> ChangesByPool:
        """End the joining of a copy on all workers; return the changes of pools' catalogs.

        It is not saved: workers tell it again.
        """
        known = self.models.join_stops
        if stop.key not in known and len(known) < JOIN_STOPS_MAX:
            self.models.apply(stop)
            for pool in self._shares:
                self._change_pool(pool, stop)
        return _by_pool(self._take_pool_changes())

    def quarantines_of(self, name: str, version: str = "") -> list[containment.CopyQuarantined]:
        """Return the quarantines that hold a model, or one version of it."""
        return [
            quarantine
            for quarantine in self.models.quarantines.values()
            if any(id_.name == name and version in ("", id_.version) for id_ in quarantine.ids)
        ]

    def quarantined_ids(self) -> frozenset[model.ModelId]:
        """Return the models that were found to have a copy in quarantine, registered or not."""
        return frozenset(id_ for held in self.models.quarantines.values() for id_ in held.ids)

    def _apply_standing(self, change: catalog.StandingChange) -> None:
        self.models.apply(change)
        for pool in self._shares:
            self._change_pool(pool, change)

    def _take_pool_changes(self) -> tuple[PoolChange, ...]:
        pool_changes, self._pool_changes = self._pool_changes, []
        return tuple(pool_changes)

    def _change_pool(self, pool: str, change: catalog.Change) -> None:
        self.share(pool).apply(change)
        self._parts.pop(pool, None)
        self._pool_changes.append(PoolChange(pool, change))

    def _declare(self, declared: catalog.ModelDeclared) -> None:
        id_, pool = declared.spec.id, declared.spec.pool
        before = self.models.declared(id_)
        if before is not None:
            # Its origin may be another one now: the configuration takes names over from
            # repositories.
            self._by_origin[before.spec.origin].discard(id_)
            # Its old pool's workers forget it; those of the new one get it below.
            if before.spec.pool != pool:
                self._change_pool(before.spec.pool, catalog.ModelWithdrawn(id_))
        self.models.apply(declared)
        self._by_origin.setdefault(declared.spec.origin, set()).add(id_)
        self._change_pool(pool, declared)
        self._move_name(id_.name, pool)

    def _withdraw(self, withdrawn: catalog.ModelWithdrawn) -> None:
        before = self.models.declared(withdrawn.id)
        if before is None:
            return
        self.models.apply(withdrawn)
        self._by_origin[before.spec.origin].discard(withdrawn.id)
        self._change_pool(before.spec.pool, withdrawn)
        if not self.models.versions(withdrawn.id.name):
            self._move_name(withdrawn.id.name, None)

    def _move_name(self, name: str, pool: str | None) -> None:
        """Have the name, and all aliases that mean it, served by another pool, or by none."""
        before = self._pools.get(name)
        # Most declarations are further versions or redeclarations: nothing moves.
        if before == pool:
            return
        if pool is None:
            del self._pools[name]
        else:
            self._pools[name] = pool
        for alias in sorted(self.aliases_of(name)):
            self._move_alias(alias, before, pool)
        self._route(name, pool)

    def _move_alias(self, alias: str, before: str | None, pool: str | None) -> None:
        if before is not None and before != pool:
            self._change_pool(before, catalog.AliasCleared(alias))
        if pool is not None:
            meaning = self.aliases[alias]
            self._change_pool(pool, _alias_set(meaning))
        self._route(alias, pool)

    def _set_alias(self, alias: desired.DesiredAlias) -> None:
        # Asked first, because the old meaning is forgotten next, and its pool with it.
        before = self.pool_of(alias.alias)
        self._forget_meaning(alias.alias)
        self.aliases[alias.alias] = alias
        if alias.target:
            self._moving.add(alias.alias)
        self._aliases_of.setdefault(alias.name, set()).add(alias.alias)
        self.models.apply(_alias_set(alias))
        self._move_alias(alias.alias, before, self._pools.get(alias.name))

    def _clear_alias(self, alias: str) -> None:
        if alias not in self.aliases:
            return
        before = self.pool_of(alias)
        self._forget_meaning(alias)
        self.models.apply(catalog.AliasCleared(alias))
        self._move_alias(alias, before, None)

    def _forget_meaning(self, alias: str) -> None:
        before = self.aliases.pop(alias, None)
        self._moving.discard(alias)
        if before is not None:
            self._aliases_of[before.name].discard(alias)
            if not self._aliases_of[before.name]:
                del self._aliases_of[before.name]

    def _route(self, name: str, pool: str | None) -> None:
        # Gateways send every name without a route to the default pool, so that a registration
        # in it changes no gateway's configuration.
        if pool is None or pool == desired.DEFAULT_POOL:
            self.routes.pop(name, None)
        else:
            self.routes[name] = pool

    def check(self) -> None:
        """Assert that each version is in one share, and that routes and aliases fit them."""
        assert sum(map(len, self._shares.values())) == len(self.models)
        for declared in self.models:
            assert self.share(declared.spec.pool).declared(declared.spec.id) == declared
            assert self._pools[declared.spec.id.name] == declared.spec.pool
            assert declared.spec.id in self._by_origin[declared.spec.origin]
        for pool, parts in self._parts.items():
            assert parts == catalog_sync.split_changes(self.share(pool).changes())
        names = {declared.spec.id.name for declared in self.models}
        assert names == set(self._pools)
        assert not names & set(self.aliases)
        self._check_aliases(names)

    def _check_aliases(self, names: set[str]) -> None:
        for alias in self.aliases.values():
            assert alias.alias in self._aliases_of[alias.name]
            for pool, share in self._shares.items():
                assert (share.alias(alias.alias) is not None) == (pool == self.pool_of(alias.alias))
        pools = {name: self.pool_of(name) for name in names.union(self.aliases)}
        assert self.routes == {
            name: pool for name, pool in pools.items() if pool not in (None, desired.DEFAULT_POOL)
        }


def _by_pool(pool_changes: Iterable[PoolChange]) -> ChangesByPool:
    by_pool: ChangesByPool = {}
    for pool_change in pool_changes:
        by_pool.setdefault(pool_change.pool, []).append(pool_change.change)
    return by_pool
