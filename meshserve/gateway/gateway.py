"""One node's front door: Envoy and the node's two small servers, as one thing that starts, follows snapshots, drains and stops."""

from __future__ import annotations

import asyncio
import os

from meshserve import tasks
from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_config, envoy_process, gateway_paths, listener
from meshserve.gateway.sidecar import sidecar

Order = tuple[snapshots.GatewaySnapshot, asyncio.Future[None]]


class NodeGateway:
    """Everything below `run_dir`, on one event loop, whose thread must live as long as Envoy shall."""

    def __init__(self, run_dir: str, envoy_concurrency: int = 1) -> None:
        self._at = gateway_paths.GatewayPaths(run_dir)
        self._envoy = envoy_process.EnvoyProcess(self._at, envoy_concurrency)
        self._node = sidecar.Sidecar(self._at, self._envoy.admin)
        self._state = "stopped"
        self._listen = ""
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._follower: asyncio.Task[None] | None = None

    async def start(self, snap: snapshots.GatewaySnapshot) -> None:
        """Listen and serve. Raises EnvoyFailed, or OSError where the address is taken, with nothing left running."""
        listener.check_is_free(snap.listen)
        self._state, self._listen = "starting", snap.listen
        self._at.make_folders()
        self._at.remove_sockets()
        try:
            await self._node.start(snap)
            await self._envoy.start(envoy_config.files(snap, self._at.run_dir))
        except BaseException:
            await self.stop()
            raise
        self._follower = tasks.spawn(self._follow(), "gateway-follow")
        self._state = "ready"

    async def apply(self, snap: snapshots.GatewaySnapshot) -> None:
        """Serve by this snapshot from now on; one after another, in the order asked for. Raises EnvoyFailed: the one before is in force."""
        if self._state == "stopped":
            raise envoy_process.EnvoyFailed("the gateway is not running")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders.put_nowait((snap, done))
        await done

    def report(self) -> dict[str, object]:
        """How it is: `pid`, `envoy_pid` (None while it restarts), `state` (starting, ready, draining or stopped), `listen`, `restarts`."""
        return {
            "pid": os.getpid(),
            "envoy_pid": self._envoy.pid,
            "state": self._state,
            "listen": self._listen,
            "restarts": self._envoy.restarts,
        }

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing new and wait for what is under way; whether all of it ended in time."""
        self._state = "draining"
        await self._node.drain()
        return await self._envoy.drain(timeout_s)

    async def stop(self) -> None:
        """End everything that was started, and remove its files but for the log."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
        while not self._orders.empty():
            self._orders.get_nowait()[1].cancel()
        await self._envoy.stop()
        await self._node.stop()
        self._at.remove_sockets()
        self._state, self._follower = "stopped", None

    async def _follow(self) -> None:
        while True:
            snap, done = await self._orders.get()
            try:
                await self._change(snap)
            except asyncio.CancelledError:
                done.cancel()
                raise
            except Exception as fault:  # noqa: BLE001 - who asked is told, and the next snapshot is followed all the same
                _end(done, fault)
            else:
                _end(done, None)

    async def _change(self, snap: snapshots.GatewaySnapshot) -> None:
        await self._envoy.apply(envoy_config.files(snap, self._at.run_dir))
        await self._node.follow(snap)
        self._listen = snap.listen


def _end(done: asyncio.Future[None], fault: Exception | None) -> None:
    """Tell who asked, unless nobody waits any more."""
    if done.cancelled():
        return
    if fault is None:
        done.set_result(None)
    else:
        done.set_exception(fault)
