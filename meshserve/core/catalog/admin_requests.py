"""Admin requests in the order of their arrival: each is decided on what the one before has left.

Nothing here changes the index: the mesh does that once the changes are saved.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from meshserve import errors
from meshserve.core.catalog import (
    alias_requests,
    catalog_index,
    changeset,
    load_overrides,
    node_table,
    quarantine_requests,
    repository_changes,
)
from meshserve.core.values import catalog_sync, commands, desired, events, model

Scans = Mapping[model.Origin, tuple[model.ModelSpec, ...]]
"""The models that each repository held when it was scanned last."""


STALLED_RETRY_S = 5.0
"""When to ask again for a change while the registry does not answer."""

Request = events.AdminRequest | alias_requests.AliasMoveEnded | quarantine_requests.CopyConvicted


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request, and the ticket to answer; the mesh's own requests have none."""

    request: Request
    ticket: str = ""
    by: str = ""


class AdminQueue:
    """Admin requests that are not answered yet.

    While the changes of one request are being saved the next ones wait: decided on the catalog
    before those changes, they could contradict them. All other events are handled meanwhile, so a
    registry that stalls holds up nothing but admin requests.
    """

    def __init__(self, index: catalog_index.CatalogIndex, out: commands.Outbox) -> None:
        self.is_configured = False
        self._index = index
        self._out = out
        self._scans: dict[model.Origin, tuple[model.ModelSpec, ...]] = {}
        self._waiting: collections.deque[QueuedRequest] = collections.deque()
        self._saving: tuple[QueuedRequest, commands.SaveChanges] | None = None
        # Why nobody knows yet whether the changes that are being saved are there.
        self._stalled = ""

    @property
    def has_open(self) -> bool:
        """Whether a request waits, or is being saved."""
        return bool(self._waiting) or self._saving is not None

    def add(self, request: Request, ticket: str = "", by: str = "") -> None:
        """Take in a request, and decide it at once if none is before it."""
        queued = QueuedRequest(request, ticket, by)
        if ticket and self._stalled:
            self._refuse(queued, self._not_begun())
            return
        self._waiting.append(queued)
        self._advance()

    def saved(self) -> None:
        """Acknowledge the request that was being saved; its changes are in the index already."""
        queued, save = self._take_saving()
        self._finish(queued, save.words)
        self._advance()

    def save_failed(self, error: errors.MeshError) -> None:
        """Refuse the request that was being saved."""
        queued, _ = self._take_saving()
        self._refuse(queued, error)
        self._advance()

    def save_stalled(self, reason: str) -> None:
        """Refuse all requests of users, until the registry tells what became of the save.

        Nobody should have to wait for a database that hangs, and none of the later requests may be
        performed after its caller has left. What was being saved may take effect: the registry
        decides.
        """
        if self._saving is None:
            return
        self._stalled = reason
        queued, save = self._saving
        self._saving = (dataclasses.replace(queued, ticket=""), save)
        unknown = f"the registry may have saved this change, or not: {reason}. Look again later"
        self._refuse(queued, errors.Unavailable(unknown, retry_after_s=STALLED_RETRY_S))
        waiting, self._waiting = self._waiting, collections.deque()
        for other in waiting:
            if other.ticket:
                self._refuse(other, self._not_begun())
            else:
                self._waiting.append(other)

    def _not_begun(self) -> errors.Unavailable:
        message = f"nothing was changed: the registry does not answer: {self._stalled}"
        return errors.Unavailable(message, retry_after_s=STALLED_RETRY_S)

    def _take_saving(self) -> tuple[QueuedRequest, commands.SaveChanges]:
        saving, self._saving = self._saving, None
        self._stalled = ""
        assert saving is not None, "the registry has answered, but no changes are being saved"
        return saving

    def _advance(self) -> None:
        while self._waiting and self._saving is None:
            self._decide(self._waiting.popleft())

    def _decide(self, queued: QueuedRequest) -> None:
        try:
            save = decide(self._index, queued.request, self._scans)
        except errors.MeshError as error:
            self._refuse(queued, error)
            return
        except Exception as error:
            # Our own bug; the caller must be answered all the same.
            self._refuse(queued, errors.MeshError(f"the controller failed: {error!r}"))
            raise
        if isinstance(queued.request, events.RepositoryScanned):
            # A later configuration may give names back that it has taken over from the repository.
            self._scans[queued.request.origin] = queued.request.specs
        if save.changes:
            save = dataclasses.replace(save, by=queued.by or _cause(queued.request))
            self._saving = (queued, save)
            self._out.append(save)
        else:
            self._finish(queued, save.words)

    def _finish(self, queued: QueuedRequest, words: tuple[str, ...]) -> None:
        self.is_configured |= isinstance(queued.request, events.ConfigApplied)
        if queued.ticket:
            self._out.append(commands.Acknowledge(queued.ticket, words))

    def _refuse(self, queued: QueuedRequest, error: errors.MeshError) -> None:
        if queued.ticket:
            self._out.append(commands.Refuse(queued.ticket, error))


def _cause(request: Request) -> str:
    """Return what has led to a request that nobody made, as users are told it."""
    if isinstance(request, events.RepositoryScanned):
        return str(request.origin)
    return "files" if isinstance(request, events.SourcesStamped) else ""


def decide(
    index: catalog_index.CatalogIndex, request: Request, scans: Scans
) -> commands.SaveChanges:
    """Return what the request would change. Raises the MeshError that refuses it."""
    if isinstance(request, events.ReleaseRequested | quarantine_requests.CopyConvicted):
        return quarantine_requests.decide(index, request)
    if isinstance(request, events.NodeDrainRequested | events.NodeDrainEndRequested):
        return node_table.decide(index.nodes, request)
    wanted = request.desired if isinstance(request, events.ConfigApplied) else index.desired
    draft = changeset.Changeset(index.models, index.aliases, wanted)
    problems = _draft(index, draft, request, scans)
    # The draft as a whole, because one request may free a name and take it.
    draft.check()
    # After the draft, because the same configuration may move the pool's models.
    _check_removed_pools(index, draft, wanted)
    # An equal configuration is no change: a second `up` with the same file writes nothing.
    changes = draft.changes() if wanted == index.desired else (wanted, *draft.changes())
    return commands.SaveChanges(
        changes, (*changeset.describe(index.models, index.desired, changes), *problems)
    )


def _draft(  # noqa: C901, PLR0912 - one case for each request
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    request: events.CatalogRequest | alias_requests.AliasMoveEnded,
    scans: Scans,
) -> list[str]:
    """Put what the request changes into the draft; return in words what it can't change."""
    match request:
        case events.ConfigApplied():
            _configure(index, draft, request.desired, scans)
        case events.RepositoryScanned():
            # A scan may end after a configuration has left its repository out.
            if request.origin in {place.origin for place in index.desired.repositories}:
                return repository_changes.draft_scan(index, draft, request.origin, request.specs)
        case events.SourcesStamped():
            draft.stamp(request.stamps)
        case events.ModelsRegistered():
            for spec in request.specs:
                _register(draft, spec, is_replacing=request.is_replacing)
        case events.ModelRemoved():
            _remove(index, draft, request)
        case events.PinRequested():
            draft.pin(request.id, is_pinned=request.is_pinned)
        case events.UnloadedSet():
            _set_unloaded(draft, request)
        case events.ModelOverridden():
            _override(draft, request)
        case events.AliasRequested():
            alias_requests.set_alias(index, draft, request)
        case events.AliasRemovalRequested():
            alias_requests.clear_alias(index, draft, request)
        case alias_requests.AliasMoveEnded():
            alias_requests.end_move(index, draft, request)
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
    origins = {repository.origin: repository for repository in wanted.repositories}
    for repository in index.desired.repositories:
        if repository.origin not in origins:
            draft.withdraw(sorted(index.of_origin(repository.origin)))
    # Last, because a name that the configuration has taken is no longer the repository's.
    for origin, repository in origins.items():
        if origin in scans:
            specs = repository_changes.as_configured(scans[origin], repository)
            repository_changes.draft_scan(index, draft, origin, specs)


def _configure_models(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, wanted: desired.Desired
) -> None:
    before = {spec.id: spec for spec in index.desired.models}
    after = {spec.id: spec for spec in wanted.models}
    of_config = index.of_origin(model.FROM_CONFIG)
    overridden = _follow_overridden(index, draft, after.values())
    # An equal model may be the API's, whose registration outlives the configuration.
    draft.withdraw(id_ for id_ in before if id_ not in after and id_ in of_config)
    for id_, spec in after.items():
        # A spec that is the same in both configurations stays as the API may have changed it.
        is_changed = before.get(id_) != spec or draft.spec(id_) is None
        if is_changed and id_.name not in overridden:
            draft.declare(spec, is_replacing=True)


def _follow_overridden(
    index: catalog_index.CatalogIndex,
    draft: changeset.Changeset,
    wanted: Iterable[model.ModelSpec],
) -> set[str]:
    """End the overrides of models that are configured anew; return the others' names."""
    overridden: dict[str, list[model.ModelSpec]] = {
        declared.spec.id.name: []
        for declared in index.models
        if declared.spec.replaced and declared.spec.origin == model.FROM_CONFIG
    }
    for spec in wanted if overridden else ():
        if spec.id.name in overridden:
            overridden[spec.id.name].append(spec)
    kept = {
        name for name, specs in overridden.items() if load_overrides.survives(draft, name, specs)
    }
    for name in overridden.keys() - kept:
        draft.withdraw([spec.id for spec in draft.of_name(name)])
    return kept


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


def _register(draft: changeset.Changeset, spec: model.ModelSpec, *, is_replacing: bool) -> None:
    """Draft a registration through the API; what changes the model ends an override of it.

    Raises AlreadyExists as `Changeset.declare` does.
    """
    own = {other.id: other for other in load_overrides.replaced(draft, spec.id.name)}
    if own and changeset.may_take(own[min(own)].origin, spec.origin):
        is_known = spec.id in own and catalog_sync.can_share_copy(own[spec.id], spec)
        if is_known and not is_replacing:
            return
        load_overrides.end(draft, spec.id.name)
    draft.declare(spec, is_replacing=is_replacing)


def _override(draft: changeset.Changeset, request: events.ModelOverridden) -> None:
    """Draft what an override changes; of an unknown name it is a registration.

    Raises ModelNotFound for an unknown name without specs.
    """
    if draft.owner(request.name) is not None:
        load_overrides.override(draft, request.name, request.specs)
        return
    if not request.specs:
        raise changeset.not_registered(request.name, "")
    for spec in request.specs:
        draft.put(spec)


def _remove(
    index: catalog_index.CatalogIndex, draft: changeset.Changeset, request: events.ModelRemoved
) -> None:
    """Withdraw a model, or one version of it.

    Raises ModelNotFound; Conflict if the model does not belong to the API, or an alias needs it.
    """
    specs = list(draft.of_name(request.name))
    removed = [spec for spec in specs if request.version in ("", spec.id.version)]
    if not removed:
        raise changeset.not_registered(request.name, request.version)
    if not changeset.may_take(removed[0].origin, model.FROM_API):
        owner = changeset.owned_by(removed[0].origin)
        raise errors.Conflict(f"model {request.name!r} belongs to {owner}: remove it there")
    for alias in index.needing(request.name):
        if len(removed) == len(specs) or alias.version == request.version:
            raise errors.Conflict(
                f"model {request.name!r} is what alias {alias.alias!r} means: clear the alias first"
            )
    draft.withdraw(spec.id for spec in removed)


def _set_unloaded(draft: changeset.Changeset, request: events.UnloadedSet) -> None:
    """Draft what unloading or loading all versions of a model changes.

    Raises ModelNotFound; Conflict if one is pinned and to be unloaded.
    """
    specs = list(draft.of_name(request.name))
    if not specs:
        raise changeset.not_registered(request.name, "")
    for spec in specs:
        if request.unloaded and spec.pinned:
            raise errors.Conflict(f"model {str(spec.id)!r} is pinned: unpin it first")
        draft.put(dataclasses.replace(spec, unloaded=request.unloaded))
