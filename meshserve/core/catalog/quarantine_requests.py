"""Decide what a conviction or a release changes: a command to save it, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve import errors
from meshserve.core.catalog import catalog_index, changeset
from meshserve.core.values import commands, containment, events, model


@dataclass(frozen=True, slots=True)
class CopyConvicted:
    """The mesh's own request: the copy of the model has ended its own process, as `reason` says."""

    key: str
    id: model.ModelId
    reason: str


def decide(
    index: catalog_index.CatalogIndex, request: CopyConvicted | events.ReleaseRequested
) -> commands.SaveChanges:
    """Return what the request would change.

    Raises ModelNotFound, or Conflict for a release of a model that is not in quarantine.
    """
    if isinstance(request, CopyConvicted):
        return _convict(index, request)
    if not index.models.versions(request.name):
        raise changeset.not_registered(request.name)
    released = index.quarantines_of(request.name, request.version)
    if not released:
        raise errors.Conflict(f"model {request.name!r} is not in quarantine")
    return commands.SaveChanges(
        tuple(containment.QuarantineEnded(quarantine.key) for quarantine in released),
        tuple(f"{_names(quarantine.ids)} released" for quarantine in released),
    )


def _convict(index: catalog_index.CatalogIndex, request: CopyConvicted) -> commands.SaveChanges:
    known = index.models.quarantines.get(request.key)
    ids = known.ids if known else ()
    # Workers tell it with each report until their catalogs say it.
    if request.id in ids:
        return commands.SaveChanges(())
    # The first reason stays: under another name it is still the same copy.
    reason = known.reason if known else request.reason
    quarantine = containment.CopyQuarantined(request.key, (*ids, request.id), reason)
    return commands.SaveChanges((quarantine,), (f"model {request.id} in quarantine: {reason}",))


def _names(ids: tuple[model.ModelId, ...]) -> str:
    return f"model {', '.join(map(str, ids))}"
