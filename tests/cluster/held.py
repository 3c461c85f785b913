"""What a controller's actor may hold in tests. Made inside the actor's process."""

from __future__ import annotations

import asyncio
import os

from meshserve import errors
from meshserve.cluster import controller_process, session
from meshserve.registry import sql_registry
from meshserve.testing import fake_cluster, fake_store


class Waiting:
    """Does nothing until it is drained."""

    def __init__(self):
        self._ended = asyncio.Event()

    async def run(self):
        await self._ended.wait()

    async def status(self):
        return {"pid": os.getpid(), "was_restarted": session.was_restarted()}

    async def drain(self):
        self._ended.set()


class Brief(Waiting):
    """Is drained by somebody else, at once."""

    async def run(self):
        """End."""


class Refusing(Waiting):
    """Can't begin, for a reason of ours."""

    async def run(self):
        raise errors.Unavailable("the registry is down", retry_after_s=2.5)


def broken():
    raise OSError("no space left")


def control_plane_on_fakes(plan):
    """The control plane with a registry of its own and nothing real to command."""
    kept = sql_registry.SqlRegistry(plan.registry_url)
    return controller_process.HostedControlPlane(
        plan,
        controller_process.ControllerParts(
            fake_cluster.FakeCluster(), kept, fake_store.FakeWatch(), kept.close
        ),
    )
