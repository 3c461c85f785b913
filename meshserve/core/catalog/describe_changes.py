"""Describe changes in words for users."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from meshserve.core.catalog import catalog_index
from meshserve.core.values import catalog, desired, llm_spec, model, registry_contents

Settings = model.ModelSpec | llm_spec.LlmSpec | desired.WorkerSettings


def describe(
    index: catalog_index.CatalogIndex, changes: Iterable[registry_contents.RegistryChange]
) -> tuple[str, ...]:
    """Return one line for each thing that the changes would change in `index`."""
    return tuple(line for change in changes for line in _lines(index, change))


def _lines(
    index: catalog_index.CatalogIndex, change: registry_contents.RegistryChange
) -> Iterator[str]:
    match change:
        case catalog.ModelDeclared():
            before = index.models.declared(change.spec.id)
            how = "added" if before is None else _differences(before.spec, change.spec)
            yield f"model {change.spec.id} {how}"
        case catalog.ModelWithdrawn():
            yield f"model {change.id} withdrawn"
        case desired.DesiredAlias():
            yield f"alias {change.alias} means {change.name}" + (
                f", then {change.target}" if change.target else ""
            )
        case catalog.AliasCleared():
            yield f"alias {change.alias} cleared"
        case desired.Desired():
            yield from _settings(index.desired, change)


def _differences(before: Settings, after: Settings) -> str:
    return f"changed ({', '.join(_changed_fields(before, after))})"


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
        yield f"pool {after.name} added: {after.workers} worker{'' if after.workers == 1 else 's'}"
        return
    if before.workers != after.workers:
        yield f"pool {after.name}: {before.workers} → {after.workers} workers"
    changed = ", ".join(_changed_fields(before.settings, after.settings))
    if changed:
        yield f"pool {after.name}: its workers are replaced, one after the other ({changed})"


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
    if before.keys != after.keys:
        yield "gateway's API keys changed"
    if before.cors_origins != after.cors_origins:
        yield "gateway's CORS origins changed"
