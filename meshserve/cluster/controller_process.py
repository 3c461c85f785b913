"""What runs in the controller's process: the control plane, served on its sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from meshserve import tasks
from meshserve.cluster import actor_process
from meshserve.control import control_plane, lease_keeper
from meshserve.core.values import events, model
from meshserve.logs import log_files
from meshserve.protocol import asgi_server, guarded_app, sockets
from meshserve.worker.models import run_journal

SOCKET = "controller.sock"
STARTS_FILE = "controller.starts"
LOST_EXIT = 75
"""Exit code of a controller whose registry another one has taken (EX_TEMPFAIL of sysexits.h)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControllerPlan:
    """What a controller starts with.

    `document` is the configuration of the first start; a restarted controller reads the last one
    from the registry. With a `secret`, controller, workers and replicas listen on the addresses of
    their nodes beside their Unix sockets, and all requests must bring it. `owner_key` is the secret
    of the mesh's owner. `start_id` names this start of the mesh, the same for all controllers that
    Ray starts by the plan; with `is_taking_over` the first one takes the registry from a mesh that
    lives.
    """

    document: str
    registry_url: str
    state_dir: str
    logs: log_files.LogPlan
    run_dir: str
    secret: str = field(default="", repr=False)
    owner_key: str = field(default="", repr=False)
    start_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    is_taking_over: bool = False


class HostedControlPlane:
    """Implements `controller_actor.HostedController`; `close` is called when it has ended."""

    def __init__(
        self,
        plan: ControllerPlan,
        parts: control_plane.ControlPlaneParts,
        close: Callable[[], None],
    ) -> None:
        self._run_dir = actor_process.node_folder(plan.run_dir, has_nodes=bool(plan.secret))
        actor_process.make_run_dir(self._run_dir)
        self._plan = plan
        self._close = close
        restarts = _count_start(self._run_dir) - 1
        self._plane = control_plane.ControlPlane(parts, restarts)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until drained, then remove the folder of sockets.

        Ends the process if another controller takes the registry.
        """
        secret = self._plan.secret
        host = actor_process.node_address() if secret else ""
        socket_path = str(Path(self._run_dir) / SOCKET)
        # Before the mesh starts, because gateways are told this server's address.
        server = await asgi_server.serve(
            guarded_app.guard(self._plane.app, secret),
            sockets.server_sockets(socket_path, host, secret),
        )
        endpoint = model.Endpoint(actor_process.node_id(), host, server.port, socket_path)
        # A restarted controller continues with the last applied configuration, not the first.
        is_first = not actor_process.was_restarted()
        document = self._plan.document if is_first else ""
        await self._plane.start(endpoint, document, self._claim(is_first=is_first))
        await self._drained_or_lost()
        await self._plane.close()
        await server.stop()
        self._close()
        for folder in (run_journal.folder(self._run_dir), self._run_dir, self._plan.run_dir):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._ended.set()

    def _claim(self, *, is_first: bool) -> lease_keeper.LeaseClaim:
        place = f"on {socket.gethostname()}, state_dir {self._plan.state_dir}"
        return lease_keeper.LeaseClaim(
            self._plan.start_id,
            f"a mesh {place}, process {os.getpid()}",
            is_patient=not is_first,
            is_taking_over=is_first and self._plan.is_taking_over,
        )

    async def _drained_or_lost(self) -> None:
        drained = tasks.spawn(self._plane.controller.wait_until_drained(), "drained")
        await asyncio.wait((drained, self._plane.lost), return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            _end_now(self._plane.lost.result())

    async def status(self) -> dict[str, Any]:
        """Return the body of `/mesh/v1/status`."""
        return self._plane.status()

    async def drain(self) -> None:
        """Drain the mesh; return when all of it has ended."""
        await self._plane.drain()
        await self._ended.wait()

    async def request(self, request: events.NodeRequest) -> list[str]:
        """Grant a request that concerns a node; return in words what it changes."""
        return list(await self._plane.controller.submit(request))


def _end_now(reason: str) -> NoReturn:
    """End this process, as a crash would: it must not order or answer anything any more.

    The actor itself is not ended: where Ray holds this process to be its last one, it starts
    another, which waits for the registry; else another process is the actor by now.
    """
    logger.error("the controller ends: %s", reason)
    logging.shutdown()
    os._exit(LOST_EXIT)


def _count_start(run_dir: str) -> int:
    """Return how often this mesh's controller started on this node, this start included."""
    # In a file, because nothing in memory outlives the process.
    path = Path(run_dir) / STARTS_FILE
    starts = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(starts))
    return starts
