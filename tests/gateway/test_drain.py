"""A drain under load: each client is told to leave before its connection is closed."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest

from meshserve import tasks
from tests.gateway import conftest
from tests.gateway.conftest import INFER

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

CLIENTS = 16
REQUEST = b"GET /v2/models/iris HTTP/1.1\r\nhost: mesh\r\n\r\n"


class Callers:
    """Clients that ask again and again on connections that they keep, until they can't connect."""

    def __init__(self, listen: str, pause_s: float = 0.0) -> None:
        self.outcomes: Counter[str] = Counter()
        self._host, _, self._port = listen.partition(":")
        self._pause_s = pause_s

    async def call_by_http(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._host, int(self._port))
            except OSError as error:
                self.outcomes[type(error).__name__] += 1
                return
            self.outcomes[await self._use(reader, writer)] += 1
            writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Ask until the connection ends; return how it ended."""
        try:
            while True:
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = [int(line[15:]) for line in head.split(b"\r\n") if b"ontent-l" in line]
                await reader.readexactly(length)
                self.outcomes["answered"] += 1
                if b"connection: close" in head:
                    return "told"
                await asyncio.sleep(self._pause_s)
        except (OSError, asyncio.IncompleteReadError):
            return "broken"

    async def call_by_grpc(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        address = f"{self._host}:{self._port}"
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            while True:
                try:
                    await channel.unary_unary(INFER)(b"", timeout=30)
                except grpc.aio.AioRpcError as error:
                    kind = "refused" if "onnect" in str(error.details()) else str(error.details())
                    self.outcomes["ConnectionRefusedError" if kind == "refused" else kind] += 1
                    return
                self.outcomes["answered"] += 1
                await asyncio.sleep(self._pause_s)


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.5])
async def test_no_connection_breaks_under_load(mesh: conftest.Mesh, pause_s: float) -> None:
    by_http = Callers(mesh.snapshot.listen, pause_s)
    by_grpc = Callers(mesh.snapshot.listen, pause_s)
    calls = [
        *(tasks.spawn(by_http.call_by_http(), "http", is_awaited=True) for _ in range(CLIENTS)),
        *(tasks.spawn(by_grpc.call_by_grpc(), "grpc", is_awaited=True) for _ in range(CLIENTS)),
    ]
    await asyncio.sleep(0.5)
    assert await mesh.gateway.drain(30)
    await mesh.gateway.stop()
    async with asyncio.timeout(60):
        await asyncio.gather(*calls)
    assert by_http.outcomes.pop("answered") >= CLIENTS
    assert by_grpc.outcomes.pop("answered") >= CLIENTS
    assert by_http.outcomes.pop("told") >= CLIENTS
    assert by_http.outcomes == by_grpc.outcomes == Counter({"ConnectionRefusedError": CLIENTS})
