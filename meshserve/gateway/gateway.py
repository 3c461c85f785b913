"""One node's gateway: start, configure, drain and stop Envoy and its sidecar together."""

from __future__ import annotations

import asyncio
import logging
import os

from meshserve import tasks
from meshserve.core.values import reports, snapshots
from meshserve.gateway.envoy import envoy_config, envoy_process, gateway_paths, listener
from meshserve.gateway.native import native_module
from meshserve.gateway.sidecar import sidecar

LOG = logging.getLogger(__name__)

CRASHES_MAX = 3
"""After so many crashes of Envoy its module in C is used no more, until the gateway starts anew."""

CRASHES_POLL_S = 0.5

Change = tuple[snapshots.GatewaySnapshot, asyncio.Future[None]]


class NodeGateway:
    """The gateway whose files are below `run_dir`.

    It belongs to one event loop. Envoy outlives it, and goes on under the next gateway of the same
    folder; it ends with the process `guardian_pid`.
    """

    def __init__(
        self,
        run_dir: str,
        envoy_concurrency: int = 1,
        *,
        guardian_pid: int | None = None,
        secret: str = "",
        logs: gateway_paths.GatewayLogs | None = None,
        module_dir: str = "",
    ) -> None:
        """`secret` is sent to the servers of the mesh, if they ask for one.

        `module_dir` is where the module in C is built, if it is wanted. Without a guardian Envoy
        ends with this process.
        """
        self._secret = secret
        self._module_dir = module_dir
        self._module = native_module.NativeModule()
        self._layout = gateway_paths.GatewayPaths(run_dir, logs)
        self._envoy = envoy_process.EnvoyProcess(self._layout, envoy_concurrency, guardian_pid)
        self._sidecar = sidecar.Sidecar(self._layout, self._envoy.admin, secret)
        self._state = "stopped"
        self._listen = ""
        self._snap: snapshots.GatewaySnapshot | None = None
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._follower: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self, snap: snapshots.GatewaySnapshot) -> None:
        """Listen and serve.

        Raises EnvoyFailed, or OSError if the address is taken; then nothing is left running.
        """
        is_running = await self._envoy.find()
        if not is_running:
            listener.check_is_free(snap.listen)
        self._state, self._listen = "starting", snap.listen
        try:
            await self._start_parts(snap, is_running=is_running)
        except BaseException:
            await self.stop()
            raise
        self._follower = tasks.spawn(self._follow(), "gateway-follow")
        self._watch = tasks.spawn(self._leave_module(), "gateway-module")
        self._state = "ready"

    async def _start_parts(self, snap: snapshots.GatewaySnapshot, *, is_running: bool) -> None:
        await self._find_module(snap)
        files = self._files(snap)
        if not is_running:
            self._layout.make_folders()
            self._layout.remove_sockets()
        # The sidecar first, because Envoy's clusters lead to its sockets.
        await self._sidecar.start(snap)
        if is_running:
            await self._envoy.apply(files)
        else:
            await self._envoy.start(files)
        self._envoy.hold(snap.listen)

    async def apply(self, snap: snapshots.GatewaySnapshot) -> None:
        """Serve by this snapshot from now on. Snapshots are applied one by one, in order of calls.

        Cancelling the call does not stop the change. Raises EnvoyFailed, after which the gateway
        serves by the previous snapshot.
        """
        if self._state == "stopped":
            raise envoy_process.EnvoyFailed("the gateway is not running")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes.put_nowait((snap, done))
        await done

    def report(self, node: str) -> reports.GatewayReport:
        """Return the report of this gateway, which runs on `node`.

        `state` is starting, ready, draining or stopped.
        """
        return reports.GatewayReport(
            node=node,
            pid=os.getpid(),
            envoy_pid=self._envoy.pid or 0,
            state=self._state,
            listen=self._listen,
            restarts=self._envoy.restarts,
            native=self._native_word(),
        )

    def _native_word(self) -> str:
        if self._snap is None or not self._snap.is_native:
            return "off"
        return f"off: {self._module.reason}" if self._module.reason else "on"

    async def drain(self, timeout_s: float) -> bool:
        """Accept no new connections, and wait for requests; return whether all ended in time."""
        self._state = "draining"
        await self._sidecar.drain()
        return await self._envoy.drain(timeout_s)

    async def stop(self) -> None:
        """Stop Envoy and the sidecar, and remove their sockets."""
        for task in filter(None, (self._watch, self._follower)):
            task.cancel()
            await asyncio.wait([task])
        while not self._changes.empty():
            self._changes.get_nowait()[1].cancel()
        await self._envoy.stop()
        await self._sidecar.stop()
        self._layout.remove_sockets()
        self._state, self._follower = "stopped", None

    def _files(self, snap: snapshots.GatewaySnapshot) -> dict[str, str]:
        layout, module = self._layout, self._module.path
        return envoy_config.files(snap, layout.run_dir, self._secret, layout.logs, module)

    async def _find_module(self, snap: snapshots.GatewaySnapshot) -> None:
        if snap.is_native and self._module == native_module.NativeModule():
            self._module = await asyncio.to_thread(
                native_module.find_or_build, self._module_dir, envoy_process.program()
            )
            if self._module.reason:
                LOG.warning("requests go to workers by HTTP: %s", self._module.reason)
        self._snap = snap

    async def _leave_module(self) -> None:
        """Go on by HTTP if Envoy crashes again and again: its module may be the reason."""
        # Rare, and in no hurry: a poll needs nobody to call it.
        while self._envoy.crashes < CRASHES_MAX or not self._module.path:  # noqa: ASYNC110
            await asyncio.sleep(CRASHES_POLL_S)
        self._module = native_module.NativeModule(reason=f"Envoy crashed {CRASHES_MAX} times")
        LOG.error("requests go to workers by HTTP: %s", self._module.reason)
        if self._snap is not None:
            await self.apply(self._snap)

    async def _follow(self) -> None:
        while True:
            snap, done = await self._changes.get()
            try:
                await self._change(snap)
            except asyncio.CancelledError:
                done.cancel()
                raise
            # The caller of `apply` gets the failure; the loop goes on with the next snapshot.
            except Exception as failure:  # noqa: BLE001
                if not done.cancelled():
                    done.set_exception(failure)
            else:
                if not done.cancelled():
                    done.set_result(None)

    async def _change(self, snap: snapshots.GatewaySnapshot) -> None:
        await self._find_module(snap)
        # Envoy first: if it refuses the snapshot, the sidecar stays with the one before as well.
        await self._envoy.apply(self._files(snap))
        self._envoy.hold(snap.listen)
        await self._sidecar.follow(snap)
        self._listen = snap.listen
