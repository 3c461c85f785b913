"""The control plane: the registry, controller, repositories and management app, joined."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshserve import errors
from meshserve.config import desired_state
from meshserve.control import (
    admin_service,
    controller,
    figures_file,
    file_access,
    lease_keeper,
    mesh_json,
    registry_thread,
    repository_sync,
    source_sync,
    upload_sweep,
    weight_pins,
)
from meshserve.control.api import hold_endpoint, management_app
from meshserve.core.interfaces import cluster_control, registry_store
from meshserve.core.values import desired, events, llm_spec, model, registry_contents
from meshserve.protocol import error_responses

UPLOADS = "uploads"
RETRY_S = 2.0
"""When to ask a controller again that waits for its registry."""


ANY = lease_keeper.LeaseClaim("the-only-one", "the only mesh")
"""The claim of a control plane whose registry no other mesh can have."""


class RealClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Return the seconds since an arbitrary moment; the value never decreases."""
        # Not the time of day, which an operator may set back.
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        await asyncio.sleep(seconds)


async def accept_uri(_: str) -> str:
    """Take any URI as one that exists."""
    return ""


async def identify_nothing(_uri: str, _revision: str) -> llm_spec.Weights | None:
    """Say of all weights that they can't be identified."""
    return None


@dataclass(frozen=True, slots=True)
class ControlPlaneParts:
    """The outside world of a control plane.

    `state_dir` is a folder for its own files. `owner_key` is the secret of the mesh's owner; an
    empty one has no owner.
    """

    cluster: cluster_control.Cluster
    store: registry_store.RegistryStore
    watch: cluster_control.RepositoryWatch
    state_dir: str
    time: cluster_control.Clock = field(default_factory=RealClock)
    check_uri: admin_service.CheckUri = accept_uri
    identify_weights: weight_pins.IdentifyWeights = identify_nothing
    # Not shown, so that no log and no traceback tells it.
    owner_key: str = field(default="", repr=False)
    stamp_sources: source_sync.StampSources = source_sync.stamp_nothing


class ControlPlane:
    """The joined control plane; it belongs to the event loop that it was created in.

    `app`, the ASGI app of the management APIs, may be served before `start` is called. `lost` is
    set with the reason when another controller has taken the registry: this one must end.
    """

    def __init__(self, parts: ControlPlaneParts, restarts: int = 0) -> None:
        self._parts = parts
        # The endpoint and the controller need each other: `_post` finds the controller when it is
        # called.
        held = hold_endpoint.HoldEndpoint(self._post)
        self._registry = registry_thread.RegistryThread(parts.store)
        self.lost = self._registry.lost
        self.lease = lease_keeper.LeaseKeeper(self._registry, parts.time)
        self.controller = controller.Controller(
            parts.cluster, self._registry, parts.time, held.perform, restarts
        )
        self._repositories = repository_sync.RepositorySync(
            self.controller, parts.watch, parts.time
        )
        files = file_access.FileAccess(
            parts.owner_key, lambda: self.controller.view().config.gateway.file_roots
        )
        self._sources = source_sync.SourceSync(self.controller, parts.stamp_sources, parts.time)
        self.admin = admin_service.AdminService(
            self.controller,
            parts.cluster,
            self._repositories,
            admin_service.Sources(
                parts.check_uri, parts.identify_weights, files, self._sources.look
            ),
        )
        folder = Path(parts.state_dir) / UPLOADS
        self._figures = figures_file.FiguresFile(parts.state_dir)
        self._management = management_app.ManagementApp(
            self.admin, held, str(folder), self._figures
        )
        self._uploads = upload_sweep.UploadSweep(self.controller, folder, parts.time)
        self._is_restored = asyncio.Event()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request of the management APIs, by ASGI, once the registry has been read.

        Before that the mesh is empty: a declared model would be told as 404. If the registry can't
        be read, the answer is 503 with the reason.
        """
        if not self._is_restored.is_set():
            await self.lease.is_known.wait()
            if self.lease.waits_for:
                await self._refuse(send)
                return
            await self._is_restored.wait()
        await self._management(scope, receive, send)

    async def _refuse(self, send: Any) -> None:
        reason = f"the controller waits for its registry: {self.lease.waits_for}"
        status, headers, body = error_responses.rest_error(
            errors.Unavailable(reason, retry_after_s=RETRY_S)
        )
        await send({"type": "http.response.start", "status": status, "headers": [*headers]})
        await send({"type": "http.response.body", "body": body})

    def _post(self, event: events.Event) -> None:
        self.controller.post(event)

    async def start(
        self, endpoint: model.Endpoint, document: str = "", claim: lease_keeper.LeaseClaim = ANY
    ) -> tuple[str, ...]:
        """Begin where the registry left off, and return what the configuration `document` changes.

        Without a document the last configuration holds. `app` listens at `endpoint`, and `claim` is
        what the registry is asked for.
        Raises Unavailable if another mesh writes the registry, ConfigInvalid, AlreadyExists or
        Conflict; then nothing is started.
        """
        capacity = await self._parts.cluster.capacity()
        wanted = desired_state.from_document(document, capacity) if document else None
        contents = await self.lease.begin(claim)
        try:
            return await self._begin(endpoint, contents, wanted, capacity)
        except errors.MeshError:
            # A mesh that is put right and started again must not wait for this one.
            await self.lease.release()
            raise

    async def _begin(
        self,
        endpoint: model.Endpoint,
        contents: registry_contents.RegistryContents,
        wanted: desired.Desired | None,
        capacity: cluster_control.WorkerCapacity,
    ) -> tuple[str, ...]:
        last = desired_state.from_registry(contents, capacity, is_needed=wanted is None)
        if wanted is not None:
            wanted = await weight_pins.pin(wanted, last, self._parts.identify_weights)
        self.controller.adopt_figures(await asyncio.to_thread(self._figures.read))
        words = await self.controller.start(endpoint, last, wanted, contents)
        self._is_restored.set()
        self._repositories.follow(self.controller.view().config)
        if wanted is not None:
            await self._sources.look()
        self._sources.follow()
        self._uploads.follow()
        return words

    def status(self) -> mesh_json.Json:
        """Return the JSON of /mesh/v1/status, without the fields of the controller's process."""
        return self.admin.status()

    async def drain(self) -> None:
        """Return when all processes have answered their accepted requests and ended."""
        self._repositories.close()
        self._sources.close()
        self._uploads.close()
        self.controller.post(events.DrainRequested())
        await self.controller.wait_until_drained()

    async def close(self) -> None:
        """Stop the control plane; workers, gateways and replicas go on."""
        self._repositories.close()
        self._sources.close()
        self._uploads.close()
        await self.controller.close()
        await self.lease.release()
        await self._registry.close()
