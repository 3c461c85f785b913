"""Changes in words for a user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshserve.core.catalog import catalog_index
from meshserve.core.values import catalog, desired, events, llm_spec, model


def describe(
    book: catalog_index.CatalogIndex, changes: Iterable[events.RegistryChange]
) -> tuple[str, ...]:
    """One line for each thing that the changes would change in `book`."""
    return tuple(line for change in changes for line in _lines(book, change))


def _lines(book: catalog_index.CatalogIndex, change: events.RegistryChange) -> Iterator[str]:
    match change:
        case catalog.ModelDeclared():
            before = book.models.declared(change.spec.id)
            yield f"model {change.spec.id} {'added' if before is None else _differences(before.spec, change.spec)}"
        case catalog.ModelWithdrawn():
            yield f"model {change.id} withdrawn"
        case desired.DesiredAlias():
            yield f"alias {change.alias} means {change.name}" + (
                f", then {change.target}" if change.target else ""
            )
        case catalog.AliasCleared():
            yield f"alias {change.alias} cleared"
        case desired.Desired():
            yield from _settings(book.desired, change)


def _differences(
    before: model.ModelSpec | llm_spec.LlmSpec, after: model.ModelSpec | llm_spec.LlmSpec
) -> str:
    fields = [
        field for field in type(after).__slots__ if getattr(before, field) != getattr(after, field)
    ]
    return f"changed ({', '.join(fields)})"


def _settings(before: desired.Desired, after: desired.Desired) -> Iterator[str]:
    for pool in after.pools:
        yield from _pool(before.pool(pool.name), pool)
    yield from (
        f"pool {pool.name} removed" for pool in before.pools if after.pool(pool.name) is None
    )
    yield from _llms(before, after)
    yield from _gateway(before.gateway, after.gateway)
    old, new = ({each.place: each for each in wanted.repositories} for wanted in (before, after))
    yield from (
        f"repository {place} {'changed' if place in old else 'added'}"
        for place in new
        if old.get(place) != new[place]
    )
    yield from (f"repository {place} removed" for place in old if place not in new)


def _pool(before: desired.PoolSettings | None, after: desired.PoolSettings) -> Iterator[str]:
    if before is None:
        yield f"pool {after.name} added: {after.workers} worker{'' if after.workers == 1 else 's'}"
        return
    if before.workers != after.workers:
        yield f"pool {after.name}: {before.workers} → {after.workers} workers"
    slots = desired.WorkerSettings.__slots__
    changed = [
        field
        for field in slots
        if getattr(before.settings, field) != getattr(after.settings, field)
    ]
    if changed:
        yield f"pool {after.name}: its workers are replaced, one after the other ({', '.join(changed)})"


def _llms(before: desired.Desired, after: desired.Desired) -> Iterator[str]:
    old, new = ({each.name: each for each in wanted.llms} for wanted in (before, after))
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
    if before.keys != after.keys:
        yield "gateway's API keys changed"
