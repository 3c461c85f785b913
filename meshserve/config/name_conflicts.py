"""Names that clients call: which of a document's entries take one that another has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from meshserve.config import diagnostics

Entry = tuple[int, dict[Any, Any]]


class Taken(NamedTuple):
    """Who has a name: what it is there, and where that is said."""

    what: str
    path: diagnostics.Path


def duplicates(models: Sequence[Entry], llms: Sequence[Entry]) -> Iterator[diagnostics.Diagnostic]:
    """Models declared twice, and names that mean two things. Entries of a wrong shape are passed over."""
    yield from _versions(models)
    taken: dict[str, Taken] = {}
    for index, entry in models:
        if isinstance(entry.get("name"), str):
            taken.setdefault(entry["name"], Taken("the name of a model", ("models", index, "name")))
    yield from _repeated(taken, _aliases("models", models))
    yield from _repeated(taken, _names_of_llms(llms))
    yield from _repeated(taken, _aliases("llms", llms))
    yield from _repeated(taken, _adapters(llms))


def _versions(models: Sequence[Entry]) -> Iterator[diagnostics.Diagnostic]:
    versions: dict[tuple[str, str], diagnostics.Path] = {}
    for index, entry in models:
        name, version = entry.get("name"), str(entry.get("version", "1"))
        path: diagnostics.Path = ("models", index, "name")
        if not isinstance(name, str):
            continue
        if (name, version) in versions:
            yield diagnostics.Diagnostic(
                path,
                f"model {name!r} version {version!r} is declared twice",
                versions[name, version],
            )
        versions.setdefault((name, version), path)


class Named(NamedTuple):
    """A name, what has it (`alias 'x'`), and what it is to be called when another takes it."""

    name: object
    said: str
    taken: Taken


def _repeated(taken: dict[str, Taken], named: Iterator[Named]) -> Iterator[diagnostics.Diagnostic]:
    for name, said, mine in named:
        if not isinstance(name, str):
            continue
        earlier = taken.setdefault(name, mine)
        if earlier is not mine:
            is_same = earlier.what == mine.what
            yield diagnostics.Diagnostic(
                mine.path,
                f"{said} {name!r} is {'given twice' if is_same else earlier.what}",
                earlier.path,
            )


def _aliases(key: str, entries: Sequence[Entry]) -> Iterator[Named]:
    for index, entry in entries:
        given = entry.get("aliases")
        for place, alias in enumerate(given if isinstance(given, list) else ()):
            yield Named(alias, "alias", Taken("an alias", (key, index, "aliases", place)))


def _names_of_llms(llms: Sequence[Entry]) -> Iterator[Named]:
    for index, entry in llms:
        yield Named(entry.get("name"), "LLM", Taken("the name of an LLM", ("llms", index, "name")))


def _adapters(llms: Sequence[Entry]) -> Iterator[Named]:
    for index, entry in llms:
        given = entry.get("adapters")
        for place, adapter in enumerate(given if isinstance(given, list) else ()):
            if isinstance(adapter, dict):
                yield Named(
                    adapter.get("name"),
                    "adapter",
                    Taken("an adapter", ("llms", index, "adapters", place, "name")),
                )
