"""Changes to the catalog before they are made: collected, held against the rules, and only then anybody's business.

A name belongs to whoever declared it. The configuration may take a repository's names over; nobody else may take anybody's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from meshserve import errors
from meshserve.core.values import catalog, catalog_sync, desired, events, model

ORDER = (catalog.AliasCleared, catalog.ModelWithdrawn, catalog.ModelDeclared, desired.DesiredAlias)
OWNERS = {
    model.OriginKind.CONFIG: "the configuration",
    model.OriginKind.API: "the API",
    model.OriginKind.ALIAS: "the API",
}


class Changeset:
    """A catalog with changes that are not made yet. What is there is only read. `llms` has every name that an LLM is called by."""

    def __init__(
        self,
        models: catalog.Catalog,
        aliases: dict[str, desired.DesiredAlias],
        wanted: desired.Desired,
    ) -> None:
        self._models = models
        self._aliases = aliases
        self._pools = {pool.name for pool in wanted.pools}
        self.llms = frozenset(name for each in wanted.llms for name in each.names)
        self._specs: dict[model.ModelId, model.ModelSpec | None] = {}
        self._versions: dict[str, set[str]] = {}
        self._meanings: dict[str, desired.DesiredAlias | None] = {}

    def spec(self, id_: model.ModelId) -> model.ModelSpec | None:
        """What the id will be."""
        if id_ in self._specs:
            return self._specs[id_]
        declared = self._models.declared(id_)
        return declared.spec if declared else None

    def alias(self, alias: str) -> desired.DesiredAlias | None:
        """What the alias will mean."""
        return self._meanings[alias] if alias in self._meanings else self._aliases.get(alias)

    def of_name(self, name: str) -> Iterator[model.ModelSpec]:
        """Every version that the name will have."""
        for version in sorted(self._versions.get(name, set()).union(self._models.versions(name))):
            spec = self.spec(model.ModelId(name, version))
            if spec is not None:
                yield spec

    def declare(self, spec: model.ModelSpec, *, is_replacing: bool) -> None:
        """Declare a version; the same once more changes nothing. Raises AlreadyExists where the name is somebody else's."""
        current = self.spec(spec.id)
        owner = self.owner(spec.id.name) or spec.origin
        is_same = current is not None and catalog_sync.can_share_copy(current, spec)
        if not may_take(owner, spec.origin):
            if not is_same:
                raise errors.AlreadyExists(f"model {spec.id.name!r} belongs to {owned_by(owner)}")
        elif owned_by(owner) != owned_by(spec.origin):
            self._take_over(spec)
        elif current is None or is_replacing:
            self.put(spec)
        elif not is_same:
            raise errors.AlreadyExists(
                f"model {str(spec.id)!r} is registered with another definition"
            )

    def _take_over(self, spec: model.ModelSpec) -> None:
        for other in list(self.of_name(spec.id.name)):
            self.withdraw(other.id)
        self.put(spec)

    def owner(self, name: str) -> model.Origin | None:
        """The origin that declared the name's versions."""
        return next((spec.origin for spec in self.of_name(name)), None)

    def put(self, spec: model.ModelSpec) -> None:
        """Declare a version, whatever was there."""
        self._touch(spec.id, spec)

    def withdraw(self, id_: model.ModelId) -> None:
        """Withdraw a version."""
        self._touch(id_, None)

    def _touch(self, id_: model.ModelId, spec: model.ModelSpec | None) -> None:
        self._specs[id_] = spec
        self._versions.setdefault(id_.name, set()).add(id_.version)

    def pin(self, id_: model.ModelId, *, is_pinned: bool) -> None:
        """Change nothing of a version but whether it is pinned. Raises ModelNotFound."""
        spec = self.spec(id_)
        if spec is None:
            raise errors.ModelNotFound(f"model {str(id_)!r} is not registered")
        self._touch(id_, dataclasses.replace(spec, pinned=is_pinned))

    def set_alias(self, alias: desired.DesiredAlias) -> None:
        """Give an alias its meaning."""
        self._meanings[alias.alias] = alias

    def clear_alias(self, alias: str) -> None:
        """Take an alias's meaning away."""
        self._meanings[alias] = None

    def check(self) -> None:
        """Hold every touched name against the rules. Raises AlreadyExists or InvalidRequest."""
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
                f"all versions of model {name!r} must be in one pool, not in {' and '.join(sorted(pools))}"
            )
        for pool in pools - self._pools:
            raise errors.InvalidRequest(
                f"model {name!r}: there is no pool {pool!r}; there are: {', '.join(sorted(self._pools))}"
            )

    def changes(self) -> tuple[events.RegistryChange, ...]:
        """What is to be saved, and nothing that is so already: names are freed before they are taken."""
        unordered = (*self._alias_changes(), *self._model_changes())
        return tuple(sorted(unordered, key=lambda change: ORDER.index(type(change))))

    def _model_changes(self) -> Iterator[catalog.ModelDeclared | catalog.ModelWithdrawn]:
        for id_, spec in self._specs.items():
            declared = self._models.declared(id_)
            if spec is None and declared is not None:
                yield catalog.ModelWithdrawn(id_)
            elif spec is not None and (declared is None or declared.spec != spec):
                yield catalog.ModelDeclared(spec, measured_still(declared, spec))

    def _alias_changes(self) -> Iterator[desired.DesiredAlias | catalog.AliasCleared]:
        for name, alias in self._meanings.items():
            if alias is None and name in self._aliases:
                yield catalog.AliasCleared(name)
            elif alias is not None and self._aliases.get(name) != alias:
                yield alias


def may_take(owner: model.Origin, origin: model.Origin) -> bool:
    """Return whether `origin` may declare a name that belongs to `owner`."""
    if origin == model.FROM_CONFIG:
        return owner.kind in {model.OriginKind.CONFIG, model.OriginKind.REPOSITORY}
    return owned_by(owner) == owned_by(origin)


def owned_by(origin: model.Origin) -> str:
    """Return the origin in words for users."""
    return OWNERS.get(origin.kind) or f"repository {origin.place}"


def measured_still(
    declared: catalog.ModelDeclared | None, spec: model.ModelSpec
) -> model.Measured | None:
    """What was measured before, if it can be true of the new definition too."""
    if declared is None or declared.spec.uri != spec.uri or declared.spec.checksum != spec.checksum:
        return None
    return declared.measured
