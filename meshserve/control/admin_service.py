"""The reads and changes that users can request, the same for every protocol."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from meshserve import config, errors
from meshserve.config import desired_state
from meshserve.control import (
    controller,
    file_access,
    mesh_json,
    model_details,
    repository_sync,
    weight_pins,
)
from meshserve.core.interfaces import cluster_control
from meshserve.core.mesh import mesh_view
from meshserve.core.values import catalog, desired, events, model, model_stats, reports

logger = logging.getLogger(__name__)

CheckUri = Callable[[str], Awaitable[str]]


class Sources(NamedTuple):
    """Where models come from, as far as a change must know it.

    `check` raises InvalidRequest if nothing is at a URI, and returns why it can't be checked now,
    or "". `identify` tells the weights of LLMs apart. `files` says which local files may be named.
    `look` declares the present local files of a model, or with None of all.
    """

    check: CheckUri
    identify: weight_pins.IdentifyWeights
    files: file_access.FileAccess
    look: Callable[[str | None], Awaitable[None]]


class AdminService:
    """Reads the mesh, and passes users' changes to the controller.

    The method of a change returns once every worker and gateway that gets requests has applied it;
    it raises DeadlineExceeded if one takes too long, though the change is saved.
    """

    def __init__(
        self,
        controller_: controller.Controller,
        cluster: cluster_control.Cluster,
        repositories: repository_sync.RepositorySync,
        sources: Sources,
    ) -> None:
        self.controller = controller_
        self._cluster = cluster
        self._repositories = repositories
        self._sources = sources
        self.files = sources.files

    # Reads

    def view(self) -> mesh_view.MeshView:
        """Return the mesh as it is now."""
        return self.controller.view()

    def status(self) -> mesh_json.Json:
        """Return the mesh's state as users see it."""
        state = mesh_json.status(self.view(), self._repositories.problems())
        return {"mesh_id": self.controller.mesh_id, **state}

    def unserved(self) -> dict[str, str]:
        """Return why a folder or file of a repository is not served, by the name it would have."""
        lines = [line for lines in self._repositories.problems().values() for line in lines]
        parts = [line.partition(": ") for line in lines]
        # Other lines are of one version, "name/2: …", or of the repository as a whole.
        return {name: reason for name, _, reason in parts if reason and not set(name) & {" ", "/"}}

    def declared(self, name: str, version: str = "") -> catalog.ModelDeclared:
        """Return the declaration that a name means. Raises ModelNotFound."""
        return self.view().declared(name, version)

    def model_name(self, name: str) -> str:
        """Return the name of the model that an alias means; any other name as it is."""
        try:
            return self.declared(name).spec.id.name
        except errors.ModelNotFound:
            return name

    def specs(self, name: str) -> tuple[model.ModelSpec, ...]:
        """Return the specs of all versions of a model, oldest first; none if it is unknown."""
        versions = self.view().models.versions(name)
        return tuple(self.declared(name, version).spec for version in versions)

    async def as_declared(
        self, spec: model.ModelSpec, configuration: str
    ) -> tuple[model.ModelSpec, ...]:
        """Return the versions of a repository's model by another configuration of Triton, JSON.

        Returns nothing if no folder of a repository with versions is behind the model. Raises
        InvalidRequest, or LoadFailed if nothing is to be served.
        """
        return await self._repositories.as_declared(spec, configuration)

    async def copies(self, id_: model.ModelId) -> dict[str, reports.CopyReport]:
        """Return the model's present copies by worker, with their details; some are absent.

        Only workers that may have a copy, or had one, are asked, if they can be reached.
        """
        # Reports are up to a second old, but a user wants to see a copy right after its load.
        copies: dict[str, reports.CopyReport] = {}
        for worker_id in self.view().holders(id_):
            with contextlib.suppress(errors.Unavailable):
                for copy in await self._cluster.copies(worker_id, (id_,)):
                    copies[worker_id] = copy
        return copies

    async def describe(self, name: str, version: str = "") -> mesh_json.Json:
        """Return one model as users see it, as it is now. Raises ModelNotFound."""
        declared = self.declared(name, version)
        copies = await self.copies(declared.spec.id)
        return {
            **mesh_json.one_model(self.view(), declared, copies),
            **model_details.details(self.view(), declared, copies, time.time()),
        }

    async def stats(self) -> dict[model.ModelId, model_stats.ModelStats]:
        """Return the counts of every model, over all ready workers that can be reached."""
        total: dict[model.ModelId, model_stats.ModelStats] = {}
        for worker_id in [worker.id for worker in self.view().workers if worker.is_ready]:
            with contextlib.suppress(errors.Unavailable):
                for id_, stats in (await self._cluster.stats(worker_id)).items():
                    total.setdefault(id_, model_stats.ModelStats()).add(stats)
        return total

    def spec(self, entry: dict[str, Any], origin: model.Origin = model.FROM_API) -> model.ModelSpec:
        """Return the spec of an entry of `models:`, which names no file but in its URI.

        Raises ConfigInvalid, which names all faults.
        """
        parsed = config.parse_model(entry, may_read=False)
        pool = self.view().config.pool(parsed.pool) or desired.PoolSettings()
        return parsed.spec(pool.load_timeout_s, origin)

    # Changes

    async def apply(self, document: bytes) -> tuple[str, ...]:
        """Apply a configuration and return what it changed, in words.

        Raises the MeshError that refuses it; then nothing has changed.
        """
        wanted = desired_state.from_document(
            document.decode("utf-8", "replace"), await self._cluster.capacity()
        )
        wanted = await weight_pins.pin(wanted, self.view().config, self._sources.identify)
        words = await self.controller.submit(events.ConfigApplied(wanted))
        self._repositories.follow(wanted)  # only now: what is refused must change nothing
        await self._sources.look(None)  # to apply a configuration says that files are whole
        await self.wait_until_taken()
        return words

    async def _submit(self, request: events.AdminRequest, looked_at: str = "") -> tuple[str, ...]:
        try:
            words = await self.controller.submit(request)
        except errors.ModelNotFound:  # perhaps by a removal whose answer was lost, or told 504
            await self.wait_until_taken()
            raise
        if looked_at:  # after the change: only files of declared models are looked at
            await self._sources.look(looked_at)
        await self.wait_until_taken()
        return words

    async def wait_until_taken(self) -> None:
        """Raise DeadlineExceeded if a process does not take soon what is registered."""
        # Without a change too: an earlier one may be what the caller asks for again.
        late = await self.controller.wait_until_taken()
        if late:
            raise errors.DeadlineExceeded(
                f"the change is saved, but {' and '.join(late)} did not take it within "
                f"{controller.TAKEN_TIMEOUT_S:g} s, and may answer as before until then"
            )

    def drain(self) -> None:
        """Begin to drain the mesh: all processes finish their requests and end."""
        self.controller.post(events.DrainRequested())

    async def register(
        self, spec: model.ModelSpec, *, is_replacing: bool, is_owner: bool = False
    ) -> str:
        """Register the model; return why its URI can't be checked now, or "".

        Raises AlreadyExists if its name has another definition, InvalidRequest if nothing is at its
        URI, PermissionDenied for a file that only the mesh's owner may name. A pinned model is
        registered even if its load fails, which is raised then. Without `is_replacing`
        a known definition is not checked again.
        """
        spec, unchecked = await self._check_source(spec, is_always=is_replacing, is_owner=is_owner)
        await self._submit(events.ModelsRegistered((spec,), is_replacing), spec.id.name)
        if spec.pinned:
            await self._hold(spec.id)
        return unchecked

    async def _check_source(
        self, spec: model.ModelSpec, *, is_always: bool = False, is_owner: bool = False
    ) -> tuple[model.ModelSpec, str]:
        """Return the spec bound to its file root, and why its URI can't be checked now, or ""."""
        known = self.view().models.declared(spec.id)
        if known is not None and not is_always and known.spec.uri == spec.uri:
            return dataclasses.replace(spec, file_root=known.spec.file_root), ""
        if not is_owner:
            # In a thread, because a network's file system may take its time.
            spec = await asyncio.to_thread(self.files.confine, spec)
        unchecked = await self._sources.check(spec.uri)
        if unchecked:
            logger.warning("model %s is registered unchecked: %s", spec.id, unchecked)
        return spec, unchecked

    async def remove(self, name: str, version: str = "") -> None:
        """Remove the model, or one version of it. Raises ModelNotFound, Conflict."""
        await self._submit(events.ModelRemoved(name, version))

    async def set_alias(self, request: events.AliasRequested) -> None:
        """Set an alias.

        Raises ModelNotFound, AlreadyExists, Conflict, or what `register` raises for the model that
        comes with it.
        """
        if request.spec is not None:
            spec, _ = await self._check_source(request.spec)
            request = dataclasses.replace(request, spec=spec)
        await self._submit(request, request.spec.id.name if request.spec else "")

    async def wait_until_moved(self, alias: str, target: str) -> None:
        """Return once the alias means the target, the target failed, or the alias was set anew."""
        await self.controller.wait_until(lambda view: not view.is_moving(alias, target))

    async def clear_alias(self, alias: str, owner: str = "") -> None:
        """Remove an alias. Raises ModelNotFound, AlreadyExists, Conflict."""
        await self._submit(events.AliasRemovalRequested(alias, owner))

    async def pin(self, name: str, version: str, *, is_pinned: bool) -> model.ModelId:
        """Pin or unpin the model that the name means, and return it.

        Raises ModelNotFound, or the error of its load; then it is not pinned.
        """
        id_ = self.declared(name, version).spec.id
        if is_pinned:
            await self._hold(id_)
        await self._submit(events.PinRequested(id_, is_pinned))
        return id_

    async def _hold(self, id_: model.ModelId) -> None:
        """Have a model in memory that is to stay there. Raises why that can't be."""
        # Without a ready worker there is none to ask: it is loaded when one comes.
        if self.view().home(id_.name) is not None:
            await self.controller.load(id_.name, id_)

    async def set_unloaded(self, name: str, *, unloaded: bool) -> None:
        """Let the model answer nothing until it is loaded, or let it answer again.

        Raises ModelNotFound, Conflict if it is pinned.
        """
        id_ = self.declared(name).spec.id
        await self._submit(events.UnloadedSet(id_.name, unloaded))

    async def override(self, name: str, specs: tuple[model.ModelSpec, ...]) -> None:
        """Serve the model by these specs, or without any as its owner declares it.

        A name that is unknown is registered with the specs. Raises ModelNotFound, Conflict,
        AlreadyExists or InvalidRequest as a registration does.
        """
        await self._submit(events.ModelOverridden(name, specs))

    async def load_own(self, name: str, version: str = "") -> model.ModelId:
        """Load the model as its owner declares it now: an override of it ends.

        A repository is looked at, so that files that have just been written are served. Raises as
        `load` does, or LoadFailed for a description that can't be read.
        """
        own = self.model_name(name)
        specs = self.specs(own)
        if not specs or specs[0].origin.kind is model.OriginKind.REPOSITORY:  # perhaps a new folder
            await self._repositories.look_at(own)
        await self._sources.look(own)
        if any(spec.replaced for spec in self.specs(own)):
            await self.override(own, ())
        return await self.load(name, version)

    async def release(self, name: str, version: str = "") -> model.ModelId:
        """End the quarantine of the model that the name means, and return it.

        Raises ModelNotFound, or Conflict if it is not in quarantine.
        """
        id_ = self.declared(name, version).spec.id
        await self._submit(events.ReleaseRequested(*id_))
        return id_

    async def load(self, name: str, version: str = "") -> model.ModelId:
        """Load the model where requests for `name` go, and return it.

        An unload of it, and its quarantine, end. Raises ModelNotFound, Unavailable, or the error of
        the load.
        """
        id_ = self.declared(name, version).spec.id
        if self.view().is_unloaded(id_.name):
            await self.set_unloaded(id_.name, unloaded=False)
        if self.view().quarantine(id_):
            await self.release(*id_)
        await self.controller.load(name, id_)
        return id_

    async def unload(self, name: str, version: str = "") -> model.ModelId:
        """Unload every copy of the model, and return it; the next request loads it again.

        Raises ModelNotFound, Conflict if it is pinned.
        """
        id_ = self.declared(name, version).spec.id
        await self.controller.unload(id_)
        return id_
