"""The gateway's side of an Envoy's keeper: start one or find one, and follow what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import meshserve
from meshserve import tasks
from meshserve.gateway.envoy import envoy_keeper, gateway_paths

logger = logging.getLogger(__name__)

PACKAGES = str(Path(meshserve.__file__).parent.parent)
STOP_S = envoy_keeper.STOP_S + 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class EnvoyState:
    """What a keeper tells: Envoy's pid, 0 while none runs; starts; the last one's exit code.

    `is_owner` is false once another gateway has come.
    """

    pid: int = 0
    starts: int = 0
    code: int | None = None
    is_owner: bool = True


class KeeperClient:
    """The keeper of one folder. `state` is the last that it told; `changed` is called after it."""

    def __init__(self, layout: gateway_paths.GatewayPaths, changed: Callable[[], None]) -> None:
        self.state = EnvoyState()
        self._layout = layout
        self._changed = changed
        self._held: list[str] = []
        self._last_pid = 0
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether a keeper runs."""
        return self._listener is not None and not self._listener.done()

    async def find(self) -> bool:
        """Connect to the keeper that an earlier gateway has left; return whether there is one."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._layout.keeper_socket)
        except OSError:
            return False
        try:
            self._hear(await reader.readline())
        except (OSError, ValueError, TypeError):
            writer.close()
            return False
        self._writer = writer
        self._listener = tasks.spawn(self._listen(reader, writer), "envoy-keeper")
        if self._held:
            self.hold(self._held)
        return True

    async def start(self, command: Sequence[str], guardian_pid: int) -> None:
        """Start a keeper, which starts Envoy by the command. Raises OSError."""
        plan = envoy_keeper.KeeperPlan(
            self._layout.run_dir, self._layout.log, guardian_pid, list(command)
        )
        # Opening it blocks, but it is on the node's own disk and once in a process's life.
        with Path(self._layout.log).open("ab") as log:  # noqa: ASYNC230
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", envoy_keeper.BOOT),
                *(PACKAGES, json.dumps(plan._asdict())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        code = await process.wait()
        if code or not await self.find():
            raise OSError(f"Envoy's keeper can't start: it ended with {code}")

    def hold(self, addresses: Sequence[str]) -> None:
        """Have the sockets of these addresses held for the next Envoy, and no others."""
        self._held = list(addresses)
        self._say({"hold": self._held})

    def refuse(self) -> None:
        """Have no new connections taken on the held ports."""
        self._say({"refuse": True})

    async def stop(self) -> None:
        """End Envoy and its keeper."""
        if self._listener is None:
            return
        self._say({"stop": True})
        await asyncio.wait([self._listener], timeout=STOP_S)
        self._listener.cancel()
        await asyncio.wait([self._listener])

    async def wait_until_ended(self) -> None:
        """Return once the keeper, and Envoy with it, has ended."""
        if self._listener is not None:
            await asyncio.wait([self._listener])

    def end_orphan(self) -> None:
        """Kill the Envoy whose keeper was killed; return once it has ended.

        It ends by itself, but for seconds it tries to tell its keeper, and holds the port.
        """
        with contextlib.suppress(OSError):
            process = os.pidfd_open(self._last_pid)
            try:
                # The number may be another program's by now.
                if self._layout.config_dir in Path(f"/proc/{self._last_pid}/cmdline").read_text():
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    select.select([process], [], [], STOP_S)
            finally:
                os.close(process)

    def _say(self, word: dict[str, object]) -> None:
        if self._writer is not None and self.is_connected:
            self._writer.write(json.dumps(word).encode() + b"\n")

    def _hear(self, line: bytes) -> None:
        """Take one line of the keeper. Raises ValueError if it is none."""
        self.state = EnvoyState(**json.loads(line))
        self._last_pid = self.state.pid

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    self._hear(line)
                    self._changed()
        finally:
            self.state = dataclasses.replace(self.state, pid=0)
            writer.close()
        self._changed()
