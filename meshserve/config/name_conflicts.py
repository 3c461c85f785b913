"""Find names in a document that conflict, or that refer to nothing.

The raw document is checked, so that these faults are reported together with those of the schema.
Entries of a wrong shape are skipped, because the schema reports them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from meshserve.config import diagnostics, schema

Entry = tuple[int, dict[Any, Any]]


def check(document: Any) -> Iterator[diagnostics.Diagnostic]:
    """Yield unknown pools, models that are declared twice, and names with two meanings."""
    models = list(_entries(document, "models"))
    repositories = list(_entries(document, "repositories"))
    yield from _unknown_pools(document, "models", models)
    yield from _unknown_pools(document, "repositories", repositories)
    yield from _repeated_models(models)
    yield from _repeated_names(models, list(_entries(document, "llms")))


def _entries(document: Any, key: str) -> Iterator[Entry]:
    entries = document.get(key) if isinstance(document, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _unknown_pools(
    document: Any, key: str, entries: Sequence[Entry]
) -> Iterator[diagnostics.Diagnostic]:
    pools = document.get("pools") if isinstance(document, dict) else None
    # The default pool exists without being written down.
    known = sorted({schema.DEFAULT_POOL, *map(str, pools if isinstance(pools, dict) else ())})
    for index, entry in entries:
        pool = entry.get("pool")
        if isinstance(pool, str) and pool not in known:
            message = f"there is no pool {pool!r}{diagnostics.hint(pool, known)}"
            yield diagnostics.Diagnostic((key, index, "pool"), message)


def _repeated_models(models: Sequence[Entry]) -> Iterator[diagnostics.Diagnostic]:
    versions: dict[tuple[str, str], diagnostics.Path] = {}
    for index, entry in models:
        # As text, because an unquoted 1 and "1" are the same version.
        name, version = entry.get("name"), str(entry.get("version", "1"))
        if not isinstance(name, str):
            continue
        path: diagnostics.Path = ("models", index, "name")
        earlier = versions.setdefault((name, version), path)
        if earlier is not path:
            message = f"model {name!r} version {version!r} is declared twice"
            yield diagnostics.Diagnostic(path, message, earlier)


class NameUse(NamedTuple):
    """One use of a name.

    A conflict's message begins with the `label` of the later use, such as "alias", and ends with
    the `meaning` of the first, such as "the name of a model".
    """

    name: object
    label: str
    meaning: str
    path: diagnostics.Path


def _repeated_names(
    models: Sequence[Entry], llms: Sequence[Entry]
) -> Iterator[diagnostics.Diagnostic]:
    # In this order: a model's name wins over an LLM's, a name over an alias of its own kind.
    first_uses: dict[str, NameUse] = {}
    for use in _names("models", "model", "the name of a model", models):
        if isinstance(use.name, str):
            # Versions of one model share its name.
            first_uses.setdefault(use.name, use)
    uses = [
        *_aliases("models", models),
        *_names("llms", "LLM", "the name of an LLM", llms),
        *_aliases("llms", llms),
        *_adapters(llms),
    ]
    yield from _conflicts(first_uses, uses)


def _conflicts(
    first_uses: dict[str, NameUse], uses: Iterable[NameUse]
) -> Iterator[diagnostics.Diagnostic]:
    for use in uses:
        if not isinstance(use.name, str):
            continue
        first = first_uses.setdefault(use.name, use)
        if first is not use:
            problem = "given twice" if first.meaning == use.meaning else first.meaning
            message = f"{use.label} {use.name!r} is {problem}"
            yield diagnostics.Diagnostic(use.path, message, first.path)


def _names(key: str, label: str, meaning: str, entries: Sequence[Entry]) -> Iterator[NameUse]:
    for index, entry in entries:
        yield NameUse(entry.get("name"), label, meaning, (key, index, "name"))


def _aliases(key: str, entries: Sequence[Entry]) -> Iterator[NameUse]:
    for index, entry in entries:
        aliases = entry.get("aliases")
        for place, alias in enumerate(aliases if isinstance(aliases, list) else ()):
            yield NameUse(alias, "alias", "an alias", (key, index, "aliases", place))


def _adapters(llms: Sequence[Entry]) -> Iterator[NameUse]:
    for index, entry in llms:
        for place, adapter in _entries(entry, "adapters"):
            path = ("llms", index, "adapters", place, "name")
            yield NameUse(adapter.get("name"), "adapter", "an adapter", path)
