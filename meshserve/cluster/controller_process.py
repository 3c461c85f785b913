"""The controller's process: the control plane, begun on its sockets."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshserve.cluster import actors, ray_replicas, session
from meshserve.control import control_plane
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import model
from meshserve.protocol import asgi_server

SOCKET = "controller.sock"
STARTS = "controller.starts"


@dataclass(frozen=True, slots=True)
class ControllerPlan:
    """What a controller begins with. `document` is the configuration of the first start; the last one is in the registry.

    `host` is what it and the workers listen on beside their Unix sockets; empty: the address of their node.
    """

    document: str
    registry_url: str
    state_dir: str
    logs_dir: str
    run_dir: str
    host: str


@dataclass(frozen=True, slots=True)
class ControllerParts:
    """What the control plane is joined with: built by the composition root."""

    cluster: cluster_control.Cluster
    store: cluster_control.RegistryStore
    watch: cluster_control.RepositoryWatch
    close: Callable[[], None]


class HostedControlPlane:
    """Implements actors.Held."""

    def __init__(self, plan: ControllerPlan, outside: ControllerParts) -> None:
        actors.make_run_dir(plan.run_dir)
        self._plan = plan
        self._outside = outside
        joined = control_plane.ControlPlaneParts(
            outside.cluster, outside.store, outside.watch, plan.state_dir
        )
        self._plane = control_plane.ControlPlane(joined, _starts(plan.run_dir) - 1)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until drained, and leave nothing in the folder of sockets."""
        host = self._plan.host or ray_replicas.node_address()
        socket_path = str(Path(self._plan.run_dir) / SOCKET)
        served = await asgi_server.serve(
            self._plane.app, [asgi_server.unix_socket(socket_path), asgi_server.tcp_socket(host)]
        )
        endpoint = model.Endpoint(actors.node_id(), host, served.port, socket_path)
        await self._plane.start(endpoint, "" if session.was_restarted() else self._plan.document)
        await self._plane.controller.wait_until_drained()
        await self._plane.close()
        await served.stop()
        self._outside.close()
        await asyncio.to_thread(shutil.rmtree, self._plan.run_dir, ignore_errors=True)
        self._ended.set()

    async def status(self) -> dict[str, Any]:
        """How the mesh is, as /mesh/v1/status tells it."""
        return self._plane.status()

    async def drain(self) -> None:
        """End the mesh in good order; returns when all of it has ended."""
        await self._plane.drain()
        await self._ended.wait()


def _starts(run_dir: str) -> int:
    """How often a controller of this mesh has begun on this node, this time included."""
    path = Path(run_dir) / STARTS
    starts = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(starts))
    return starts
