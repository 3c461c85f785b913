"""The actor that holds one node's gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from meshserve import errors, tasks
from meshserve.cluster import actor_process, process_watch
from meshserve.core.values import reports, snapshots
from meshserve.gateway import gateway
from meshserve.gateway.envoy import envoy_process

GatewayMaker = Callable[[str], gateway.NodeGateway]


class GatewayActor:
    """Passes the controller's calls on to one gateway."""

    def __init__(self, make: GatewayMaker, run_dir: str, has_nodes: bool) -> None:
        self._run_dir = actor_process.node_folder(run_dir, has_nodes=has_nodes)
        actor_process.make_run_dir(self._run_dir)
        self._gateway = make(self._run_dir)
        self._node = actor_process.node_id()
        self._is_started = False
        self._watch: asyncio.Task[None] | None = None

    @actor_process.errors_as_values
    async def start(self, snap: snapshots.GatewaySnapshot) -> reports.GatewayReport:
        """Start the gateway with this snapshot; a gateway that runs already only applies it.

        Raises Unavailable if Envoy or the system refuses.
        """
        if self._is_started:
            await _raising_unavailable(self._gateway.apply(snap))
        else:
            await _raising_unavailable(self._gateway.start(snap))
            self._is_started = True
            # Each node has one gateway, which has little else to do.
            self._watch = tasks.spawn(process_watch.watch(self._run_dir), "process-watch")
        return self._gateway.report(self._node)

    async def live(self) -> None:
        """Never return: the pending call fails at the caller as soon as this process ends."""
        # Ray gives no other event for the end of an actor.
        await asyncio.Event().wait()

    @actor_process.errors_as_values
    async def apply(self, snap: snapshots.GatewaySnapshot) -> None:
        """Route by this snapshot from now on. Raises Unavailable if Envoy refuses it."""
        await _raising_unavailable(self._gateway.apply(snap))

    @actor_process.errors_as_values
    async def report(self) -> reports.GatewayReport:
        """Return the gateway's present state."""
        return self._gateway.report(self._node)

    @actor_process.errors_as_values
    async def stop(self) -> None:
        """Answer the accepted requests, then stop the gateway."""
        await self._gateway.drain(actor_process.DRAIN_S)
        await self._gateway.stop()
        if self._watch is not None:
            self._watch.cancel()
        actor_process.leave_run_dir(self._run_dir)


async def _raising_unavailable(work: Awaitable[None]) -> None:
    try:
        await work
    except (OSError, envoy_process.EnvoyFailed) as error:
        raise errors.Unavailable(f"the gateway: {error}") from error
