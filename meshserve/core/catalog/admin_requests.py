"""What each wish of a user or of a repository would change: a command to save it, or a refusal. Nothing is changed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from meshserve import errors
from meshserve.core.catalog import catalog_index, changeset, describe_changes
from meshserve.core.values import commands, desired, events, model


def configure(
    book: catalog_index.CatalogIndex,
    wanted: desired.Desired,
    scans: Mapping[model.Origin, tuple[model.ModelSpec, ...]],
) -> commands.SaveChanges:
    """What the new configuration changes, beside the last one: what both say alike is not touched.

    `scans` is what each repository held last: its models come back where the configuration no longer stands above them.
    """
    sheet = book.draft(wanted)
    _configure_models(book, sheet, wanted)
    _configure_aliases(book, sheet, wanted)
    for gone in {each.origin for each in book.desired.repositories} - {
        each.origin for each in wanted.repositories
    }:
        _withdraw_all(sheet, book.of_origin(gone))
    for each in wanted.repositories:
        if each.origin in scans:
            _scan(book, sheet, each.origin, scans[each.origin])
    sheet.check()
    _check_removed_pools(book, sheet, wanted)
    changes = sheet.changes() if wanted == book.desired else (wanted, *sheet.changes())
    return commands.SaveChanges(changes, describe_changes.describe(book, changes))


def _configure_models(
    book: catalog_index.CatalogIndex, sheet: changeset.Changeset, wanted: desired.Desired
) -> None:
    before = {spec.id: spec for spec in book.desired.models}
    after = {spec.id: spec for spec in wanted.models}
    _withdraw_all(
        sheet,
        (id_ for id_ in before if id_ not in after and id_ in book.of_origin(model.FROM_CONFIG)),
    )
    for id_, spec in after.items():
        if before.get(id_) != spec or sheet.spec(id_) is None:
            sheet.declare(spec, is_replacing=True)


def _configure_aliases(
    book: catalog_index.CatalogIndex, sheet: changeset.Changeset, wanted: desired.Desired
) -> None:
    after = {alias.alias: alias for alias in wanted.aliases}
    for alias in book.aliases.values():
        if alias.origin == model.FROM_CONFIG and alias.alias not in after:
            sheet.clear_alias(alias.alias)
    for name, alias in after.items():
        there = sheet.alias(name)
        if (
            there is not None
            and there.origin != model.FROM_CONFIG
            and (there.name, there.version) != (alias.name, alias.version)
        ):
            raise errors.AlreadyExists(
                f"alias {name!r} was set through the API and means {there.name!r}"
            )
        if there is None or there.origin == model.FROM_CONFIG:
            sheet.set_alias(alias)


def _check_removed_pools(
    book: catalog_index.CatalogIndex, sheet: changeset.Changeset, wanted: desired.Desired
) -> None:
    for gone in [pool.name for pool in book.desired.pools if wanted.pool(pool.name) is None]:
        for declared in book.share(gone):
            spec = sheet.spec(declared.spec.id)
            if spec is not None and spec.pool == gone:
                raise errors.Conflict(
                    f"pool {gone!r} can't be removed: model {str(spec.id)!r} is registered in it"
                )


def _withdraw_all(sheet: changeset.Changeset, ids: Iterable[model.ModelId]) -> None:
    for id_ in ids:
        sheet.withdraw(id_)


def register(
    book: catalog_index.CatalogIndex, event: events.ModelsRegistered
) -> commands.SaveChanges:
    """What the registration changes. Raises AlreadyExists where a name is somebody else's or means something else."""
    sheet = book.draft()
    for spec in event.specs:
        sheet.declare(spec, is_replacing=event.is_replacing)
    return _checked(book, sheet)


def _checked(book: catalog_index.CatalogIndex, sheet: changeset.Changeset) -> commands.SaveChanges:
    sheet.check()
    changes = sheet.changes()
    return commands.SaveChanges(changes, describe_changes.describe(book, changes))


def remove(book: catalog_index.CatalogIndex, event: events.ModelRemoved) -> commands.SaveChanges:
    """What the removal changes. Raises ModelNotFound; Conflict where the model is not the API's, or is needed by an alias."""
    sheet = book.draft()
    specs = list(sheet.of_name(event.name))
    gone = [spec for spec in specs if event.version in ("", spec.id.version)]
    if not gone:
        raise errors.ModelNotFound(
            f"model {event.name!r} is not registered"
            + (f" in version {event.version!r}" if event.version else "")
        )
    if not changeset.may_take(gone[0].origin, model.FROM_API):
        raise errors.Conflict(
            f"model {event.name!r} belongs to {changeset.owned_by(gone[0].origin)}: remove it there"
        )
    for alias in book.needing(event.name):
        if len(gone) == len(specs) or alias.version == event.version:
            raise errors.Conflict(
                f"model {event.name!r} is what alias {alias.alias!r} means: clear the alias first"
            )
    _withdraw_all(sheet, (spec.id for spec in gone))
    return _checked(book, sheet)


def scan(book: catalog_index.CatalogIndex, event: events.RepositoryScanned) -> commands.SaveChanges:
    """What changed in a repository. Names that belong to somebody else are left alone; the words say so."""
    sheet = book.draft()
    if event.origin not in {each.origin for each in book.desired.repositories}:
        return commands.SaveChanges(())
    problems = _scan(book, sheet, event.origin, event.specs)
    saved = _checked(book, sheet)
    return dataclasses.replace(saved, words=(*saved.words, *problems))


def _scan(
    book: catalog_index.CatalogIndex,
    sheet: changeset.Changeset,
    origin: model.Origin,
    specs: Iterable[model.ModelSpec],
) -> list[str]:
    problems, seen = [], set()
    for spec in specs:
        owner = sheet.owner(spec.id.name)
        if owner is not None and owner != origin:
            problems.append(
                f"model {str(spec.id)!r} of {changeset.owned_by(origin)} is not served: the name belongs to {changeset.owned_by(owner)}"
            )
        elif sheet.alias(spec.id.name):
            problems.append(
                f"model {str(spec.id)!r} of {changeset.owned_by(origin)} is not served: the name is an alias"
            )
        elif spec.id.name in sheet.llms:
            problems.append(
                f"model {str(spec.id)!r} of {changeset.owned_by(origin)} is not served: the name is an LLM's"
            )
        else:
            seen.add(spec.id)
            _scan_one(sheet, spec)
    _withdraw_all(
        sheet, (id_ for id_ in book.of_origin(origin) - seen if _is_of(sheet, id_, origin))
    )
    return problems


def _scan_one(sheet: changeset.Changeset, spec: model.ModelSpec) -> None:
    there = sheet.spec(spec.id)
    sheet.put(dataclasses.replace(spec, pinned=there.pinned if there else spec.pinned))


def _is_of(sheet: changeset.Changeset, id_: model.ModelId, origin: model.Origin) -> bool:
    spec = sheet.spec(id_)
    return spec is not None and spec.origin == origin


def pin(book: catalog_index.CatalogIndex, event: events.PinRequested) -> commands.SaveChanges:
    """What the pin changes. Raises ModelNotFound."""
    sheet = book.draft()
    sheet.pin(event.id, is_pinned=event.is_pinned)
    return _checked(book, sheet)


def set_alias(
    book: catalog_index.CatalogIndex, event: events.AliasRequested
) -> commands.SaveChanges:
    """What the new meaning changes. Raises ModelNotFound, AlreadyExists for another's alias, Conflict where `expected` is not so."""
    sheet = book.draft()
    wanted, there = event.alias, sheet.alias(event.alias.alias)
    _check_may_set(event, there)
    if event.spec is not None:
        sheet.declare(event.spec, is_replacing=False)
    if not any(wanted.version in ("", spec.id.version) for spec in sheet.of_name(wanted.name)):
        raise errors.ModelNotFound(
            f"model {wanted.name!r} is not registered"
            + (f" in version {wanted.version!r}" if wanted.version else "")
        )
    set_ = _meaning(event, there)
    sheet.set_alias(set_)
    _withdraw_unneeded(book, sheet, there, set_)
    return _checked(book, sheet)


def _check_may_set(event: events.AliasRequested, there: desired.DesiredAlias | None) -> None:
    alias = event.alias.alias
    if there is None:
        if event.is_update_only:
            raise errors.ModelNotFound(f"alias {alias!r} is not set")
        if event.expected not in ("", event.alias.name):
            raise errors.Conflict(
                f"alias {alias!r} is not set, but was expected to mean {event.expected!r}"
            )
        return
    if there.origin == model.FROM_CONFIG:
        raise errors.AlreadyExists(f"alias {alias!r} belongs to the configuration")
    if event.alias.owner not in ("", there.owner):
        raise errors.AlreadyExists(f"alias {alias!r} has another owner: {there.owner!r}")
    target = there.target or there.name
    if event.expected not in ("", target) and event.alias.name != target:
        raise errors.Conflict(
            f"alias {alias!r} is to mean {target!r}, but was expected to mean {event.expected!r}"
        )


def _meaning(
    event: events.AliasRequested, there: desired.DesiredAlias | None
) -> desired.DesiredAlias:
    wanted = event.alias
    if there is None:
        return wanted
    if event.is_gradual and there.name != wanted.name:
        return (
            there
            if there.target == wanted.name
            else dataclasses.replace(there, target=wanted.name, failure="")
        )
    return dataclasses.replace(wanted, owner=there.owner)


def _withdraw_unneeded(
    book: catalog_index.CatalogIndex,
    sheet: changeset.Changeset,
    before: desired.DesiredAlias | None,
    after: desired.DesiredAlias | None,
) -> None:
    """Withdraw what was registered for aliases alone, once no alias needs it."""
    if before is None:
        return
    kept = {after.name, after.target} if after else set()
    for name in {before.name, before.target} - kept - {""}:
        if sheet.owner(name) == model.FROM_ALIAS and all(
            alias.alias == before.alias for alias in book.needing(name)
        ):
            _withdraw_all(sheet, [spec.id for spec in sheet.of_name(name)])


def clear_alias(
    book: catalog_index.CatalogIndex, event: events.AliasRemovalRequested
) -> commands.SaveChanges:
    """What clearing the alias changes. Raises ModelNotFound, AlreadyExists for another's alias, Conflict for the configuration's."""
    sheet = book.draft()
    there = sheet.alias(event.alias)
    if there is None:
        raise errors.ModelNotFound(f"alias {event.alias!r} is not set")
    if there.origin == model.FROM_CONFIG:
        raise errors.Conflict(
            f"alias {event.alias!r} belongs to the configuration: remove it there"
        )
    if event.owner not in ("", there.owner):
        raise errors.AlreadyExists(f"alias {event.alias!r} has another owner: {there.owner!r}")
    sheet.clear_alias(event.alias)
    _withdraw_unneeded(book, sheet, there, None)
    return _checked(book, sheet)


def flip(book: catalog_index.CatalogIndex, alias: desired.DesiredAlias) -> commands.SaveChanges:
    """The alias's target answers: it takes over."""
    sheet = book.draft()
    after = dataclasses.replace(alias, name=alias.target, version="", target="", failure="")
    sheet.set_alias(after)
    _withdraw_unneeded(book, sheet, alias, after)
    return _checked(book, sheet)


def blame(
    book: catalog_index.CatalogIndex, alias: desired.DesiredAlias, failure: str
) -> commands.SaveChanges:
    """The alias's target can't take over yet, for this reason."""
    sheet = book.draft()
    sheet.set_alias(dataclasses.replace(alias, failure=failure))
    return _checked(book, sheet)
