"""Overrides: other specs that a load request gives a model, until it is loaded without any.

Every spec of an overridden model keeps in `replaced` what the model's owner declares. So an
override survives a restart of the controller, and ends when the owner declares something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from meshserve.core.catalog import changeset
from meshserve.core.values import catalog_sync, model

Specs = tuple[model.ModelSpec, ...]


def replaced(draft: changeset.Changeset, name: str) -> Specs:
    """Return what the model's owner declares; nothing if the model is not overridden."""
    return next((spec.replaced for spec in draft.of_name(name)), ())


def override(draft: changeset.Changeset, name: str, specs: Iterable[model.ModelSpec]) -> None:
    """Serve the model, which must exist, by these specs; without any, by its owner's own."""
    current = tuple(draft.of_name(name))
    own = replaced(draft, name) or current
    # Where a model runs, and how long, is its owner's to say: an override may bring code of
    # somebody else's.
    wanted = tuple(
        dataclasses.replace(
            spec,
            origin=own[0].origin,
            pool=own[0].pool,
            isolate=own[0].isolate,
            predict_timeout_s=own[0].predict_timeout_s,
            replaced=own,
        )
        for spec in specs
    )
    put(draft, current, wanted or own)


def put(draft: changeset.Changeset, current: Specs, wanted: Iterable[model.ModelSpec]) -> None:
    """Declare the wanted versions of one model in place of the current ones.

    Pins of versions and an unload of the model stay as they are: no declaration knows of them.
    """
    pinned = {spec.id: spec.pinned for spec in current}
    is_unloaded = any(spec.unloaded for spec in current)
    draft.withdraw(spec.id for spec in current)
    for spec in wanted:
        is_pinned = pinned.get(spec.id, spec.pinned)
        draft.put(dataclasses.replace(spec, pinned=is_pinned, unloaded=is_unloaded))


def survives(draft: changeset.Changeset, name: str, declared: Iterable[model.ModelSpec]) -> bool:
    """Return whether an override of the model goes on beside these declarations of its owner."""
    own = {spec.id: spec for spec in replaced(draft, name)}
    wanted = {spec.id: spec for spec in declared}
    return (
        bool(own)
        and own.keys() == wanted.keys()
        and all(
            own[id_].origin == spec.origin and catalog_sync.can_share_copy(own[id_], spec)
            for id_, spec in wanted.items()
        )
    )


def end(draft: changeset.Changeset, name: str) -> None:
    """Serve the model by its owner's own specs again, if it is overridden."""
    if replaced(draft, name):
        override(draft, name, ())
