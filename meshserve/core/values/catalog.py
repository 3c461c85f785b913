"""The catalog: the models to be served, by name and version, and their aliases.

The controller owns one for the mesh; each worker holds that of its pool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import assert_never

from meshserve import errors
from meshserve.core.values import containment, model, version_order


@dataclass(frozen=True, slots=True)
class ModelDeclared:
    """The spec is to be served, in place of an earlier one with the same id.

    `measured` is what earlier loads of its artifact have shown. `stamped_uri` is the spec's URI
    with a stamp of the local files that are meant, or empty where none are known. `earlier_uri` is
    the one of the declaration before, if that has loaded and had another URI.
    """

    spec: model.ModelSpec
    measured: model.Measured | None = None
    stamped_uri: str = ""
    earlier_uri: str = ""

    @property
    def spec_to_fetch(self) -> model.ModelSpec:
        """The spec with the stamped URI, by which a worker fetches the content that is meant."""
        return (
            dataclasses.replace(self.spec, uri=self.stamped_uri) if self.stamped_uri else self.spec
        )

    def stamped_uri_for(self, spec: model.ModelSpec) -> str:
        """Return the stamped URI if `spec` has the same files, else ""."""
        return self.stamped_uri if self.spec.uri == spec.uri else ""

    def earlier_uri_for(self, spec: model.ModelSpec) -> str:
        """Return by which URI to find what last loaded before `spec` takes the model's place.

        What has just come may have loaded, though no worker has told it yet: it counts where
        nothing else is known.
        """
        own_uri = self.stamped_uri or self.spec.uri
        if place(self.spec.uri) == place(spec.uri):
            return self.earlier_uri
        return own_uri if self.measured else self.earlier_uri or own_uri

    def measurement_for(self, spec: model.ModelSpec) -> model.Measured | None:
        """Return the measurement if `spec` is of the same place (URI, checksum), else None.

        Other bytes may lie there by now: the measurement has the digest of those that it is of.
        """
        own = (place(self.spec.uri), self.spec.checksum)
        return self.measured if own == (place(spec.uri), spec.checksum) else None


def place(uri: str) -> str:
    """Return the URI without the stamp of local files, which a repository writes behind a `#`."""
    return uri.partition("#")[0] if uri.startswith("file://") else uri


@dataclass(frozen=True, slots=True)
class ModelWithdrawn:
    """The version is not to be served any longer."""

    id: model.ModelId


@dataclass(frozen=True, slots=True)
class AliasSet:
    """`alias` stands for the model `name`, in its newest version if `version` is empty.

    Until that has loaded, what the alias meant `before` answers: the first of these that loads.
    """

    alias: str
    name: str
    version: str = ""
    before: tuple[model.ModelId, ...] = ()


@dataclass(frozen=True, slots=True)
class AliasCleared:
    """`alias` stands for no model any longer."""

    alias: str


NO_VERSIONS: Mapping[str, ModelDeclared] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class JoiningStopped:
    """A joined run of the copy gave another answer than a request alone: no worker joins any more.

    `key` names the copy by its content (`residency_events`), so a changed artifact is judged anew.
    `reason` tells users what differed.
    """

    key: str
    reason: str


StandingChange = (
    containment.CopySuspected
    | containment.SuspicionEnded
    | containment.CopyQuarantined
    | containment.QuarantineEnded
)
"""A change of what is held against a copy; workers of all pools get it."""

Change = ModelDeclared | ModelWithdrawn | AliasSet | AliasCleared | StandingChange | JoiningStopped


class Catalog:
    """Models by name and version, aliases, and copies by key that are suspected or in quarantine.

    An alias wins over a model of the same name. The controller's changesets refuse a name that
    would be both.
    """

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._versions: dict[str, dict[str, ModelDeclared]] = {}
        # Every request calls `resolve`, and sorting the versions each time would be slow.
        self._newest: dict[str, str] = {}
        # Unloaded through the API: known, but no request may bring them into memory.
        self.unloaded: set[model.ModelId] = set()
        self._aliases: dict[str, AliasSet] = {}
        self.suspects: dict[str, containment.CopySuspected] = {}
        self.quarantines: dict[str, containment.CopyQuarantined] = {}
        self.join_stops: dict[str, JoiningStopped] = {}
        for change in changes:
            self.apply(change)

    def apply(self, change: Change) -> None:
        """Apply a change. Withdrawing or clearing an unknown name changes nothing."""
        match change:
            case ModelDeclared():
                self._declare(change)
            case ModelWithdrawn():
                self._withdraw(change.id)
            case AliasSet():
                self._aliases[change.alias] = change
            case AliasCleared():
                self._aliases.pop(change.alias, None)
            case JoiningStopped():
                self.join_stops[change.key] = change
            case _:
                self._apply_standing(change)

    def _apply_standing(self, change: StandingChange) -> None:
        match change:
            case containment.CopySuspected():
                self.suspects[change.key] = change
            case containment.SuspicionEnded():
                self.suspects.pop(change.key, None)
            case containment.CopyQuarantined():
                self.quarantines[change.key] = change
                self.suspects.pop(change.key, None)
            case containment.QuarantineEnded():
                self.quarantines.pop(change.key, None)
            case _:
                assert_never(change)

    def _declare(self, declared: ModelDeclared) -> None:
        name, version = declared.spec.id
        self._versions.setdefault(name, {})[version] = declared
        if declared.spec.unloaded:
            self.unloaded.add(declared.spec.id)
        else:
            self.unloaded.discard(declared.spec.id)
        newest = self._newest.get(name)
        # Most models have one version, and need no comparison.
        if newest is None or version_order.sort_key(version) > version_order.sort_key(newest):
            self._newest[name] = version

    def _withdraw(self, id_: model.ModelId) -> None:
        versions = self._versions.get(id_.name, {})
        versions.pop(id_.version, None)
        self.unloaded.discard(id_)
        if versions:
            self._newest[id_.name] = version_order.newest(versions)
        else:
            self._versions.pop(id_.name, None)
            self._newest.pop(id_.name, None)

    def resolve(self, name: str, version: str = "") -> model.ModelId:
        """Return the id that a request for `name` means. Raises ModelNotFound if none does."""
        alias = self._aliases.get(name)
        if alias is not None:
            # The request's version wins over that of the alias.
            name, version = alias.name, version or alias.version
        versions = self._versions.get(name)
        if versions is None:
            raise self._not_found(f"model {name!r} is not registered", alias, name)
        if not version:
            return model.ModelId(name, self._newest[name])
        if version not in versions:
            known = ", ".join(sorted(versions, key=version_order.sort_key))
            raise self._not_found(
                f"model {name!r} has no version {version!r}; there is: {known}", alias, version
            )
        return model.ModelId(name, version)

    @staticmethod
    def _not_found(fault: str, alias: AliasSet | None, lacking: str) -> errors.ModelNotFound:
        """Return the error for a name or version that is `lacking`, as an alias means it if any."""
        if alias is None or lacking not in (alias.name, alias.version):
            return errors.ModelNotFound(fault)
        version = f"version {alias.version!r} of " if alias.version else ""
        return errors.ModelNotFound(
            f"alias {alias.alias!r} means {version}model {alias.name!r}, which went away: {fault}"
        )

    def candidates(self, name: str, version: str = "") -> tuple[model.ModelId, ...]:
        """Return the ids that may answer a request for `name`, newest first.

        Only one if a version is named. Raises ModelNotFound, also if all are unloaded.
        """
        id_, alias = self.resolve(name, version), self._aliases.get(name)
        ids: tuple[model.ModelId, ...] = (id_,)
        if not (version or (alias is not None and alias.version)):
            ids = tuple(model.ModelId(id_.name, other) for other in self.versions(id_.name)[::-1])
        loaded = tuple(id_ for id_ in ids if id_ not in self.unloaded)
        if not loaded:
            raise errors.ModelNotFound(f"model {name!r} is unloaded: load it first")
        return loaded

    def declared(self, id_: model.ModelId) -> ModelDeclared | None:
        """Return the declaration with this id, if any."""
        # Not by `declarations`: of an unknown model, as in a registration, it takes half the time.
        versions = self._versions.get(id_.name)
        return None if versions is None else versions.get(id_.version)

    def declarations(self, name: str) -> Mapping[str, ModelDeclared]:
        """Return a model's declarations by version, in no order, as the catalog holds them now."""
        return self._versions.get(name, NO_VERSIONS)

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model, oldest first; none if the model is unknown."""
        return tuple(sorted(self.declarations(name), key=version_order.sort_key))

    def alias(self, alias: str) -> AliasSet | None:
        """Return what the alias stands for, None if no alias has this name."""
        return self._aliases.get(alias)

    def aliases(self) -> tuple[AliasSet, ...]:
        """Return all aliases in the order of their names."""
        return tuple(self._aliases[alias] for alias in sorted(self._aliases))

    def __iter__(self) -> Iterator[ModelDeclared]:
        for versions in self._versions.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(map(len, self._versions.values()))

    def changes(self) -> tuple[Change, ...]:
        """Return the changes that make an equal catalog out of an empty one."""
        return (
            *self,
            *self._aliases.values(),
            *self.standings(),
            *self.join_stops.values(),
        )

    def standings(self) -> tuple[StandingChange, ...]:
        """Return what is held against copies, as changes."""
        return (*self.suspects.values(), *self.quarantines.values())
