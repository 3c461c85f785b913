"""What should exist: models with their versions, and aliases. The controller owns one; every worker keeps a copy of its pool's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.values import model


@dataclass(frozen=True, slots=True)
class ModelDeclared:
    """The spec is to be served, in place of any earlier one with the same id. `measured` is what earlier loads of its bytes taught."""

    spec: model.ModelSpec
    measured: model.Measured | None = None


@dataclass(frozen=True, slots=True)
class ModelWithdrawn:
    """The version is not to be served any more."""

    id: model.ModelId


@dataclass(frozen=True, slots=True)
class AliasSet:
    """`alias` means `name`; an empty version means the newest."""

    alias: str
    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class AliasCleared:
    """`alias` means nothing any more."""

    alias: str


Change = ModelDeclared | ModelWithdrawn | AliasSet | AliasCleared


def version_order(version: str) -> tuple[int, int, str, str]:
    """Sort key of versions: numbers by value, however long, and above them all that are not numbers, by letter. No two have the same."""
    if not (version.isascii() and version.isdecimal()):
        return (1, 0, version, version)
    digits = version.lstrip("0")
    return (0, len(digits), digits, version)


class Catalog:
    """Models by name and version, and aliases. Where a name is both, the alias is meant; whoever declares sees to it that none is."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self._versions: dict[str, dict[str, ModelDeclared]] = {}
        self._newest: dict[str, str] = {}
        self._aliases: dict[str, AliasSet] = {}
        for change in changes:
            self.apply(change)

    def apply(self, change: Change) -> None:
        """Take a change in. Withdrawing what is not there changes nothing."""
        match change:
            case ModelDeclared():
                self._declare(change)
            case ModelWithdrawn():
                self._withdraw(change.id)
            case AliasSet():
                self._aliases[change.alias] = change
            case AliasCleared():
                self._aliases.pop(change.alias, None)

    def _declare(self, declared: ModelDeclared) -> None:
        name, version = declared.spec.id
        versions = self._versions.setdefault(name, {})
        versions[version] = declared
        self._newest[name] = newest((version, self._newest.get(name, version)))

    def _withdraw(self, id_: model.ModelId) -> None:
        versions = self._versions.get(id_.name, {})
        versions.pop(id_.version, None)
        if versions:
            self._newest[id_.name] = newest(versions)
        else:
            self._versions.pop(id_.name, None)
            self._newest.pop(id_.name, None)

    def resolve(self, name: str, version: str = "") -> model.ModelId:
        """The id that a request means. Raises ModelNotFound with the names of what there is."""
        alias = self._aliases.get(name)
        if alias is not None:
            name, version = alias.name, version or alias.version
        versions = self._versions.get(name)
        if versions is None:
            raise errors.ModelNotFound(f"model {name!r} is not registered")
        if not version:
            return model.ModelId(name, self._newest[name])
        if version not in versions:
            there = ", ".join(sorted(versions, key=version_order))
            raise errors.ModelNotFound(
                f"model {name!r} has no version {version!r}; there is: {there}"
            )
        return model.ModelId(name, version)

    def declared(self, id_: model.ModelId) -> ModelDeclared | None:
        """What was declared under this id, if anything."""
        return self._versions.get(id_.name, {}).get(id_.version)

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a model, oldest first; none if there is no such model."""
        return tuple(sorted(self._versions.get(name, ()), key=version_order))

    def alias(self, alias: str) -> AliasSet | None:
        """What an alias means, if it is one."""
        return self._aliases.get(alias)

    def aliases(self) -> tuple[AliasSet, ...]:
        """All aliases, by name."""
        return tuple(self._aliases[alias] for alias in sorted(self._aliases))

    def has_name(self, name: str) -> bool:
        """Whether a model or an alias has that name."""
        return name in self._versions or name in self._aliases

    def __iter__(self) -> Iterator[ModelDeclared]:
        for versions in self._versions.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(map(len, self._versions.values()))

    def changes(self) -> tuple[Change, ...]:
        """The changes that make an equal catalog out of an empty one."""
        return (*self, *self._aliases.values())


def newest(versions: Iterable[str]) -> str:
    """The version that is served where a request names none."""
    return max(versions, key=version_order)
