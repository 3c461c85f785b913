"""Decide what an admin request changes about aliases, and about the models behind them.

An alias moves gradually if it keeps its meaning until the new target is loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from meshserve import errors
from meshserve.core.catalog import catalog_index, changeset
from meshserve.core.values import desired, events, model, reserved_names


@dataclass(frozen=True, slots=True)
class AliasMoveEnded:
    """The mesh's own request: the target of a moving alias was loaded, or failed to load."""

    alias: str
    target: str
    failure: str = ""


def set_alias(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: events.AliasRequested
) -> None:
    """Draft what the alias's new meaning changes.

    Raises ModelNotFound, InvalidRequest for a name that no alias can have, AlreadyExists for an
    alias with another owner, Conflict if the alias does not mean the `expected` model.
    """
    wanted, current = request.alias, draft.alias(request.alias.alias)
    if current is None:
        _check_may_add(request)
    else:
        _check_may_change(request, current)
    # First, because the alias may mean the model that comes with it.
    if request.spec is not None:
        draft.declare(request.spec, is_replacing=False)
    if not any(wanted.version in ("", spec.id.version) for spec in draft.of_name(wanted.name)):
        raise changeset.not_registered(wanted.name, wanted.version)
    meaning = _new_meaning(request, current)
    draft.set_alias(meaning)
    _withdraw_unneeded(index, draft, current, meaning)


def _check_may_add(request: events.AliasRequested) -> None:
    alias = request.alias.alias
    reason = reserved_names.reason_against(alias)
    if reason:
        raise errors.InvalidRequest(reason)
    if request.is_update_only:
        raise errors.ModelNotFound(f"alias {alias!r} is not set")
    if request.expected not in ("", request.alias.name):
        raise errors.Conflict(
            f"alias {alias!r} is not set, but was expected to mean {request.expected!r}"
        )


def _check_may_change(request: events.AliasRequested, current: desired.DesiredAlias) -> None:
    alias = request.alias.alias
    if current.origin == model.FROM_CONFIG:
        raise errors.AlreadyExists(f"alias {alias!r} belongs to the configuration")
    if request.alias.owner not in ("", current.owner):
        raise errors.AlreadyExists(f"alias {alias!r} has another owner: {current.owner!r}")
    # An alias that is moving counts as moved: its target is what was asked for last.
    target = current.target or current.name
    if request.expected not in ("", target) and request.alias.name != target:
        raise errors.Conflict(
            f"alias {alias!r} is to mean {target!r}, but was expected to mean {request.expected!r}"
        )


def _new_meaning(
    request: events.AliasRequested, current: desired.DesiredAlias | None
) -> desired.DesiredAlias:
    wanted = request.alias
    if current is None:
        return wanted
    # The owner is kept: a change of the meaning does not give the alias up.
    if not request.is_gradual or current.name == wanted.name:
        return dataclasses.replace(wanted, owner=current.owner)
    # Asked for twice it is one move, which goes on.
    if current.target == wanted.name:
        return current
    return dataclasses.replace(current, target=wanted.name, failure="")


def _withdraw_unneeded(
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    before: desired.DesiredAlias | None,
    after: desired.DesiredAlias | None,
) -> None:
    """Withdraw models that were registered for aliases alone, once no alias needs them."""
    if before is None:
        return
    kept = {after.name, after.target} if after else set()
    for name in sorted({before.name, before.target} - kept - {""}):
        others = (alias for alias in index.needing(name) if alias.alias != before.alias)
        # Only what came with an alias: other models were registered for themselves.
        if draft.owner(name) == model.FROM_ALIAS and not any(others):
            draft.withdraw([spec.id for spec in draft.of_name(name)])


def clear_alias(
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    request: events.AliasRemovalRequested,
) -> None:
    """Draft what clearing the alias changes.

    Raises ModelNotFound, AlreadyExists for an alias with another owner, Conflict for an alias of
    the configuration.
    """
    current = draft.alias(request.alias)
    if current is None:
        raise errors.ModelNotFound(f"alias {request.alias!r} is not set")
    if current.origin == model.FROM_CONFIG:
        raise errors.Conflict(
            f"alias {request.alias!r} belongs to the configuration: remove it there"
        )
    if request.owner not in ("", current.owner):
        raise errors.AlreadyExists(f"alias {request.alias!r} has another owner: {current.owner!r}")
    draft.clear_alias(request.alias)
    _withdraw_unneeded(index, draft, current, None)


def end_move(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: AliasMoveEnded
) -> None:
    """Draft what changes when the alias's target has been loaded, or could not be.

    Nothing changes if the alias was cleared or got another target meanwhile.
    """
    current = draft.alias(request.alias)
    if current is None or current.target != request.target:
        return
    if request.failure:
        # The alias keeps its meaning: the old model still answers.
        draft.set_alias(dataclasses.replace(current, failure=request.failure))
    else:
        moved = dataclasses.replace(current, name=request.target, version="", target="", failure="")
        draft.set_alias(moved)
        _withdraw_unneeded(index, draft, current, moved)
