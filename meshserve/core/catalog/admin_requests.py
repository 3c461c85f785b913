"""Decide what each admin request changes: return a command to save it, or raise a refusal.

No function here changes the index: the mesh does that once the changes are saved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from meshserve import errors
from meshserve.core.catalog import catalog_index, changeset, describe_changes
from meshserve.core.values import commands, desired, events, model

Scans = Mapping[model.Origin, tuple[model.ModelSpec, ...]]
"""The models that each repository held when it was scanned last."""

NOT_SERVED = " is not served: "
"""What the words about a repository's model say, before the reason, if its name is taken."""


@dataclass(frozen=True, slots=True)
class AliasMoveEnded:
    """The mesh's own request: the target of a moving alias was loaded, or failed to load."""

    alias: str
    target: str
    failure: str = ""


Request = events.AdminRequest | AliasMoveEnded


def decide(
    index: catalog_index.CatalogIndex, request: Request, scans: Scans
) -> commands.SaveChanges:
    """Return what the request would change. Raises the MeshError that refuses it."""
    wanted = request.desired if isinstance(request, events.ConfigApplied) else index.desired
    draft = changeset.Changeset(index.models, index.aliases, wanted)
    problems = _draft(index, draft, request, scans)
    draft.check()
    _check_removed_pools(index, draft, wanted)
    changes = draft.changes() if wanted == index.desired else (wanted, *draft.changes())
    return commands.SaveChanges(changes, (*describe_changes.describe(index, changes), *problems))


def _draft(  # noqa: C901 - one case for each request
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: Request, scans: Scans
) -> list[str]:
    """Put what the request changes into the draft; return in words what it can't change."""
    match request:
        case events.ConfigApplied():
            _configure(index, draft, request.desired, scans)
        case events.RepositoryScanned():
            if request.origin in {place.origin for place in index.desired.repositories}:
                return _scan(index, draft, request.origin, request.specs)
        case events.ModelsRegistered():
            for spec in request.specs:
                draft.declare(spec, is_replacing=request.is_replacing)
        case events.ModelRemoved():
            _remove(index, draft, request)
        case events.PinRequested():
            draft.pin(request.id, is_pinned=request.is_pinned)
        case events.UnloadedSet():
            _set_unloaded(draft, request)
        case events.AliasRequested():
            _set_alias(index, draft, request)
        case events.AliasRemovalRequested():
            _clear_alias(index, draft, request)
        case AliasMoveEnded():
            _end_move(index, draft, request)
        case _:
            assert_never(request)
    return []


# The configuration


def _configure(
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    wanted: desired.Desired,
    scans: Scans,
) -> None:
    """Draft what a new configuration changes.

    The new configuration is compared with the last one, not with the catalog: what was registered
    or pinned through the API stays. A repository's models come back where the new configuration no
    longer declares their names itself.

    Raises AlreadyExists for a name that belongs to the API, Conflict if a pool with models would
    be removed, InvalidRequest for a model in an unknown pool.
    """
    _configure_models(index, draft, wanted)
    _configure_aliases(index, draft, wanted)
    origins = [repository.origin for repository in wanted.repositories]
    for repository in index.desired.repositories:
        if repository.origin not in origins:
            _withdraw_all(draft, sorted(index.of_origin(repository.origin)))
    for origin in origins:
        if origin in scans:
            _scan(index, draft, origin, scans[origin])


def _configure_models(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, wanted: desired.Desired
) -> None:
    before = {spec.id: spec for spec in index.desired.models}
    after = {spec.id: spec for spec in wanted.models}
    of_config = index.of_origin(model.FROM_CONFIG)
    _withdraw_all(draft, (id_ for id_ in before if id_ not in after and id_ in of_config))
    for id_, spec in after.items():
        # A spec that is the same in both configurations stays as the API may have changed it.
        if before.get(id_) != spec or draft.spec(id_) is None:
            draft.declare(spec, is_replacing=True)


def _configure_aliases(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, wanted: desired.Desired
) -> None:
    after = {alias.alias: alias for alias in wanted.aliases}
    for alias in index.aliases.values():
        if alias.origin == model.FROM_CONFIG and alias.alias not in after:
            draft.clear_alias(alias.alias)
    for name, alias in after.items():
        current = draft.alias(name)
        if current is None or current.origin == model.FROM_CONFIG:
            draft.set_alias(alias)
        elif (current.name, current.version) != (alias.name, alias.version):
            raise errors.AlreadyExists(
                f"alias {name!r} was set through the API and means {current.name!r}"
            )


def _check_removed_pools(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, wanted: desired.Desired
) -> None:
    removed = [pool.name for pool in index.desired.pools if wanted.pool(pool.name) is None]
    for pool in removed:
        for declared in index.share(pool):
            spec = draft.spec(declared.spec.id)
            if spec is not None and spec.pool == pool:
                raise errors.Conflict(
                    f"pool {pool!r} can't be removed: model {str(spec.id)!r} is registered in it"
                )


# Models


def _remove(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: events.ModelRemoved
) -> None:
    """Withdraw a model, or one version of it.

    Raises ModelNotFound; Conflict if the model does not belong to the API, or an alias needs it.
    """
    specs = list(draft.of_name(request.name))
    removed = [spec for spec in specs if request.version in ("", spec.id.version)]
    if not removed:
        raise _not_registered(request.name, request.version)
    if not changeset.may_take(removed[0].origin, model.FROM_API):
        owner = changeset.owned_by(removed[0].origin)
        raise errors.Conflict(f"model {request.name!r} belongs to {owner}: remove it there")
    for alias in index.needing(request.name):
        if len(removed) == len(specs) or alias.version == request.version:
            raise errors.Conflict(
                f"model {request.name!r} is what alias {alias.alias!r} means: clear the alias first"
            )
    _withdraw_all(draft, (spec.id for spec in removed))


def _not_registered(name: str, version: str) -> errors.ModelNotFound:
    of_version = f" in version {version!r}" if version else ""
    return errors.ModelNotFound(f"model {name!r} is not registered{of_version}")


def _withdraw_all(draft: changeset.Changeset, ids: Iterable[model.ModelId]) -> None:
    for id_ in ids:
        draft.withdraw(id_)


def _set_unloaded(draft: changeset.Changeset, request: events.UnloadedSet) -> None:
    """Draft what unloading or loading all versions of a model changes.

    Raises ModelNotFound; Conflict if one is pinned and to be unloaded.
    """
    specs = list(draft.of_name(request.name))
    if not specs:
        raise _not_registered(request.name, "")
    for spec in specs:
        if request.unloaded and spec.pinned:
            raise errors.Conflict(f"model {str(spec.id)!r} is pinned: unpin it first")
        draft.put(dataclasses.replace(spec, unloaded=request.unloaded))


# Repositories


def _scan(
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    origin: model.Origin,
    specs: Iterable[model.ModelSpec],
) -> list[str]:
    """Draft what changed in a repository.

    A model whose name belongs to another origin is left out; the words that are returned say so.
    """
    problems, served = [], set()
    for spec in specs:
        problem = _name_problem(draft, spec.id.name, origin)
        if problem:
            problems.append(
                f"model {str(spec.id)!r} of {changeset.owned_by(origin)}{NOT_SERVED}{problem}"
            )
        else:
            served.add(spec.id)
            # A repository knows nothing of pins and unloads: what the API has set stays so.
            current = draft.spec(spec.id) or spec
            draft.put(dataclasses.replace(spec, pinned=current.pinned, unloaded=current.unloaded))
    removed = sorted(index.of_origin(origin) - served)
    _withdraw_all(draft, (id_ for id_ in removed if _is_of(draft, id_, origin)))
    return problems


def _name_problem(draft: changeset.Changeset, name: str, origin: model.Origin) -> str:
    """Return why the repository can't serve a model of this name, empty if it can."""
    owner = draft.owner(name)
    if owner is not None and owner != origin:
        return f"the name belongs to {changeset.owned_by(owner)}"
    if draft.alias(name):
        return "the name is an alias"
    return "the name is an LLM's" if name in draft.llms else ""


def _is_of(draft: changeset.Changeset, id_: model.ModelId, origin: model.Origin) -> bool:
    spec = draft.spec(id_)
    return spec is not None and spec.origin == origin


# Aliases


def _set_alias(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: events.AliasRequested
) -> None:
    """Draft what the alias's new meaning changes.

    Raises ModelNotFound, AlreadyExists for an alias with another owner, Conflict if the alias does
    not mean the `expected` model.
    """
    wanted, current = request.alias, draft.alias(request.alias.alias)
    if current is None:
        _check_may_add(request)
    else:
        _check_may_change(request, current)
    if request.spec is not None:
        draft.declare(request.spec, is_replacing=False)
    if not any(wanted.version in ("", spec.id.version) for spec in draft.of_name(wanted.name)):
        raise _not_registered(wanted.name, wanted.version)
    meaning = _new_meaning(request, current)
    draft.set_alias(meaning)
    _withdraw_unneeded(index, draft, current, meaning)


def _check_may_add(request: events.AliasRequested) -> None:
    alias = request.alias.alias
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
        if draft.owner(name) == model.FROM_ALIAS and not any(others):
            _withdraw_all(draft, [spec.id for spec in draft.of_name(name)])


def _clear_alias(
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


def _end_move(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: AliasMoveEnded
) -> None:
    """Draft what changes when the alias's target has been loaded, or could not be.

    Nothing changes if the alias was cleared or got another target meanwhile.
    """
    current = draft.alias(request.alias)
    if current is None or current.target != request.target:
        return
    if request.failure:
        draft.set_alias(dataclasses.replace(current, failure=request.failure))
    else:
        moved = dataclasses.replace(current, name=request.target, version="", target="", failure="")
        draft.set_alias(moved)
        _withdraw_unneeded(index, draft, current, moved)
