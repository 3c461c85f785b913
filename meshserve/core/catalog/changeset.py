"""A set of changes to the catalog: checked as a whole before any is saved, and told in words.

A name belongs to the origin that declared it. Only the configuration may take names over from
another origin, and only from repositories.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from meshserve import errors
from meshserve.core.values import (
    catalog,
    catalog_sync,
    desired,
    llm_spec,
    model,
    registry_contents,
)

ORDER = (catalog.AliasCleared, catalog.ModelWithdrawn, catalog.ModelDeclared, desired.DesiredAlias)
# Users know one owner, the API, whether it registered the model for an alias or not.
OWNERS = {
    model.OriginKind.CONFIG: "the configuration",
    model.OriginKind.API: "the API",
    model.OriginKind.ALIAS: "the API",
}
MEANINGS_KEPT = 3
"""Earlier meanings of an alias that may answer while the present one does not load."""

Settings = (
    model.ModelSpec
    | llm_spec.LlmSpec
    | desired.WorkerSettings
    | desired.PoolSettings
    | desired.ScalingSettings
)


class Changeset:
    """The catalog as it will be after the changes; the present catalog is only read.

    `llms` holds all names of LLMs, which no model may have.
    """

    def __init__(
        self,
        models: catalog.Catalog,
        aliases: dict[str, desired.DesiredAlias],
        wanted: desired.Desired,
    ) -> None:
        self._models = models
        self._aliases = aliases
        self._pools = {pool.name for pool in wanted.pools}
        self.llms = frozenset(name for llm in wanted.llms for name in llm.names)
        self._specs: dict[model.ModelId, model.ModelSpec | None] = {}
        self._versions: dict[str, set[str]] = {}
        self._meanings: dict[str, desired.DesiredAlias | None] = {}
        self._stamps: dict[model.ModelId, str] = {}

    def spec(self, id_: model.ModelId) -> model.ModelSpec | None:
        """Return the spec that the version will have, None if it will not exist."""
        if id_ in self._specs:
            return self._specs[id_]
        declared = self._models.declared(id_)
        return declared.spec if declared else None

    def alias(self, alias: str) -> desired.DesiredAlias | None:
        """Return the meaning that the alias will have, None if it will not exist."""
        return self._meanings[alias] if alias in self._meanings else self._aliases.get(alias)

    def of_name(self, name: str) -> Iterator[model.ModelSpec]:
        """Yield the specs of all versions that the name will have."""
        # Sorted, because a set's order differs between processes, and equal events must bring equal
        # commands.
        for version in sorted({*self._models.declarations(name), *self._versions.get(name, ())}):
            spec = self.spec(model.ModelId(name, version))
            if spec is not None:
                yield spec

    def declare(self, spec: model.ModelSpec, *, is_replacing: bool) -> None:
        """Declare a version; declaring it a second time changes nothing.

        Raises AlreadyExists if the name belongs to another origin, or if the version has another
        definition and may not be replaced.
        """
        current = self.spec(spec.id)
        owner = self.owner(spec.id.name) or spec.origin
        is_same = current is not None and catalog_sync.can_share_copy(current, spec)
        if not may_take(owner, spec.origin):
            # The same declaration by another origin is no conflict.
            if not is_same:
                raise errors.AlreadyExists(f"model {spec.id.name!r} belongs to {owned_by(owner)}")
        elif not is_same_owner(owner, spec.origin):
            # All versions of a name have one owner, so the old owner's versions are withdrawn.
            self._take_over(spec)
        elif current is None or is_replacing:
            self.put(spec)
        elif not is_same:
            raise errors.AlreadyExists(
                f"model {str(spec.id)!r} is registered with another definition"
            )

    def _take_over(self, spec: model.ModelSpec) -> None:
        self.withdraw([other.id for other in self.of_name(spec.id.name)])
        self.put(spec)

    def owner(self, name: str) -> model.Origin | None:
        """Return the origin that declared the name's versions, None for a free name."""
        return next((spec.origin for spec in self.of_name(name)), None)

    def put(self, spec: model.ModelSpec) -> None:
        """Declare a version in place of any other definition."""
        self._touch(spec.id, spec)

    def stamp(self, stamps: Mapping[model.ModelId, tuple[str, str]]) -> None:
        """Mean the files of the URIs with stamps, if the models still have these plain URIs."""
        for id_, (uri, stamped_uri) in stamps.items():
            spec = self.spec(id_)
            # The model may have been declared anew while its files were looked at.
            if spec is not None and spec.uri == uri:
                self.put(spec)
                self._stamps[id_] = stamped_uri

    def withdraw(self, ids: Iterable[model.ModelId]) -> None:
        """Withdraw versions."""
        for id_ in ids:
            self._touch(id_, None)

    def _touch(self, id_: model.ModelId, spec: model.ModelSpec | None) -> None:
        self._specs[id_] = spec
        self._versions.setdefault(id_.name, set()).add(id_.version)

    def pin(self, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Pin or unpin a version. Raises ModelNotFound."""
        spec = self.spec(id_)
        if spec is None:
            raise not_registered(str(id_))
        if is_pinned and spec.unloaded:
            raise errors.Conflict(f"model {str(id_)!r} is unloaded: load it first")
        self._touch(id_, dataclasses.replace(spec, pinned=is_pinned))

    def set_alias(self, alias: desired.DesiredAlias) -> None:
        """Set the meaning of an alias, which keeps what it meant before."""
        before: tuple[model.ModelId, ...] = ()
        if (current := self.alias(alias.alias)) is not None:
            meanings = model.ModelId(current.name, current.version), *current.before
            other = (id_ for id_ in meanings if id_ != (alias.name, alias.version))
            before = tuple(itertools.islice(other, MEANINGS_KEPT))
        self._meanings[alias.alias] = dataclasses.replace(alias, before=before)

    def clear_alias(self, alias: str) -> None:
        """Remove an alias."""
        self._meanings[alias] = None

    def check(self) -> None:
        """Check all names that are changed. Raises AlreadyExists or InvalidRequest."""
        # All LLMs, because a configuration may add one whose name a model of the API has already.
        for name in self.llms.union(self._versions, self._meanings):
            self._check_name(name)

    def _check_name(self, name: str) -> None:
        specs = list(self.of_name(name))
        pools = {spec.pool for spec in specs}
        if specs and self.alias(name):
            raise errors.AlreadyExists(f"{name!r} can't be both a model and an alias")
        if name in self.llms and (specs or self.alias(name)):
            raise errors.AlreadyExists(f"{name!r} is the name of an LLM")
        if len(pools) > 1:
            raise errors.InvalidRequest(
                f"all versions of model {name!r} must be in one pool, "
                f"not in {' and '.join(sorted(pools))}"
            )
        for pool in pools - self._pools:
            raise errors.InvalidRequest(
                f"model {name!r}: there is no pool {pool!r}; "
                f"there are: {', '.join(sorted(self._pools))}"
            )

    def changes(self) -> tuple[registry_contents.RegistryChange, ...]:
        """Return the changes to save, without those that change nothing."""
        # Names are freed before they are reused: the catalog must be valid after each change.
        unordered = (*self._alias_changes(), *self._model_changes())
        return tuple(sorted(unordered, key=lambda change: ORDER.index(type(change))))

    def _model_changes(self) -> Iterator[catalog.ModelDeclared | catalog.ModelWithdrawn]:
        for id_, spec in self._specs.items():
            declared = self._models.declared(id_)
            if spec is None and declared is not None:
                yield catalog.ModelWithdrawn(id_)
            elif spec is not None:
                measured = declared.measurement_for(spec) if declared else None
                before = declared.stamped_uri_for(spec) if declared else ""
                stamped_uri = self._stamps.get(id_, before)
                if declared is None or (declared.spec, before) != (spec, stamped_uri):
                    earlier_uri = declared.earlier_uri_for(spec) if declared else ""
                    yield catalog.ModelDeclared(spec, measured, stamped_uri, earlier_uri)

    def _alias_changes(self) -> Iterator[desired.DesiredAlias | catalog.AliasCleared]:
        for name, alias in self._meanings.items():
            if alias is None and name in self._aliases:
                yield catalog.AliasCleared(name)
            elif alias is not None and self._aliases.get(name) != alias:
                yield alias


def may_take(owner: model.Origin, origin: model.Origin) -> bool:
    """Return whether `origin` may declare a name that belongs to `owner`."""
    if is_same_owner(owner, origin):
        return True
    return origin == model.FROM_CONFIG and owner.kind is model.OriginKind.REPOSITORY


def is_same_owner(one: model.Origin, other: model.Origin) -> bool:
    """Return whether users see both origins as one owner."""
    # Equal origins are the rule, and comparing them is faster than comparing words.
    return one == other or owned_by(one) == owned_by(other)


def owned_by(origin: model.Origin) -> str:
    """Return the origin in words for users."""
    return OWNERS.get(origin.kind) or f"repository {origin.place}"


def not_registered(name: str, version: str = "") -> errors.ModelNotFound:
    """Return the error for a model, or a version of it, that nothing has declared."""
    of_version = f" in version {version!r}" if version else ""
    return errors.ModelNotFound(f"model {name!r} is not registered{of_version}")


# In words


def describe(
    models: catalog.Catalog,
    settings: desired.Desired,
    changes: Iterable[registry_contents.RegistryChange],
) -> tuple[str, ...]:
    """Return one line, for users, for each thing that the changes would change in both."""
    return tuple(line for change in changes for line in _lines(models, settings, change))


def _lines(
    models: catalog.Catalog, settings: desired.Desired, change: registry_contents.RegistryChange
) -> Iterator[str]:
    match change:
        case catalog.ModelDeclared():
            before = models.declared(change.spec.id)
            yield f"model {change.spec.id} {_how_declared(before, change)}"
        case catalog.ModelWithdrawn():
            yield f"model {change.id} withdrawn"
        case desired.DesiredAlias():
            yield f"alias {change.alias} means {change.name}" + (
                f", then {change.target}" if change.target else ""
            )
        case catalog.AliasCleared():
            yield f"alias {change.alias} cleared"
        case desired.Desired():
            yield from _settings(settings, change)


def _how_declared(before: catalog.ModelDeclared | None, after: catalog.ModelDeclared) -> str:
    if before is None:
        return "added"
    if before.spec == after.spec and not before.stamped_uri:
        return "added: its files are known now"
    return _differences(before.spec, after.spec)


def _differences(before: Settings, after: Settings) -> str:
    # Equal settings are declared anew when the files that they mean have changed.
    return f"changed ({', '.join(_changed_fields(before, after)) or 'files'})"


def _changed_fields(before: Settings, after: Settings) -> list[str]:
    names = (field.name for field in dataclasses.fields(after))
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _settings(before: desired.Desired, after: desired.Desired) -> Iterator[str]:
    for pool in after.pools:
        yield from _pool(before.pool(pool.name), pool)
    yield from (
        f"pool {pool.name} removed" for pool in before.pools if after.pool(pool.name) is None
    )
    yield from _llms(before, after)
    yield from _gateway(before.gateway, after.gateway)
    if before.logs != after.logs:
        # Each process has opened its log in the old form, and Envoy would close its connections.
        yield "logging changed: it counts from the next start of the mesh on"
    old, new = (
        {repository.place: repository for repository in config.repositories}
        for config in (before, after)
    )
    yield from (
        f"repository {place} {'changed' if place in old else 'added'}"
        for place in new
        if old.get(place) != new[place]
    )
    yield from (f"repository {place} removed" for place in old if place not in new)


def _pool(before: desired.PoolSettings | None, after: desired.PoolSettings) -> Iterator[str]:
    if before is None:
        count = _worker_count(after)
        yield f"pool {after.name} added: {count} worker{'' if count == '1' else 's'}"
        return
    if _worker_count(before) != _worker_count(after):
        yield f"pool {after.name}: {_worker_count(before)} → {_worker_count(after)} workers"
    changed = ", ".join(_changed_fields(before.settings, after.settings))
    if changed:
        yield f"pool {after.name}: its workers are replaced, one after the other ({changed})"
    # The fields above, and those that only say how many workers there are, are told already.
    others = [
        *set(_changed_fields(before, after)).difference(("settings", "workers", "scaling")),
        *_changed_scaling(before.scaling, after.scaling),
    ]
    if others:
        yield f"pool {after.name} changed ({', '.join(sorted(others))})"


def _worker_count(pool: desired.PoolSettings) -> str:
    """Return how many workers a pool has, of one that follows its load the fewest and the most."""
    return f"{pool.workers_min} to {pool.workers}" if pool.scaling else str(pool.workers)


def _changed_scaling(
    before: desired.ScalingSettings | None, after: desired.ScalingSettings | None
) -> list[str]:
    if before is None or after is None:
        return []
    return [name for name in _changed_fields(before, after) if name != "workers_min"]


def _llms(before: desired.Desired, after: desired.Desired) -> Iterator[str]:
    old, new = ({llm.name: llm for llm in config.llms} for config in (before, after))
    yield from (f"llm {name} added" for name in new if name not in old)
    yield from (
        f"llm {name} {_differences(old[name], new[name])}"
        for name in new
        if name in old and old[name] != new[name]
    )
    yield from (f"llm {name} removed" for name in old if name not in new)


def _gateway(before: desired.GatewaySettings, after: desired.GatewaySettings) -> Iterator[str]:
    if before.listen != after.listen:
        yield f"gateway listens on {after.listen}"
    if before.request_bytes_max != after.request_bytes_max:
        yield f"gateway takes requests of up to {after.request_bytes_max} bytes"
    if before.is_native != after.is_native:
        yield f"gateway sends requests to workers {'as frames' if after.is_native else 'by HTTP'}"
    if before.keys != after.keys:
        yield "gateway's API keys changed"
    if before.cors_origins != after.cors_origins:
        yield "gateway's CORS origins changed"
    if before.file_roots != after.file_roots:
        yield f"clients may register files below {', '.join(after.file_roots) or 'no folder'}"
