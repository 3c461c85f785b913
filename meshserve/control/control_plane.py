"""The control plane as one thing: registry, controller, repositories and the app, begun and ended together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from meshserve.config import desired_state
from meshserve.control import (
    admin_service,
    clock,
    controller,
    mesh_views,
    repository_sync,
)
from meshserve.control.api import management_app
from meshserve.core.interfaces import cluster_control as ports
from meshserve.core.values import events, model

UPLOADS = "uploads"


@dataclass(frozen=True, slots=True)
class ControlPlaneParts:
    """What the control plane is joined with. `state_dir` is where it may keep files."""

    cluster: ports.Cluster
    store: ports.RegistryStore
    watch: ports.RepositoryWatch
    state_dir: str
    time: ports.Clock = field(default_factory=clock.RealClock)


class ControlPlane:
    """Made and used inside one running event loop. `app` is the ASGI app; it answers from when `start` has returned."""

    def __init__(self, outside: ControlPlaneParts, restarts: int = 0) -> None:
        self._outside = outside
        self.controller = controller.Controller(
            outside.cluster, outside.store, outside.time, restarts
        )
        self._repositories = repository_sync.RepositorySync(
            self.controller, outside.watch, outside.time
        )
        self._clerk = admin_service.AdminService(self.controller, self._repositories.follow)
        self.app = management_app.ManagementApp(self._clerk, str(Path(outside.state_dir) / UPLOADS))

    async def start(self, endpoint: model.Endpoint, document: str = "") -> tuple[str, ...]:
        """Begin where the registry left off, and bring the configuration in `document` about; returns what it changes.

        Without a document the last one holds. `endpoint` is where `app` listens.
        Raises ConfigInvalid, AlreadyExists or Conflict for what is wrong with it; nothing is started then.
        """
        wanted = (
            desired_state.from_document(document, await self._outside.cluster.capacity())
            if document
            else None
        )
        contents = await asyncio.to_thread(self._outside.store.load)
        words = await self.controller.start(endpoint, wanted, contents)
        self._repositories.follow(self.controller.mesh.catalog.desired)
        return words

    def status(self) -> mesh_views.Json:
        """How the mesh is, as /mesh/v1/status tells it, without what is known only there."""
        return mesh_views.status(self.controller.mesh)

    async def drain(self) -> None:
        """End everything in good order: every accepted request is answered."""
        self._repositories.close()
        await self.controller.submit(events.DrainRequested())
        await self.controller.wait_until_drained()

    async def close(self) -> None:
        """Let go of everything; what runs in the cluster goes on."""
        self._repositories.close()
        await self.controller.close()
