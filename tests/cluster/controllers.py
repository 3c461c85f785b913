"""Controllers for a ControllerActor in tests. They are built inside the actor's process."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from meshserve import errors
from meshserve.cluster import actor_process, controller_process
from meshserve.control import control_plane
from meshserve.core.values import events
from meshserve.logs import log_files
from meshserve.registry import sql_registry
from meshserve.testing import fake_cluster, fake_store


class WaitingController:
    """Does nothing until it is drained."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def run(self) -> None:
        await self._ended.wait()

    async def status(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "was_restarted": actor_process.was_restarted()}

    async def drain(self) -> None:
        self._ended.set()

    async def request(self, request: events.NodeRequest) -> list[str]:
        if request.node != "n1":
            raise errors.InvalidRequest(f"no node is called {request.node!r}")
        return [type(request).__name__]


class EndingController(WaitingController):
    """Ends at once, as if another client had drained it."""

    async def run(self) -> None:
        """End."""


class RefusingController(WaitingController):
    """Cannot start, and says so with a MeshError."""

    async def run(self) -> None:
        raise errors.Unavailable("the registry is down", retry_after_s=2.5)


def broken_controller() -> WaitingController:
    """Fail to build a controller."""
    raise OSError("no space left")


def control_plane_on_fakes(
    plan: controller_process.ControllerPlan,
) -> controller_process.HostedControlPlane:
    """Build a control plane with a real registry and a fake cluster."""
    log_files.to_file(plan.logs, "controller")
    database = sql_registry.SqlRegistry(plan.registry_url)
    parts = control_plane.ControlPlaneParts(
        fake_cluster.FakeCluster(), database, fake_store.FakeWatch(), plan.state_dir
    )
    return controller_process.HostedControlPlane(plan, parts, database.close)
